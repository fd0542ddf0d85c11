import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.grounding import Size, box_rle, iou
from vgr_rl.grounding.masks import decode
from vgr_rl.tiny.world import generate
from vgr_rl.viewer.pictures import Album
from vgr_rl.viewer.traces import pieces, reward_weights, trace_group

_SIZE = Size(64, 64)


@pytest.fixture
def row(runs: ModuleType) -> dict[str, Any]:
    scene = next(iter(generate("heldout", 1, 0)))
    text = "First <box>[1,2,20,30]</box>, no box <box>[9,9,9]</box>. Then <box>[4,4,40,50]</box>!\nDone."
    response = f"{text}</think><answer>A</answer>"
    return {
        **runs.row_of(scene, random.Random(0), 0, 1.0, response),
        "targets_orig_px": [[0, 0, 20, 30], [40, 40, 60, 60]],
    }


def described(row: dict[str, Any], **weights: float) -> dict[str, Any]:
    return trace_group("key", [row], Album(), [weights])


@given(
    st.lists(
        st.sampled_from(
            ["A cat. ", "so", "\n\n", "<think>", "</answer>", "好。 ", "[SEG]", "\U0001f600", "\u2028", "? "]
        )
    )
)
def test_the_pieces_are_the_text_and_sentences_do_not_go_backwards(words: list[str]) -> None:
    text = "".join(words)
    spans = [
        ((at, at + 5), number) for number, at in enumerate(i for i in range(len(text)) if text.startswith("[SEG]", i))
    ]
    cut = pieces(text, spans)
    assert "".join(piece[0] for piece in cut) == text and all(piece[0] for piece in cut)
    assert [piece[2] for piece in cut if len(piece) == 3] == [number for _, number in spans]
    numbers = [piece[1] for piece in cut if piece[1] >= 0]
    assert numbers == sorted(numbers)
    assert {piece[0] for piece in cut if piece[1] == -1} <= {"<think>", "</answer>"}


def test_a_sentence_has_the_boxes_that_it_writes(row: dict[str, Any]) -> None:
    (rollout,) = described(row)["rollouts"]
    sentences: dict[int, list[Any]] = {}
    for piece in rollout["pieces"]:
        sentences.setdefault(piece[1], []).append(piece)
    texts = {number: "".join(piece[0] for piece in found) for number, found in sentences.items() if number >= 0}
    boxes = {
        texts[number]: [piece[2] for piece in found if len(piece) == 3]
        for number, found in sentences.items()
        if number >= 0
    }
    assert boxes == {
        "First <box>[1,2,20,30]</box>, no box <box>[9,9,9]</box>. ": [0],
        "Then <box>[4,4,40,50]</box>!\n": [1],
        "Done.": [],
        "A": [],
    }
    assert [found["box"] for found in rollout["evidence"]] == [[1, 2, 20, 30], [4, 4, 40, 50]]
    assert rollout["malformed"] == 1


def test_every_pair_has_its_iou(row: dict[str, Any]) -> None:
    group = described(row)
    expected = [[iou(tuple(box), tuple(true)) for true in row["targets_orig_px"]] for box in row["boxes_orig_px"]]
    assert np.allclose(group["rollouts"][0]["iou"], expected, atol=5e-4) and expected[0][0] > 0.8
    assert [target["box"] for target in group["truth"]] == row["targets_orig_px"]


def test_masks_of_a_row_are_compared_at_their_size_and_shown_at_the_pictures(row: dict[str, Any]) -> None:
    size = Size(1280, 960)
    left, all_of_it = box_rle((0, 0, 640, 960), size), box_rle((0, 0, 1280, 960), size)
    row |= {
        "image_size": list(size),
        "boxes_orig_px": [],
        "response": "The [SEG] and [SEG]. And [SEG].",
        "pred_masks": [left, None, all_of_it],
    }
    row["targets"] = [{"mask": left, "name": "cup", "role": "answer"}, {"box": [0, 0, 1280, 960]}]
    group = described(row)
    (rollout,) = group["rollouts"]
    assert rollout["iou"] == [[1.0, 0.5], [0.0, 0.0], [0.5, 1.0]]
    assert [piece for piece in rollout["pieces"] if len(piece) == 3] == [
        ["[SEG]", 0, 0],
        ["[SEG]", 0, 1],
        ["[SEG]", 1, 2],
    ]
    assert group["truth"][0]["name"] == "cup" and group["truth"][0]["box"] == [0, 0, 640, 960]
    assert decode([rollout["evidence"][0]["mask"]])[0].shape == (480, 640)
    assert rollout["evidence"][1] == {"box": None}
    with pytest.raises(ValueError, match=f"row {row['id']}: mask.size"):
        described({**row, "image_size": [64, 64]})


def test_a_term_shows_its_weight_where_the_weights_lead_to_the_score(row: dict[str, Any]) -> None:
    row |= {
        "terms": {"accuracy": 1.0, "dual_iou": 0.4},
        "status": {"accuracy": "ok", "dual_iou": "ok", "judge": "failed"},
    }
    row |= {"reasons": {"judge": "time-out"}, "score": 1.8}
    terms = described(row, accuracy=1.0, dual_iou=2.0)["rollouts"][0]["terms"]
    assert terms == [
        ["accuracy", 1.0, 1.0, "ok", ""],
        ["dual_iou", 0.4, 2.0, "ok", ""],
        ["judge", None, None, "failed", "time-out"],
    ]
    assert [term[2] for term in described(row)["rollouts"][0]["terms"]] == [None, None, None]


def test_weights_are_those_of_the_data_source() -> None:
    reward = {
        "terms": {"accuracy": {}, "dual_iou": {"weight": 2}},
        "by_source": {"text": {"dual_iou": None, "brevity": {"weight": 0.5}}},
    }
    assert reward_weights({"reward": reward}, "pictures") == {"accuracy": 1.0, "dual_iou": 2.0}
    assert reward_weights({"reward": reward}, "text") == {"accuracy": 1.0, "brevity": 0.5}
    assert reward_weights({}, "text") == {}


def test_thousands_of_boxes_are_cut_and_said_to_be(row: dict[str, Any], runs: ModuleType) -> None:
    scene = next(iter(generate("heldout", 1, 0)))
    row = runs.row_of(scene, random.Random(0), 0, 1.0, "<box>[1,2,20,30]</box>" * 2000)
    (rollout,) = described(row)["rollouts"]
    assert len(rollout["evidence"]) == len(rollout["iou"]) == 48
    assert "1952 more boxes" in rollout["omitted"] and "more characters" in rollout["omitted"]
    assert max(piece[2] for piece in rollout["pieces"] if len(piece) == 3) == 47
