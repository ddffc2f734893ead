"""Who gets which samples: disjoint, seeded, stratified, recorded.

Four parts: training (fine-tuning), calibration (scores, compensation, batch norm),
validation (selection) and test (reported, decides nothing). A source's own test part
is the test split; otherwise one is held out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeprune.data.dataset import Dataset, Indices
from edgeprune.errors import DataError
from edgeprune.records import Splits


def split(
    dataset: Dataset,
    *,
    seed: int,
    calibration: int = 1024,
    validation: float | int = 0.15,
    test: float | int = 0.15,
) -> Splits:
    """Divide a dataset into four disjoint parts.

    Every class appears in each part in its own proportion, as near as whole samples allow.

    Args:
        seed: the same seed, labels and sizes give the same parts.
        calibration: at most this many samples, and at most a quarter of what is not test.
        validation: a share (float) of what is not test, or a count (int).
        test: a share (float) of the whole, or a count (int), held out where the source has no test part
            of its own; where it has one, all of that is the test split and this is not used.

    Raises:
        DataError: too few samples for four parts, or sizes that leave nothing to train on.
    """
    size = len(dataset)
    own = dataset.test_indices
    pool = np.arange(size) if own is None else np.setdiff1d(np.arange(size), own)
    order = _stratified(pool, dataset.labels, np.random.default_rng(seed))
    if own is None:
        tests = _count(test, size, "test", dataset.name)
        test_part, order, origin = order[:tests], order[tests:], "held out"
    else:
        test_part, origin = np.sort(own), "the source's own test part"
    validations = _count(validation, len(order), "validation", dataset.name)
    calibrations = min(calibration, len(order) // 4)
    if calibration < 1:
        raise DataError(f"{dataset.name}: {calibration} calibration samples asked for; at least 1 is needed")
    if calibrations < 1 or validations + calibrations >= len(order):
        raise DataError(
            f"{dataset.name}: {size} samples are too few for {len(test_part)} test, {validations} validation,"
            f" {max(calibrations, 1)} calibration and at least 1 training sample",
            tip="give more data, or ask for smaller parts",
        )
    return Splits(
        seed=seed,
        train=np.sort(order[validations + calibrations :]),
        calibration=np.sort(order[validations : validations + calibrations]),
        validation=np.sort(order[:validations]),
        test=np.sort(test_part),
        test_origin=origin,
    )


def _count(value: float | int, of: int, part: str, name: str) -> int:
    if isinstance(value, bool) or value <= 0 or (isinstance(value, float) and value >= 1):
        raise DataError(
            f"{name}: {part} size {value} is not a count or a share",
            tip="give a whole number, or a share between 0 and 1",
        )
    return value if isinstance(value, int) else max(1, round(of * value))


def _stratified(pool: Indices, labels: npt.NDArray[np.int64] | None, rng: np.random.Generator) -> Indices:
    """An order of `pool` any stretch of which holds each class in its proportion.

    Within a class of n samples the i-th in random order gets the key (i + u) / n with one u per class;
    sorting by key spreads every class evenly over the order.
    """
    shuffled = rng.permutation(pool)
    if labels is None:
        return shuffled
    keys = np.empty(len(shuffled))
    own = labels[shuffled]
    for label in np.unique(own):
        at = np.flatnonzero(own == label)
        keys[at] = (np.arange(len(at)) + rng.random()) / len(at)
    return shuffled[np.argsort(keys, kind="stable")]
