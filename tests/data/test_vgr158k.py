import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vgr_rl import prepare
from vgr_rl.data import convert, draws
from vgr_rl.data.convert import Conversion, LeftOut
from vgr_rl.data.records import RowError
from vgr_rl.data.reflection import SENTENCES, Reflection
from vgr_rl.data.schema import read_records
from vgr_rl.data.validate import check_sft
from vgr_rl.data.vgr158k import FEW_BOXES, NO_REASONING, Settings, candidate_converter, converter, share_of_count
from vgr_rl.grounding.boxes import iou
from vgr_rl.grounding.frames import ImageGeometry, Size, model_frame
from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.grounding.trace import parse_trace

SIZE = Size(200, 100)
REGIONS = ("<SOT>[0.1, 0.2, 0.3, 0.4]<EOT><image>", "<SOT>[0.5, 0.25, 1, 1.0]<EOT><image>")
THOUGHT = f"Look. The cup {REGIONS[0]} stands left of\nthe jug {REGIONS[1]}."
BOXES = [(20, 20, 60, 40), (100, 25, 200, 100)]
RULES = {"qwen2_5_vl": ResizeRule(28, 56 * 56, 1280 * 28 * 28), "qwen3_vl": ResizeRule(32, 256 * 256, 4096 * 4096)}


def raw(response=f"<think>{THOUGHT}</think>\nleft", question="<image>\nWhere is the cup?", **changes):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": response}]
    return {"image": "a.png", "conversations": turns, **changes}


@pytest.fixture
def root(tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    return tmp_path


def converted(root, row, **settings):
    (outcome,) = converter(Settings(root, **settings))(7, row)
    return outcome


def test_regions_become_boxes_in_pixels_and_the_response_takes_the_form_of_the_paper(root):
    row = converted(root, raw(), system_prompt="Think.").row
    assert row.id == "vgr158k-7"
    assert row.messages == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "<image>\nWhere is the cup?"},
        {
            "role": "assistant",
            "content": "<think>Look. The cup <box>[20,20,60,40]</box> stands left of\n"
            "the jug <box>[100,25,200,100]</box>.</think><answer>left</answer>",
        },
    ]
    assert row.images == [{"bytes": None, "path": str(root / "a.png")}]


@pytest.mark.parametrize(
    "response",
    [
        f"\n<think>{THOUGHT}</think> left\n",
        f"{THOUGHT}</think>left",
        f"<think>{THOUGHT}</think>\n<answer> left</answer>\n",
        f"<think>{THOUGHT.replace('<EOT><image>', ' <EOT>').replace('[', ' [ ')}</think>left",
    ],
)
def test_responses_that_differ_in_tags_and_spaces_become_alike(root, response):
    assert converted(root, raw(response)).row == converted(root, raw()).row


@pytest.mark.parametrize("family", sorted(RULES))
@given(numbers=st.lists(st.floats(0, 1), min_size=4, max_size=4), width=st.integers(8, 900), height=st.integers(8, 900))
def test_boxes_survive_the_way_to_the_model_within_one_of_its_pixels(tmp_path_factory, family, numbers, width, height):
    path = tmp_path_factory.getbasetemp() / f"{width}x{height}.bmp"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("L", (height, width)).save(path.with_suffix(".jpg"), exif=exif)
    x1, x2 = sorted(numbers[:2])
    y1, y2 = sorted(numbers[2:])
    if x2 - x1 < 0.01 or y2 - y1 < 0.01:
        return
    text = f"<think>It <SOT>[{x1}, {y1}, {x2}, {y2}]<EOT><image> is red.</think>red"
    row = raw(text, image=path.with_suffix(".jpg").name)
    settings = {"min_boxes": 1, "rule": RULES[family], "frame": model_frame(family)}
    kept = converted(path.parent, row, **settings)
    geometry = RULES[family].geometry(Size(width, height))
    (box,) = parse_trace(kept.row.messages[-1]["content"], geometry, model_frame(family)).boxes
    wanted = (x1 * width, y1 * height, x2 * width, y2 * height)
    assert kept.facts.boxes_orig_px == (pytest.approx(wanted),)
    unit = [max(1, side / 1000) for side in geometry.model_size] * 2  # a step of norm1000 may be more than a pixel
    found, right = (geometry.from_orig(b, "model_px") for b in (box.box_orig_px, wanted))
    assert all(abs(f - r) <= u for f, r, u in zip(found, right, unit, strict=True))


@pytest.mark.parametrize(
    ("row", "step"),
    [
        (raw("no reasoning " + THOUGHT), NO_REASONING),
        (raw(f"<think>{THOUGHT}</think> "), NO_REASONING),
        (raw("<think>A cup, " + REGIONS[0] + "</think>left"), FEW_BOXES),
    ],
)
def test_filters_name_what_they_leave_out(root, row, step):
    assert converted(root, row) == LeftOut(step)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (raw(image=None), "image"),
        (raw(image="gone.png"), r"images\[0\]"),
        (raw(conversations=None), "conversations"),
        (raw(conversations=["hello"]), r"conversations\[0\]"),
        (raw(conversations=raw()["conversations"] * 2), "conversations"),
        (raw(f"<think>{THOUGHT} <SOT>[1, 2]<EOT></think>left"), "conversations"),
        (raw(f"<think>{THOUGHT} <image></think>left"), "conversations"),
        (raw(question="<image><image>?"), "conversations"),
        (raw(f"<think>{THOUGHT.replace('0.1', '0.9')}</think>left"), r"regions\[0\]"),
        (raw(f"<think>{THOUGHT.replace('1.0', '1.01')}</think>left"), r"regions\[1\]"),
        (raw(f"<think>{THOUGHT.replace('0.1', '-0.1')}</think>left"), r"regions\[0\]"),
    ],
)
def test_a_bad_row_names_its_field(root, row, field):
    with pytest.raises(RowError, match=f"^{field}="):
        converted(root, row)


@pytest.mark.parametrize("kind", ["uniform", "moved"])
def test_a_reflective_response_says_its_sentence_with_a_wrong_box_first(root, kind):
    kept = converted(root, raw(), reflection=Reflection(1.0, wrong_box=kind, max_iou=0.2))
    text = kept.row.messages[-1]["content"]
    boxes = [box.box_orig_px for box in parse_trace(text, ImageGeometry(SIZE, SIZE), "orig_px").boxes]
    assert kept.facts.marks == ("reflective",) and kept.facts.boxes_orig_px == tuple(BOXES)
    assert len(boxes) == 3 and [box for box in boxes if box in BOXES] == BOXES
    (wrong,) = [place for place, box in enumerate(boxes) if box not in BOXES]
    assert iou(boxes[wrong], boxes[wrong + 1]) < 0.25
    sentences = "|".join(map(re.escape, SENTENCES))
    said_twice = re.compile(rf"(The cup|the jug) <box>\S+</box>\. (?:{sentences}) (?=\1 <box>)")
    plain = converted(root, raw(), reflection=Reflection(0.0))
    assert said_twice.sub("", text) == plain.row.messages[-1]["content"] != text
    assert plain.facts.marks == ()


def test_a_box_that_fills_the_image_cannot_be_moved_but_another_can_be_drawn(root):
    row = raw("<think>It <SOT>[0, 0, 1, 1]<EOT> is red.</think>red")
    for kind, marks in (("moved", ()), ("uniform", ("reflective",))):
        assert converted(root, row, min_boxes=1, reflection=Reflection(1.0, wrong_box=kind)).facts.marks == marks


def test_a_count_of_reflective_rows_is_met_exactly(root):
    rows = [raw(image=None), raw("<think>one box</think>left")] + [raw()] * 50
    candidates = Conversion("x", candidate_converter(Settings(root, seed=3)), True, records=rows)
    for wanted, got in ((0, 0), (13, 13), (50, 50), (99, 50)):
        share = share_of_count(candidates.kept(), wanted, seed=3)
        make = converter(Settings(root, reflection=Reflection(share), seed=3))
        kept = Conversion("x", make, True, records=rows).kept()
        assert sum(bool(k.facts.marks) for k in kept) == got
    assert 0 <= draws.uniform(0, "a", "b") < 1 and draws.uniform(0, "a", "b") != draws.uniform(1, "a", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "--reflective=1.5"),
        ({"max_iou": 0}, "--wrong-box-iou=0"),
        ({"sentences": ()}, "--reflection-file"),
        ({"wrong_box": "far"}, "--wrong-box=far"),
    ],
)
def test_settings_out_of_range_name_their_option(options, message):
    with pytest.raises(ValueError, match=message):
        Reflection(**options)


def test_the_command_gives_the_same_bytes_from_every_layout_and_number_of_workers(root, monkeypatch):
    rows = [raw(image="a.png") for _ in range(40)] + [raw(f"<think>{REGIONS[0]}</think>left")]
    (root / "rows.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), root / "rows.parquet")
    monkeypatch.setattr(convert, "CHUNK_ROWS", 16)
    made = []
    for kind, workers in (("json", 1), ("parquet", 2)):
        out = root / kind / "sft.parquet"
        command = ["vgr158k", "--input", str(root / f"rows.{kind}"), "--out", str(out), "--workers", str(workers)]
        prepare.main([*command, "--reflective", "0.3", "--seed", "5"])
        made.append([file.read_bytes() for file in (out, out.with_suffix(".card.png"))])
    assert made[0] == made[1]
    assert check_sft(out) == []
    card = json.loads((root / "json" / "sft.card.json").read_text())
    assert card["steps"][-1] == {"step": FEW_BOXES, "left_out": 1, "remaining": 40}
    assert 4 < card["marks"]["reflective"] < 20


def test_the_command_makes_so_many_rows_reflective_with_sentences_from_a_file(root):
    (root / "rows.json").write_text(json.dumps([raw()] * 30))
    (root / "notice.txt").write_text("Hm, no.\n\nOops.\n")
    out = root / "sft.parquet"
    command = ["vgr158k", "--input", str(root / "rows.json"), "--out", str(out)]
    prepare.main([*command, "--reflective", "9", "--reflection-file", str(root / "notice.txt")])
    texts = [row["messages"][-1]["content"] for row in read_records(out)]
    assert sum("Hm, no." in text or "Oops." in text for text in texts) == 9
    with pytest.raises(SystemExit, match="error: --reflective=many must be a number"):
        prepare.main([*command, "--reflective", "many"])
