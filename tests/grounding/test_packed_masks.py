import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.grounding.masks import encode, rle_iou
from vgr_rl.grounding.packed_masks import pack, packed_iou


@st.composite
def pairs_of_stacks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    preds, targets = (random.random((draw(st.integers(0, 4)), *size)) < 0.5 for _ in range(2))
    return preds, targets


@given(pairs_of_stacks())
def test_bits_and_run_lengths_agree(stacks: tuple[np.ndarray, np.ndarray]) -> None:
    preds, targets = stacks
    expected = rle_iou(encode(preds), encode(targets))
    assert packed_iou(pack(preds), pack(targets)) == expected


def test_masks_of_different_sizes_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 and 4 words"):
        packed_iou(pack(np.ones((1, 8, 8), dtype=bool)), pack(np.ones((1, 16, 16), dtype=bool)))
