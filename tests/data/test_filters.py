"""The filters: what they keep, and that an interrupted run goes on, against a real OpenAI-compatible server."""

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.chat_server import ChatServer
from vgr_rl.config.resolvers import asset_path
from vgr_rl.data.filters.decisions import Graded, keep_hard, keep_spread, pass_at_k
from vgr_rl.data.schema import Row, image_path, read_samples, write_samples
from vgr_rl.data.tiny_world import rl_rows
from vgr_rl.grounding import Sample, Size
from vgr_rl.prepare import main as prepare
from vgr_rl.tiny.model import build_model, save_model


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_response(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    subsets = [any(subset) for subset in itertools.combinations(right, k)]
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(statistics.mean(subsets))


def test_hard_is_what_a_model_rarely_gets_right() -> None:
    graded = {"never": Graded((0, 0)), "half": Graded((1, 0)), "always": Graded((1, 1)), "no answer": Graded((), "why")}
    decisions = keep_hard(graded, k=1, max_pass=0.5)
    assert {name: decision.rule for name, decision in decisions.items()} == {
        "never": "hard",
        "half": "hard",
        "always": "easy",
        "no answer": "not graded",
    }
    assert not decisions["no answer"].kept and decisions["no answer"].why == "why"
    assert decisions["half"].why == "1 of 2 right: pass@1 0.500, at most 0.5 wanted"
    assert not keep_hard(graded, k=2, max_pass=0.5)["half"].kept  # one of two looks finds it


def test_the_widest_spreads_are_kept_and_flat_groups_never() -> None:
    graded = {
        "narrow": Graded((1.0, 1.2)),
        "flat": Graded((2.0, 2.0)),
        "wide": Graded((0.0, 3.0)),
        "twin": Graded((3.0, 0.0)),
        "failed": Graded((0.0,), "judge is down"),
    }
    kept = {name for name, decision in keep_spread(graded, top=2).items() if decision.kept}
    assert kept == {"wide", "twin"}
    assert [name for name, d in keep_spread(graded, top=1).items() if d.kept] == ["wide"]
    decisions = keep_spread(graded, top=9)
    assert {name: d.rule for name, d in decisions.items() if not d.kept} == {"flat": "flat", "failed": "not graded"}
    assert decisions["narrow"].why == "standard deviation 0.100: rank 3 of 3, the first 9 wanted"


def answers(number: int, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Question N is answered right in the first N of n responses."""
    return [(f"so</think><answer>{'A' if i < number else 'B'}</answer>", "stop") for i in range(body["n"])]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(r"Question (\d+)", answers).in_thread() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, whose processor makes the prompts, and six questions; the last has no answer to grade."""
    path = tmp_path_factory.mktemp("filters")
    save_model(build_model("qwen2_5_vl"), "qwen2_5_vl", path / "model")
    Image.new("RGB", (64, 64), "red").save(path / "image.png")

    def row(number: int) -> Row:
        kind = "none" if number == 5 else "choice"
        sample = Sample(f"q{number}", "test", "", "A", kind, ("red", "blue"), (), Size(64, 64))  # type: ignore[arg-type]
        return Row(sample, [{"role": "user", "content": f"<image>Question {number}"}], [image_path("image.png")])

    write_samples(map(row, range(6)), path / "rows.parquet")
    return path


def _arguments(folder: Path, server: ChatServer, command: str, out: Path, *more: str) -> list[str]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    shared = ["--input", f"{folder}/rows.parquet", "--model", f"{folder}/model", "--url", url, "--concurrency", "1"]
    return [command, *shared, "--samples", "4", "--max-new-tokens", "32", "--out", str(out), *more]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_hard_samples_through_a_server_each_with_its_reason(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "hard.parquet"
    prepare(_arguments(folder, server, "filter-hard", out, "--max-pass", "0.5"))
    rows = list(read_samples(out))
    assert [row.sample.id for row in rows] == ["q0", "q1", "q2"]
    assert rows[0].images == [image_path(folder / "image.png")]  # still found from another folder
    decisions = {line["id"]: line for line in _lines(tmp_path / "hard.filter" / "decisions.jsonl")}
    assert decisions["q3"]["kept"] is False and decisions["q3"]["why"].startswith("3 of 4 right: pass@1 0.750")
    assert decisions["q1"]["answers"] == ["A", "B", "B", "B"] and decisions["q1"]["scores"] == [1, 0, 0, 0]
    assert decisions["q5"]["rule"] == "not graded" and "not_applicable" in decisions["q5"]["why"]
    counts = json.loads((tmp_path / "hard.filter" / "counts.json").read_text())
    assert counts == {"samples": 6, "kept": 3, "by_rule": {"hard": 3, "easy": 2, "not graded": 1}}
    user, prefill = server.bodies[0]["messages"]
    picture = user["content"][0]["image_url"]["url"]
    assert picture.startswith("data:image/png;base64,") and prefill == {"role": "assistant", "content": "<think>"}
    assert server.bodies[0]["n"] == 4 and server.bodies[0]["continue_final_message"] is True


def test_a_run_that_was_stopped_asks_only_what_is_left(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    arguments = _arguments(folder, server, "filter-variance", tmp_path / "top.parquet", "--top", "2")
    server.patience = 3
    with pytest.raises(SystemExit, match="did not answer sample q3.*enough"):
        prepare(arguments)
    assert not (tmp_path / "top.parquet").exists()
    graded = tmp_path / "top.filter" / "graded.jsonl"
    graded.write_text(graded.read_text()[:-20])  # killed in the middle of a line
    server.patience = 1000
    prepare(arguments)
    assert server.asked == [0, 1, 2, 2, 3, 4, 5]
    assert [row.sample.id for row in read_samples(tmp_path / "top.parquet")] == ["q1", "q2"]  # q1 and q3 spread alike
    prepare([*arguments[:-1], "3"])  # another rule: nothing is asked again
    assert len(server.asked) == 7
    assert [row.sample.id for row in read_samples(tmp_path / "top.parquet")] == ["q1", "q2", "q3"]
    with pytest.raises(SystemExit, match="a run with temperature=1.0 but this one has temperature=0.5.*another --out"):
        prepare([*arguments, "--temperature", "0.5"])


def test_several_files_are_one_set(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    rows = list(read_samples(folder / "rows.parquet"))
    for name, part in (("first", rows[:2]), ("second", rows[2:4])):
        write_samples(
            [Row(row.sample, row.prompt, [image_path(folder / "image.png")]) for row in part], tmp_path / name
        )
    arguments = _arguments(folder, server, "filter-hard", tmp_path / "hard.parquet")
    arguments[2:3] = [str(tmp_path / "first"), str(tmp_path / "second")]
    prepare(arguments)
    assert [row.sample.id for row in read_samples(tmp_path / "hard.parquet")] == ["q0", "q1", "q2"]
    arguments[3] = arguments[2]
    with pytest.raises(SystemExit, match="2 ids come more than once, the first is q0"):
        prepare(arguments)


def test_a_prompt_that_is_too_long_is_not_asked(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    prepare(_arguments(folder, server, "filter-hard", tmp_path / "hard.parquet", "--max-prompt-tokens", "9"))
    assert server.asked == [] and list(read_samples(tmp_path / "hard.parquet")) == []
    (line, *_) = _lines(tmp_path / "hard.filter" / "decisions.jsonl")
    assert line["rule"] == "not graded" and "--max-prompt-tokens=9" in line["why"]


def rollouts_of(run_dir: Path, scores: dict[str, list[float | None]], lr: float = 0.0) -> Path:
    """Write what a run of vgr_rl.main leaves of groups with these scores."""
    run_dir.mkdir()
    reasons = {"mask_iou": "no masks"}
    rows = [
        {"step": 1, "id": name, "score": score, "predicted_answer": "", "reasons": reasons if score is None else {}}
        for name, own in scores.items()
        for score in own
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run_dir / "samples.jsonl").write_text(lines + lines[:20])  # killed in the middle of a line
    (run_dir / "config.yaml").write_text(f"actor_rollout_ref: {{actor: {{optim: {{lr: {lr}}}}}}}\n")
    return run_dir


def test_the_rewards_of_a_run_decide_without_a_model(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores: dict[str, list[float | None]] = {"q0": [1, 1], "q1": [0, 2], "q2": [0, 1], "q3": [0, None]}
    run_dir, out = rollouts_of(tmp_path / "run", scores | {"another": [0, 9]}), tmp_path / "kept.parquet"
    command = ["filter-rollouts", "--input", f"{folder}/rows.parquet", "--out", str(out), "--top", "1"]
    prepare([*command, "--run", str(run_dir)])
    assert [row.sample.id for row in read_samples(out)] == ["q1"]
    decisions = {line["id"]: line for line in _lines(tmp_path / "kept.filter" / "decisions.jsonl")}
    assert [decisions[f"q{i}"]["rule"] for i in range(4)] == ["flat", "spread", "less spread", "not graded"]
    assert decisions["q1"]["scores"] == [0, 2] and decisions["q3"]["why"] == "mask_iou: no masks"
    assert all(decisions[name]["why"] == "no rollouts" for name in ("q4", "q5"))
    assert "learnt while it sampled" not in caplog.text
    prepare([*command, "--run", str(rollouts_of(tmp_path / "learnt", scores, lr=1e-5))])
    assert "learnt while it sampled (actor_rollout_ref.actor.optim.lr=1e-05)" in caplog.text


def test_a_run_without_rollouts_of_the_samples_is_refused(folder: Path, tmp_path: Path) -> None:
    command = ["filter-rollouts", "--input", f"{folder}/rows.parquet", "--out", str(tmp_path / "kept.parquet")]
    with pytest.raises(SystemExit, match=r"samples\.jsonl is missing; vgr_rl\.main writes it"):
        prepare([*command, "--top", "1", "--run", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="has no rollouts of the 6 samples of --input"):
        prepare([*command, "--top", "1", "--run", str(rollouts_of(tmp_path / "other", {"another": [0, 9]}))])


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("filter-hard", ("--k", "5"), "--k=5 --samples=4"),
        ("filter-hard", ("--max-pass", "2"), "--max-pass=2"),
        ("filter-hard", ("--concurrency", "0"), "--concurrency=0 but at least 1"),
        ("filter-hard", ("--api-key-env", "NO_SUCH_KEY"), "api_key_env=NO_SUCH_KEY but the environment has"),
        ("filter-variance", ("--top", "0"), "--top=0"),
        ("filter-variance", ("--top", "1", "--rewards", "treevrg"), "rewards='treevrg'"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, server: ChatServer, tmp_path: Path, command: str, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        prepare(_arguments(folder, server, command, tmp_path / "out.parquet", *more))


@pytest.mark.slow
def test_both_filters_through_vllm(folder: Path, tmp_path: Path) -> None:
    write_samples(rl_rows("heldout", 12, 0), tmp_path / "rows.parquet")
    model = asset_path("base_qwen2_5_vl")
    shared = ["--input", "rows.parquet", "--model", model, "--max-new-tokens", "64", "--concurrency", "16"]
    code = f"""
from vgr_rl.prepare import main
shared = {shared!r}
main(["filter-hard", *shared, "--out", "hard.parquet", "--samples", "2", "--max-pass", "0"])
main(["filter-variance", *shared, "--out", "top.parquet", "--samples", "4", "--top", "3"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-4000:]
    hard = _lines(tmp_path / "hard.filter" / "decisions.jsonl")
    assert len(hard) == 12 and {line["kept"] for line in hard} == {True, False}  # the base is right four times of five
    kept = [line["id"] for line in hard if sum(line["scores"]) == 0]
    assert kept == [row.sample.id for row in read_samples(tmp_path / "hard.parquet")]
    top = _lines(tmp_path / "top.filter" / "decisions.jsonl")
    spreads = sorted((statistics.pstdev(line["scores"]), line["kept"]) for line in top)
    assert [kept for _, kept in spreads] == [False] * 9 + [True] * 3
    assert max(max(line["scores"]) for line in top) > 2  # accuracy, format and boxes of a model that can do it
