"""From pictures with boxes to a file that TreeBench's loader reads, with small servers in place of large models."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scripts.bench.benchmark_files import write_jsonl
from tests.chat_server import ChatServer
from vgr_rl.benchmarks.construction.candidates import PROMPTS, Prompts, read_candidate
from vgr_rl.benchmarks.treebench import TREEBENCH
from vgr_rl.benchmarks.tsv import read_tsv
from vgr_rl.data.filters.decisions import keep_consensus
from vgr_rl.prepare import main as prepare

CATEGORIES = "Perception/OCR,Reasoning/Ordering"
WRITTEN = {"question": "Which is left?", "options": ["cup", "jug", "pan"], "answer": "B", "objects": [3, 1]}


def box(picture: int, number: int) -> list[int]:
    """Return an object as COCO has it; its left edge tells the picture."""
    return [picture, 10 * number, 5, 8]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Six pictures: picture N has N objects, and a crowd that is none."""
    for number in range(1, 7):
        Image.new("RGB", (1000, 500), (number, 0, 0)).save(tmp_path / f"{number}.png")
    annotations = [
        {"image_id": picture, "bbox": box(picture, number), "category_id": 1, "iscrowd": 0}
        for picture in range(1, 7)
        for number in range(picture)
    ]
    annotations.append({"image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 1, "iscrowd": 1})
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(1, 7)],
        "categories": [{"id": 1, "name": "jar"}],
        "annotations": annotations,
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path / "instances.json"


def answers(picture: int, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Write a question about every picture but the fifth, in a fence as models like to."""
    text = "I cannot." if picture == 5 else f"Here:\n```json\n{json.dumps(WRITTEN)}\n```"
    return [(text, "stop")]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(r"1\. jar \[(\d+),", answers).in_thread() as server:
        yield server


def images(coco: Path, *more: str) -> Path:
    out = coco.parent / "images.jsonl"
    prepare(["bench-images", "--input", str(coco), "--boxes", "3-6", "--count", "3", "--out", str(out), *more])
    return out


def ask(coco: Path, server: ChatServer, *more: str) -> list[str]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    arguments = ["bench-questions", "--input", str(images(coco)), "--url", url, "--model", "big", "--concurrency", "1"]
    return [*arguments, "--categories", CATEGORIES, "--out", str(coco.parent / "candidates.tsv"), *more]


def test_dense_pictures_are_drawn_by_lot(coco: Path) -> None:
    def drawn(*more: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in images(coco, *more).read_text().splitlines()]

    ids = {seed: [row["id"] for row in drawn("--seed", str(seed))] for seed in range(8)}
    assert all(len(set(own)) == 3 and set(own) <= set("3456") for own in ids.values())
    assert len(set(map(tuple, ids.values()))) > 1 and [row["id"] for row in drawn()] == ids[0]
    row = drawn("--boxes", "6-6", "--count", "1")[0]
    assert row["names"] == ["jar"] * 6 and row["boxes_orig_px"][2] == [6, 20, 11, 28] and Path(row["image"]).is_file()
    with pytest.raises(SystemExit, match=r"--count=9 but .*instances.json has 4 pictures with --boxes=3-6 objects"):
        drawn("--count", "9")


def test_sa1b_is_a_folder_of_files(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "sa_1.jpg")
    annotations = [{"bbox": [1.5, 2, 3, 4]}] * 3
    content = {"image": {"image_id": 1, "file_name": "sa_1.jpg"}, "annotations": annotations}
    (tmp_path / "sa_1.json").write_text(json.dumps(content))
    out = tmp_path / "out" / "images.jsonl"
    prepare(["bench-images", "--input", str(tmp_path), "--boxes", "3-3", "--count", "1", "--out", str(out)])
    assert json.loads(out.read_text())["boxes_orig_px"][0] == [1.5, 2.0, 4.5, 6.0]
    (tmp_path / "sa_2.json").write_text("{}")
    with pytest.raises(SystemExit, match="is neither a COCO file nor a folder of SA-1B's json files: KeyError"):
        prepare(["bench-images", "--input", str(tmp_path), "--count", "1", "--out", str(out)])


def test_questions_become_rows_that_the_loader_reads(coco: Path, server: ChatServer) -> None:
    prepare(ask(coco, server))
    items = TREEBENCH.load(coco.parent / "candidates.tsv")
    pictures = [json.loads(line)["id"] for line in images(coco).read_text().splitlines()]
    usable = [name for name in pictures if name != "5"]
    assert len(items) == 2 * len(usable) and {item.category for item in items} == set(CATEGORIES.split(","))
    assert len({item.answer for item in items}) > 1, "the options were not shuffled"
    for item in items:
        letters = dict(line.split(". ") for line in item.options_text.splitlines())
        assert letters[item.answer] == "jug" and set(letters.values()) == set(WRITTEN["options"])
        picture = Image.open(coco.parent / f"{int(item.targets_orig_px[0][0])}.png")
        assert item.targets_orig_px[0][1] == 20 and item.stored_size() == picture.size
    assert (coco.parent / "candidates.tsv").read_text().count("iVBORw0KGgo") == len(usable), "an image is there twice"
    lines = [
        json.loads(line) for line in (coco.parent / "candidates.responses/responses.jsonl").read_text().splitlines()
    ]
    assert {line["problem"] for line in lines} <= {None, "no JSON object"}
    text = server.bodies[0]["messages"][0]["content"][1]["text"]
    assert "Kind of question: Perception/OCR. Ask for a text" in text and "\n2. jar [" in text


def test_it_goes_on_where_it_was_stopped(coco: Path, server: ChatServer) -> None:
    server.patience = 4
    with pytest.raises(SystemExit, match="did not answer sample"):
        prepare(ask(coco, server))
    server.patience = 1000
    prepare(ask(coco, server))
    assert len(server.asked) == 6
    with pytest.raises(SystemExit, match="holds a run with temperature=1.0 but this one has temperature=0.5"):
        prepare(ask(coco, server, "--temperature", "0.5"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"question": " "}, "question is empty"),
        ({"options": ["cup", "cup"]}, "options are not 2 to 6 different texts"),
        ({"options": "cup"}, "options are not 2 to 6"),
        ({"answer": "D"}, "answer is no option's letter"),
        ({"answer": ""}, "answer is no option's letter"),
        ({"objects": [7]}, "objects are not numbers of the picture's objects"),
        ({"objects": []}, "objects are not"),
    ],
)
def test_a_response_that_is_no_question_says_why(change: dict[str, Any], problem: str) -> None:
    assert read_candidate(json.dumps(WRITTEN), 6).objects == (2, 0)
    with pytest.raises(ValueError, match=problem):
        read_candidate(json.dumps(WRITTEN | change), 6)


@given(st.text(alphabet='{}[]":, a1'))
def test_no_response_breaks_the_reader(text: str) -> None:
    with pytest.raises(ValueError):
        read_candidate(text, 3)


def test_prompts_of_ones_own_are_checked(tmp_path: Path) -> None:
    assert list(Prompts.read(PROMPTS).categories) == list(TREEBENCH.categories)
    (tmp_path / "p.yaml").write_text("prompt: <image> {category} {task}\ncategories: {Perception/OCR: read}\n")
    with pytest.raises(ValueError, match="the prompt has no {objects}"):
        Prompts.read(tmp_path / "p.yaml")
    with pytest.raises(ValueError, match="Perception/Smell is no category of TreeBench; there are"):
        Prompts.read(PROMPTS, ["Perception/Smell"])


def test_what_all_models_know_is_left_out() -> None:
    votes = {"all": [True, True], "one": [False, True], "none": [False, False]}
    assert {name for name, decision in keep_consensus(votes, 1).items() if decision.kept} == {"one", "none"}
    assert keep_consensus(votes, 0)["one"].why == "1 of 2 models right, at most 0 wanted"


def test_from_consensus_through_review_to_the_benchmark(coco: Path, server: ChatServer) -> None:
    folder, candidates = coco.parent, coco.parent / "candidates.tsv"
    prepare(ask(coco, server))
    items = TREEBENCH.load(candidates)
    for name, wrong in (("a", {0, 1}), ("b", {1, 2})):
        rows = [{"index": item.key, "response": "?" if i in wrong else item.answer} for i, item in enumerate(items)]
        write_jsonl(folder / f"{name}.jsonl", rows)
    predictions = [str(folder / name) for name in ("a.jsonl", "b.jsonl")]
    hard = folder / "hard.tsv"
    prepare(["bench-consensus", "--data", str(candidates), "--predictions", *predictions, "--out", str(hard)])
    assert [item.key for item in TREEBENCH.load(hard)] == ["0", "1", "2"]
    assert all(item.encoded_images() for item in TREEBENCH.load(hard))
    why = [json.loads(line)["why"] for line in hard.with_suffix(".decisions.jsonl").read_text().splitlines()]
    assert why[1] == "0 of 2 models right, at most 1 wanted"

    prepare(["bench-review", "--data", str(hard), "--out", str(folder / "review")])
    assert Image.open(folder / "review/sheet_001.png").size[0] > 1000
    table = folder / "review/review.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with pytest.raises(SystemExit, match="review.csv exists, and somebody may have written in it"):
        prepare(["bench-review", "--data", str(hard), "--out", str(folder / "review")])
    rows[0] |= {"verdict": "Keep", "question": "Changed?", "answer": "A"}
    rows[1] |= {"verdict": "drop"}
    arguments = ["bench-import", "--data", str(hard), "--review", str(table), "--out", str(folder / "mine.tsv")]
    save(table, rows)
    with pytest.raises(SystemExit, match="(?s)1 rows .*--partial.*index=2: verdict='' is not one of keep, drop"):
        prepare(arguments)
    prepare([*arguments, "--partial"])
    (item,) = TREEBENCH.load(folder / "mine.tsv")
    assert (item.key, item.question, item.answer) == ("0", "Changed?", "A")
    assert item.targets_orig_px == items[0].targets_orig_px and item.encoded_images() == items[0].encoded_images()
    save(table, [rows[0] | {"answer": "Z"}, rows[1], rows[2] | {"verdict": "drop"}])
    with pytest.raises(SystemExit, match="answer='Z' is not one of A, B, C, D, E, F"):
        prepare(arguments)


def save(table: Path, rows: list[dict[str, Any]]) -> None:
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_an_image_of_several_rows_is_written_once(coco: Path, server: ChatServer) -> None:
    prepare(ask(coco, server))
    with (coco.parent / "candidates.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    first, again, other = (row["image"] for row in rows[:3])
    assert again == rows[0]["index"] and len(first) > 100 < len(other) and first != other
    images = [row["image"]() for row in read_tsv(coco.parent / "candidates.tsv")]
    assert images[0] == images[1] != images[2]
