"""The evaluation program on real vLLM, with tiny models of both families that have random weights."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vgr_rl.benchmarks.summary import summarise
from vgr_rl.data.schema import read_samples, write_samples
from vgr_rl.data.tiny_world import rl_rows

pytestmark = pytest.mark.e2e

_FAMILIES = ("qwen2_5_vl", "qwen3_vl")
_NEW_TOKENS = 24


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that would love to write vision tokens, 16 samples, and an evaluation of the first 12."""
    import torch

    from vgr_rl.tiny.model import build_model, save_model
    from vgr_rl.tiny.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("evaluate")
    tokenizer = build_tokenizer()
    for family in _FAMILIES:
        model = build_model(family, 3)
        with torch.no_grad():
            model.lm_head.weight.mul_(8)  # far apart logits: both engines agree on the best token
            for wanted, banned in zip(("222", "172", "191"), ("image", "video", "vision_start"), strict=True):
                row = model.lm_head.weight[tokenizer.convert_tokens_to_ids(wanted)]  # models of this seed write these
                model.lm_head.weight[getattr(model.config, f"{banned}_token_id")] = 3 * row
        save_model(model, family, folder / family)
    write_samples(rl_rows("heldout", 16, 0), folder / "heldout.parquet")
    _evaluate(folder, _FAMILIES, "limit=12")
    return folder


def _evaluate(folder: Path, families: tuple[str, ...], *overrides: str) -> None:
    models = ",".join(str(folder / family) for family in families)
    outs = ",".join(str(folder / "out" / family) for family in families)
    command = [sys.executable, "-m", "vgr_rl.evaluate", f"model=[{models}]", f"out=[{outs}]"]
    command += [f"data={folder / 'heldout.parquet'}", f"max_new_tokens={_NEW_TOKENS}", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-4000:]


def _rows(folder: Path, family: str, mode: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / family / f"{mode}.jsonl").read_text().splitlines()]


def _generate(folder: Path, family: str, count: int, ban: bool) -> list[str]:
    """Answer the first samples one by one with `generate` of transformers."""
    import io

    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from vgr_rl.training.vision_tokens import banned_token_ids

    processor = AutoProcessor.from_pretrained(folder / family)
    model = AutoModelForImageTextToText.from_pretrained(folder / family).eval()
    texts = []
    for row, _ in zip(read_samples(folder / "heldout.parquet"), range(count), strict=False):
        question = row.prompt[0]["content"].removeprefix("<image>")
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) + "<think>"
        image = Image.open(io.BytesIO(row.images[0]["bytes"]))
        inputs = processor(text=[prompt], images=[image], return_tensors="pt")
        output = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=_NEW_TOKENS,
            suppress_tokens=banned_token_ids(processor) if ban else None,
        )
        response = output[0, inputs["input_ids"].shape[1] :]
        texts.append("<think>" + processor.tokenizer.decode(response, skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("family", _FAMILIES)
def test_greedy_responses_are_those_of_transformers_with_vision_tokens_banned(work: Path, family: str):
    served = [row["response"] for row in _rows(work, family, "greedy")]
    assert served[:5] == _generate(work, family, 5, ban=True)
    assert served[:5] != _generate(work, family, 5, ban=False)


@pytest.mark.parametrize("family", _FAMILIES)
def test_rows_follow_the_data_and_the_summary_is_theirs(work: Path, family: str):
    samples = [row.sample for row in read_samples(work / "heldout.parquet")]
    summary = json.loads((work / "out" / family / "summary.json").read_text())
    for mode in ("greedy", "sampled"):
        rows = _rows(work, family, mode)[:12]
        assert [row["id"] for row in rows] == [sample.id for sample in samples[:12]]
        assert [row["answer"] for row in rows] == [sample.answer for sample in samples[:12]]
        assert all(row["targets_orig_px"] and row["image"]["png_base64"] for row in rows)
        assert all(0 < row["length"] <= _NEW_TOKENS for row in rows)
        if summary[mode]["n"] == 12:
            assert summary[mode] == summarise(rows)


def test_it_goes_on_after_a_kill_with_the_rows_it_would_have_written(work: Path):
    path = work / "out" / _FAMILIES[0] / "sampled.jsonl"
    before = path.read_text().splitlines(keepends=True)
    path.write_text("".join(before[:5]) + before[5][:40])
    _evaluate(work, _FAMILIES[:1], "limit=16")
    after = path.read_text().splitlines(keepends=True)
    assert after[:12] == before and len(after) == 16
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["sampled"] == summarise([json.loads(line) for line in after])
