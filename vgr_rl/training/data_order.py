"""Which samples a training step sees, as a function of the seed and the step alone.

Nothing has to be saved or restored: an interrupted run sees the same batches, in order, as one that was not.
"""

import numpy as np


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Return how many whole batches an epoch has; the remainder of each epoch's permutation is left out.

    Raises:
        ValueError: fewer samples than one batch takes.
    """
    if samples < batch_size:
        raise ValueError(f"data.train_batch_size={batch_size} but data.train_files hold only {samples} samples")
    return samples // batch_size


def batch_indices(seed: int, step: int, samples: int, batch_size: int, shuffle: bool = True) -> list[int]:
    """Return the row numbers of training step `step`, counted from 1.

    Each epoch has its own permutation, drawn from (seed, epoch).

    Example:
        >>> batch_indices(seed=0, step=3, samples=4, batch_size=2, shuffle=False)
        [0, 1]
    """
    per_epoch = steps_per_epoch(samples, batch_size)
    epoch, position = divmod(step - 1, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(samples) if shuffle else np.arange(samples)
    return order[position * batch_size : (position + 1) * batch_size].tolist()
