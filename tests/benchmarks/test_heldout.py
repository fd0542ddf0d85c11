"""Everything about an evaluation but the engine."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vgr_rl.benchmarks.heldout import Evaluation, Item, Scorer, evaluate, load_items
from vgr_rl.benchmarks.serve import Response, ServedModel, decode_image, prompt_seed
from vgr_rl.benchmarks.store import check_settings
from vgr_rl.data.schema import Row, image_bytes, image_path, read_samples, write_samples
from vgr_rl.data.tiny_world import rl_rows
from vgr_rl.grounding import Size


class _Quiet:
    def start(self, mode: str, total: int, done: int) -> None:
        pass

    def advance(self, mode: str) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vgr_rl.tiny.model import build_model, save_model

    path = tmp_path_factory.mktemp("heldout")
    for family in ("qwen2_5_vl", "qwen3_vl"):
        save_model(build_model(family, 0), family, path / family)
    write_samples(rl_rows("heldout", 6, 0), path / "heldout.parquet")
    return path


@pytest.fixture
def task(folder: Path, tmp_path: Path) -> Evaluation:
    return Evaluation(str(folder / "qwen2_5_vl"), folder / "heldout.parquet", tmp_path / "out", max_new_tokens=64)


def _load(task: Evaluation) -> tuple[ServedModel, dict[str, Item]]:
    model = ServedModel.load(task.model, prefill=task.prefill)
    return model, load_items(task, model)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_prompt_is_the_processors_own_followed_by_the_prefill(folder: Path, task: Evaluation, family: str):
    model, items = _load(replace(task, model=str(folder / family)))
    for row in read_samples(task.data):
        content = [{"type": "image"}, {"type": "text", "text": row.prompt[0]["content"].removeprefix("<image>")}]
        chat = [{"role": "user", "content": content}]
        text = model.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        picture = decode_image(row.images[0], folder)
        expanded = model.processor(text=[text], images=[picture], return_tensors="pt")["input_ids"][0].tolist()
        prefill = model.processor.tokenizer("<think>", add_special_tokens=False)["input_ids"]
        prompt = items[row.sample.id].prompt
        image_token = model.processor.image_token_id
        assert prompt.length == len(expanded) + len(prefill)
        assert prompt.token_ids.count(image_token) == 1 and prompt.token_ids[-len(prefill) :] == prefill
        without = [token for token in expanded if token != image_token]
        assert [token for token in prompt.token_ids if token != image_token] == without + prefill


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_every_image_of_a_prompt_counts_with_its_own_size(folder: Path, task: Evaluation, tmp_path: Path, family: str):
    from PIL import Image

    Image.new("RGB", (300, 200), "red").save(tmp_path / "second.png")
    first = next(iter(read_samples(task.data)))
    prompt = [{"role": "user", "content": f"<image>{first.prompt[0]['content']}"}]
    write_samples([replace(first, prompt=prompt, images=[*first.images, image_path("second.png")])], tmp_path / "two")
    model, items = _load(replace(task, model=str(folder / family), data=tmp_path / "two"))
    (item,) = items.values()
    text = model.processor.tokenizer.decode(item.prompt.token_ids)
    pictures = [decode_image(image, tmp_path) for image in item.prompt.images]
    expanded = model.processor(text=[text], images=pictures, return_tensors="pt")["input_ids"][0]
    assert pictures[0].size != pictures[1].size and item.prompt.length == len(expanded)


def test_limit_takes_the_first_samples(task: Evaluation):
    ids = [row.sample.id for row in read_samples(task.data)]
    assert list(_load(replace(task, limit=2))[1]) == ids[:2]
    assert list(_load(task)[1]) == ids


def test_rows_hold_boxes_in_stored_pixels_and_the_real_score(folder: Path, task: Evaluation):
    model, items = _load(replace(task, model=str(folder / "qwen3_vl")))
    item = next(iter(items.values()))
    text = "it is at <box>[250,500,500,1000]</box>.</think><answer>A</answer>"
    row = Scorer(model, task).row(item, Response(item.sample.id, text, 20, False))
    assert row["boxes_orig_px"] == [[16.0, 32.0, 32.0, 64.0]]
    assert row["targets_orig_px"] == [list(target.box_orig_px or ()) for target in item.sample.targets]
    assert row["parts"]["format"] == 1.0 and row["parts"]["boxes"] == 1.0
    assert row["score"] == pytest.approx(sum(row["parts"][p] for p in ("accuracy", "format", "dual_iou")))
    assert set(row["status"].values()) == {"ok"}
    json.dumps(row, allow_nan=False)


def test_the_reward_is_the_recipes_and_the_usual_parts_are_measured_all_the_same(task: Evaluation):
    terms = {"format": {"weight": 0.5}}
    model, items = _load(task)
    item = next(iter(items.values()))
    row = Scorer(model, replace(task, reward={"terms": terms})).row(
        item, Response(item.sample.id, "so</think><answer>A</answer>", 9, False)
    )
    assert row["score"] == 0.5
    assert {"accuracy", "recall_iou", "precision_iou", "dual_iou", "format"} <= set(row["parts"])


def test_a_reward_that_fails_gives_no_score(task: Evaluation, tmp_path: Path):
    (tmp_path / "broken.py").write_text("def broken(trace, sample):\n    return 1 / 0\n")
    model, items = _load(task)
    item = next(iter(items.values()))
    terms = {"broken": {"use": f"{tmp_path / 'broken.py'}:broken"}}
    row = Scorer(model, replace(task, reward={"terms": terms})).row(item, Response(item.sample.id, "", 1, True))
    assert row["score"] is None and row["status"] == {"broken": "failed"} and row["truncated"]


def test_pictures_by_path_stay_paths_and_large_ones_are_kept_once(folder: Path, task: Evaluation, tmp_path: Path):
    from PIL import Image

    Image.effect_noise((300, 200), 90).convert("RGB").save(tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    first = next(iter(read_samples(task.data)))
    rows = []
    for name, image in (("path", image_path("photo.png")), ("bytes", image_bytes(content))):
        rows.append(Row(replace(first.sample, id=name, image_size=Size(300, 200)), first.prompt, [image]))
    write_samples(rows, tmp_path / "photos.parquet")
    photos = replace(task, data=tmp_path / "photos.parquet")
    model, items = _load(photos)
    references = [Scorer(model, photos).row(i, Response(i.sample.id, "", 1, False))["image"] for i in items.values()]
    assert references[0] == {"path": str(tmp_path / "photo.png")}
    assert Path(references[1]["path"]).read_bytes() == content and task.out in Path(references[1]["path"]).parents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modes": ("best",)}, r"modes=\['best'\] but expected"),
        ({"modes": ()}, "modes="),
        ({"limit": 0}, "limit=0"),
        ({"temperature": 0.0}, r"modes=\[greedy\]"),
        ({"reward": {"by_source": {"tiny": {"format": None}}}}, "set reward.terms as well"),
        (
            {"data": Path("nowhere.parquet")},
            "nowhere.parquet does not exist; `python -m vgr_rl.prepare tiny --out DIR` ",
        ),
    ],
)
def test_bad_requests_name_the_knob(task: Evaluation, change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(task, **change)


def test_what_does_not_fit_is_said_before_anything_is_written(task: Evaluation, tmp_path: Path):
    with pytest.raises(ValueError, match="max_new_tokens=100000 and the .* prompt tokens of sample tiny-heldout"):
        evaluate(replace(task, max_new_tokens=100_000), _Quiet())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no config.json"):
        evaluate(replace(task, model=str(tmp_path / "empty")), _Quiet())
    rows = list(read_samples(task.data))
    write_samples([rows[0], rows[0]], tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="is also the id of row 0"):
        evaluate(replace(task, data=tmp_path / "twice.parquet"), _Quiet())
    write_samples([replace(rows[0], images=[])], tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="images=.* is missing"):
        evaluate(replace(task, data=tmp_path / "none.parquet"), _Quiet())
    assert not task.out.exists()


def test_an_evaluation_with_other_settings_is_not_continued(task: Evaluation):
    model, _ = _load(task)
    check_settings(task.out / "settings.json", task.settings(model))
    check_settings(task.out / "settings.json", replace(task, limit=3, concurrency=8).settings(model))
    for change, knob in (({"seed": 1}, "seed=0"), ({"max_new_tokens": 65}, "max_new_tokens=64")):
        with pytest.raises(ValueError, match=f"holds a run with {knob}"):
            evaluate(replace(task, **change), _Quiet())


def test_finished_rows_need_no_engine(task: Evaluation):
    model, items = _load(task)
    check_settings(task.out / "settings.json", task.settings(model))
    scorer = Scorer(model, task)
    rows = [scorer.row(item, Response(item.sample.id, "<box>[1,1,9,9]</box>", 5, False)) for item in items.values()]
    (task.out / "greedy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = evaluate(replace(task, modes=("greedy",)), _Quiet())
    assert summary["greedy"]["n"] == 6 and summary["greedy"]["boxes"] == 1.0
    assert json.loads((task.out / "summary.json").read_text()) == summary


def test_every_prompt_has_a_seed_of_its_own():
    seeds = {prompt_seed(seed, str(prompt)) for seed in range(10) for prompt in range(100)}
    assert len(seeds) == 1000
