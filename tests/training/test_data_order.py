import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.training.data_order import batch_indices, steps_per_epoch


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 8))
def test_each_epoch_shows_every_sample_of_its_whole_batches_once(seed: int, samples: int, batch: int) -> None:
    if samples < batch:
        with pytest.raises(ValueError, match="train_batch_size"):
            batch_indices(seed, 1, samples, batch)
        return
    steps = steps_per_epoch(samples, batch)
    for first in (1, 1 + steps):
        seen = [index for step in range(first, first + steps) for index in batch_indices(seed, step, samples, batch)]
        assert len(seen) == len(set(seen)) == steps * batch
        assert set(seen) <= set(range(samples))


def test_epochs_and_seeds_differ_and_repeat_exactly() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        return [index for step in range(8) for index in batch_indices(seed, number * 8 + step + 1, 64, 8)]

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)


def test_without_shuffling_the_file_order_is_kept() -> None:
    assert [batch_indices(0, step, 5, 2, shuffle=False) for step in (1, 2, 3)] == [[0, 1], [2, 3], [0, 1]]
