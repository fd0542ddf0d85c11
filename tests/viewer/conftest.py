"""Run directories as the programs write them, filled with invented numbers: enough to draw every part of a report."""

import base64
import json
import math
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rewards import TREEVGR
from vgr_rl.benchmarks.summary import summarise
from vgr_rl.data.tiny_world import GEOMETRY, to_sample
from vgr_rl.grounding import parse_trace
from vgr_rl.tiny.world import LETTERS, Scene, generate, render_png


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """This module: test files cannot import one another."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; tests that need one are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page file or an address; the test fails when the page logs a problem or asks the network for anything."""
    problems: list[str] = []
    contexts = []

    def open_page(target: Path | str, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("dialog", lambda dialog: (problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
        if isinstance(target, Path):
            page.on("request", lambda request: _check_address(request.url, problems))
            target = target.resolve().as_uri()
        page.goto(target)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _check_address(address: str, problems: list[str]) -> None:
    if not address.startswith(("file:", "data:", "blob:")):
        problems.append(f"request to {address}")


def write_demo(root: Path, items: int = 120, seed: int = 0) -> Path:
    """Write a whole demo folder."""
    write_sft(root / "sft")
    write_grpo(root / "grpo")
    scenes = list(generate("heldout", items, seed))
    for name, slip_px, right in (("cold_start", 9, 0.6), ("grpo", 3, 0.8)):
        write_evaluation(root / "eval" / name, scenes, slip_px, right, seed)
    seconds = {"install": 212.0, "data": 11.5, "sft": 84.0, "grpo": 505.2, "evaluate": 61.0}
    (root / "seconds.json").write_text(json.dumps(seconds))
    return root


def write_sft(path: Path, steps: int = 200) -> None:
    """Write a cold-start run."""
    rng = random.Random("sft")
    lines = []
    for step in range(1, steps + 1):
        data = {
            "train/loss": 0.35 + 4 * math.exp(-step / 25) + rng.gauss(0, 0.03),
            "train/lr": 5e-4 * min(step / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
            "train/grad_norm": 1.5 + rng.random(),
        }
        if step % 50 == 0:
            data["val/loss"] = 0.4 + 4 * math.exp(-step / 25)
        lines.append({"step": step, "data": data})
    _write(path, lines, [])


def write_grpo(path: Path, steps: int = 120, rollouts: list[dict[str, Any]] | None = None) -> Path:
    """Write a GRPO run with the given rollouts, or some of its last two steps."""
    rng = random.Random("grpo")
    lines = []
    for step in range(1, steps + 1):
        done = 1 - math.exp(-step / 50)
        wobble = rng.gauss(0, 0.02)
        recall = 0.36 + 0.33 * done + wobble
        accuracy = 0.62 + 0.18 * done + rng.gauss(0, 0.03)
        data = {
            "reward/accuracy/mean": accuracy,
            "reward/recall_iou/mean": recall,
            "reward/precision_iou/mean": recall + 0.03 + rng.gauss(0, 0.01),
            "reward/format/mean": min(1.0, 0.97 + 0.03 * done),
            "reward/score/mean": accuracy + recall + 1.0,
            "evidence/boxes_per_response": 1.65 - 0.07 * done + rng.gauss(0, 0.03),
            "response/length/mean": 40 - done + rng.gauss(0, 0.6),
            "actor/entropy": 0.5 - 0.3 * done + rng.gauss(0, 0.01),
            "actor/grad_norm": 0.8 + rng.random() / 2,
            "group/zero_variance_rate": max(0.0, 0.05 + 0.1 * done + rng.gauss(0, 0.04)),
            "training/rollout_actor_probs_pearson_corr": 0.99996 + rng.gauss(0, 1e-5),
            "timing_s/step": 1.4 + rng.random() / 3,
            "actor/kl_loss": float("nan"),
        }
        lines.append({"step": step, "data": data})
    _write(path, lines, _last_rollouts(steps, rng) if rollouts is None else rollouts)
    config = """
        data: {train_batch_size: 16}
        actor_rollout_ref:
          model: {path: models/tiny-qwen2_5-vl}
          actor: {optim: {lr: 1.0e-4}}
          rollout: {n: 8}
        trainer: {seed: 0}
    """
    (path / "config.yaml").write_text("\n".join(line[8:] for line in config.splitlines()))
    return path


def _last_rollouts(steps: int, rng: random.Random) -> list[dict[str, Any]]:
    rollouts = []
    for step in (steps - 1, steps):
        for scene in generate("train", 3, step):
            for rollout in range(4):
                row = row_of(scene, rng, slip_px=5, right=0.7)
                extra = {"step": step, "split": "train", "rollout": rollout, "advantage": rng.gauss(0, 1)}
                rollouts.append({**row, **extra})
    return rollouts


def write_evaluation(path: Path, scenes: list[Scene], slip_px: int, right: float, seed: int = 0) -> None:
    """Write an evaluation whose boxes are off by up to `slip_px` and whose answers are right at the given rate."""
    path.mkdir(parents=True, exist_ok=True)
    summary = {}
    for mode, blur in (("greedy", 0), ("sampled", 4)):
        rng = random.Random(f"{seed} {mode} {slip_px}")
        rows = [row_of(scene, rng, slip_px + blur, right - blur / 40) for scene in scenes]
        (path / f"{mode}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary[mode] = summarise(rows)
    (path / "summary.json").write_text(json.dumps(summary))


def row_of(scene: Scene, rng: random.Random, slip_px: int, right: float, response: str | None = None) -> dict[str, Any]:
    """Return a row with an invented response, scored by the real reward."""
    sample = to_sample(scene)
    answer = scene.answer if rng.random() < right else rng.choice(LETTERS)
    response = _response(scene, rng, slip_px, answer) if response is None else response
    trace = parse_trace(response, GEOMETRY, "model_px")
    composed = TREEVGR.score(trace, sample)
    return {
        "split": "val",
        "id": sample.id,
        "group": sample.id,
        "rollout": 0,
        "data_source": sample.data_source,
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.answer,
        "response": response,
        "score": composed.value,
        "parts": composed.parts,
        "terms": {name: score.value for name, score in composed.terms.items() if score.status == "ok"},
        "status": {name: score.status for name, score in composed.terms.items()},
        "length": len(response) // 4,
        "truncated": False,
        "malformed_boxes": trace.malformed,
        "boxes_orig_px": [list(box.box_orig_px) for box in trace.boxes],
        "targets_orig_px": [list(target.box_orig_px or ()) for target in sample.targets],
        "image_size": list(sample.image_size),
        "image": {"png_base64": base64.b64encode(render_png(scene)).decode()},
    }


def _response(scene: Scene, rng: random.Random, slip_px: int, answer: str) -> str:
    sentences = []
    for name, shape in zip(scene.names, scene.targets, strict=True):
        x1, y1, x2, y2 = (max(0, min(64, side + rng.randint(-slip_px, slip_px))) for side in shape.box_orig_px)
        sentences.append(f"{name} is at <box>[{x1},{y1},{x2},{y2}]</box>.")
    return f"{' '.join(sentences)} {scene.conclusion}</think><answer>{answer}</answer>"


def _write(path: Path, metrics: list[dict[str, Any]], rollouts: list[dict[str, Any]]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if rollouts:
        (path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rollouts))
