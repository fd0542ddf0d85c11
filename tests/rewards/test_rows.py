import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import TREEVGR
from rewards.rows import read_row, scored_row
from tests.rewards.examples import ROW
from vgr_rl.grounding import ImageGeometry, Size, Target


def test_a_small_row_is_read_with_its_defaults() -> None:
    row = read_row(ROW)
    assert (row.sample.id, row.sample.data_source, row.sample.question, row.sample.options) == ("7", "", "", ())
    assert row.sample.targets == (Target((10.0, 20.0, 30.0, 40.0), "", "evidence", None),)
    assert row.geometry == ImageGeometry(Size(100, 80), Size(100, 80))
    assert (row.frame, row.prefilled, row.masks) == ("orig_px", "", None)
    assert row.trace().text == ROW["response"]


def test_every_field_arrives() -> None:
    rle = {"size": [80, 100], "counts": [8000]}
    small = {"size": [2, 3], "counts": [2, 3, 1]}
    row = read_row(
        ROW
        | {
            "id": 8,
            "question": "Where?",
            "options": ["x", "y"],
            "model_size": [200, 160],
            "frame": "model_px",
            "prefilled": "<think>",
            "data_source": "vstar",
            "targets": [{"box": [1, 2, 3.5, 4], "mask": rle, "name": "cup", "role": "answer"}, {}],
            "pred_masks": [small, None],
        }
    )
    assert (row.sample.id, row.sample.question, row.sample.options) == ("8", "Where?", ("x", "y"))
    assert row.sample.data_source == "vstar"
    first, second = row.sample.targets
    assert (first.box_orig_px, first.name, first.role) == ((1.0, 2.0, 3.5, 4.0), "cup", "answer")
    assert first.mask_rle is not None and first.mask_rle["size"] == [80, 100]
    assert second == Target(None)
    trace = row.trace()
    assert trace.text.startswith("<think>a cup")
    assert trace.boxes[0].box_orig_px == (5.0, 10.0, 15.0, 20.0)
    assert trace.masks is not None and trace.masks[0] == {"size": [2, 3], "counts": "231"} and trace.masks[1] is None


def test_norm1000_needs_no_model_size() -> None:
    row = read_row(ROW | {"frame": "norm1000", "response": "<box>[0,0,500,1000]</box>"})
    assert row.trace().boxes[0].box_orig_px == (0.0, 0.0, 50.0, 80.0)


def test_null_is_a_missing_field_as_in_tables_with_a_fixed_schema() -> None:
    nothing = dict.fromkeys(("question", "options", "model_size", "frame", "prefilled", "pred_masks", "data_source"))
    target = {"box": [10, 20, 30, 40], "mask": None, "name": None, "role": None}
    assert read_row(ROW | nothing | {"targets": [target]}) == read_row(ROW)
    assert read_row(ROW | {"answer": None, "answer_kind": "none"}).sample.answer == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "id=None but expected a text or an integer"),
        ({"id": True}, "id=True but"),
        ({"response": 3}, "response=3 but expected a text"),
        ({"answer": None}, "answer=None but expected a text"),
        ({"answer_kind": "mcq"}, "answer_kind='mcq' but expected one of choice, open, none"),
        ({"answer_kind": ["open"]}, "answer_kind=.*but expected one of"),
        ({"options": "AB"}, "options='AB' but expected a list"),
        ({"options": ["x", 2]}, r"options\[1\]=2 but expected a text"),
        ({"image_size": [0, 9]}, r"image_size=\[0, 9\] but expected \[width, height\]"),
        ({"image_size": [9.5, 9]}, "two positive whole numbers"),
        ({"image_size": [9, 9, 3]}, "two positive whole numbers"),
        ({"image_size": [True, True]}, "two positive whole numbers"),
        ({"frame": "pixels"}, "frame='pixels' but expected one of orig_px, model_px, norm1000"),
        ({"frame": "model_px"}, "model_size is missing but frame=model_px needs it"),
        ({"frame": "model_px", "model_size": "big"}, "model_size='big' but"),
        ({"prefilled": True}, "prefilled=True but expected a text"),
        ({"targets": None}, "targets=None but expected a list"),
        ({"targets": [[1, 2, 3, 4]]}, r"targets\[0\]=\[1, 2, 3, 4\] but expected an object"),
        ({"targets": [{}, {"bbox": [1, 2, 3, 4]}]}, r"targets\[1\] has the field 'bbox' but expected box, mask"),
        ({"targets": [{"box": [1, 2, 3]}]}, r"targets\[0\]\.box=\[1, 2, 3\] but expected \[x1, y1, x2, y2\]"),
        ({"targets": [{"box": [3, 2, 1, 4]}]}, r"targets\[0\]\.box=.*x1 < x2 and y1 < y2"),
        ({"targets": [{"box": [1, 2, float("nan"), 4]}]}, r"targets\[0\]\.box=.*four numbers"),
        ({"targets": [{"box": [1, 2, 10**400, 4]}]}, r"targets\[0\]\.box=.*four numbers"),
        (
            {"targets": [{"box": [500, 500, 900, 900]}]},
            r"targets\[0\]\.box=.*outside the image of 100x80.*stored image",
        ),
        ({"targets": [{"role": "clue"}]}, r"targets\[0\]\.role='clue' but expected one of evidence, answer"),
        ({"targets": [{"name": 3}]}, r"targets\[0\]\.name=3 but"),
        ({"targets": [{"mask": {"size": [8, 8], "counts": [64]}}]}, r"targets\[0\]\.mask"),
        ({"pred_masks": {"size": [8, 8]}}, "pred_masks=.*but expected a list"),
        ({"pred_masks": [None, {"size": [8, 8], "counts": [63]}]}, r"pred_masks\[1\]"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_row(ROW | change)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="…") as caught:
        read_row(ROW | {"answer_kind": "x" * 10_000})
    assert len(str(caught.value)) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["box", "mask", "size"]), inner),
    max_leaves=6,
)


@given(st.sampled_from([*ROW, "frame", "options", "pred_masks", "model_size", "prefilled"]), json_values)
def test_any_json_is_read_or_refused_with_a_message(field: str, value: Any) -> None:
    try:
        row = read_row(ROW | {field: value})
    except ValueError as error:
        assert str(error)
    else:
        composed = TREEVGR.score(row.trace(), row.sample)
        json.dumps(scored_row(row.sample, row.trace(), composed), allow_nan=False)


def test_a_graded_row_goes_out() -> None:
    row = read_row(ROW | {"prefilled": "<think>"})
    trace = row.trace()
    assert scored_row(row.sample, trace, TREEVGR.score(trace, row.sample)) == {
        "id": "7",
        "score": 3.0,
        "parts": {
            "accuracy": 1.0,
            "format": 1.0,
            "recall_iou": 1.0,
            "precision_iou": 1.0,
            "dual_iou": 1.0,
            "boxes": 1.0,
        },
        "status": {"accuracy": "ok", "format": "ok", "dual_iou": "ok"},
        "trace": {
            "think": "a cup <box>[10,20,30,40]</box>",
            "answer": "B",
            "boxes": [[10.0, 20.0, 30.0, 40.0]],
            "malformed": 0,
        },
    }


def test_no_score_is_null_and_not_0() -> None:
    row = read_row(ROW | {"answer": "Z", "options": ["x", "y"]})
    out = scored_row(row.sample, row.trace(), TREEVGR.score(row.trace(), row.sample))
    assert out["score"] is None and out["status"]["accuracy"] == "failed" and "accuracy" not in out["parts"]
