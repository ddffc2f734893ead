"""Who gets which samples: disjoint, seeded, stratified, recorded.

Four parts: training (fine-tuning), calibration (scores, compensation, batch norm),
validation (selection) and test (reported, decides nothing). A source's own validation and
test parts are those splits; otherwise they are held out. Where the source says which samples belong
together (windows of one recording, pictures of one person), no group is on both sides of
a cut: validation and test hold whole groups that neither training nor calibration sees.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeprune.data.dataset import Dataset, Indices
from edgeprune.errors import DataError
from edgeprune.records import Splits

DRAWS, NEAR = 64, 0.25  # random choices of whole groups, and how far off one may be to be taken at once


def split(
    dataset: Dataset,
    *,
    seed: int,
    calibration: int = 1024,
    validation: float | int = 0.15,
    test: float | int = 0.15,
) -> Splits:
    """Divide a dataset into four disjoint parts.

    Every class appears in each part in its own proportion, as near as whole samples allow; with
    groups, sizes and proportions are as near as whole groups allow, calibration apart.

    Args:
        seed: the same seed, labels, groups and sizes give the same parts.
        calibration: at most this many samples, and at most a quarter of what is not test.
        validation: a share (float) of what is not test, or a count (int).
        test: a share (float) of the whole, or a count (int). Where the source has a validation or test
            part of its own, all of that is the split, and the size given here is not used.

    Raises:
        DataError: too few samples or groups for the parts, or sizes that leave nothing to train on.
    """
    size = len(dataset)
    source_test, validated = dataset.test_indices, dataset.validation_indices
    apart = [indices for indices in (source_test, validated) if indices is not None]
    pool = np.setdiff1d(np.arange(size), np.concatenate(apart)) if apart else np.arange(size)
    rng = np.random.default_rng(seed)
    groups = None if dataset.groups_of(pool) is None else dataset.groups
    if groups is not None:
        _require_groups(dataset, groups[pool])
    order = _stratified(pool, dataset.labels, rng)
    if source_test is None:
        tests = _count(test, size - len(validated if validated is not None else ()), "test", dataset.name)
        test_part, order = _cut(dataset, order, tests, int(validated is None), rng)
        origin = "held out" if groups is None else "held out, whole groups"
    else:
        test_part, origin = np.sort(source_test), "the source's own test part"
    validations = 0 if validated is not None else _count(validation, len(order), "validation", dataset.name)
    calibrations = min(calibration, len(order) // 4)
    if calibration < 1:
        raise DataError(f"{dataset.name}: {calibration} calibration samples asked for; at least 1 is needed")
    if validated is None:
        validation_part, fitted = _cut(dataset, order, validations, 0, rng)
    else:
        validation_part, fitted = validated, order
    calibrations = calibrations if groups is None else min(calibrations, len(fitted) // 2)
    if calibrations < 1 or validations + calibrations >= len(order) or calibrations >= len(fitted):
        raise DataError(
            f"{dataset.name}: {size} samples are too few for {len(test_part)} test,"
            f" {validations or len(validation_part)} validation,"
            f" {max(calibrations, 1)} calibration and at least 1 training sample",
            tip="give more data, or ask for smaller parts",
        )
    return Splits(
        seed=seed,
        train=np.sort(fitted[calibrations:]),
        calibration=np.sort(fitted[:calibrations]),
        validation=np.sort(validation_part),
        test=np.sort(test_part),
        test_origin=origin,
        validation_origin="held out" if validated is None else "the source's own validation part",
        groups=None if groups is None else _group_counts(groups, fitted, validation_part, test_part),
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
    shuffled_labels = labels[shuffled]
    for label in np.unique(shuffled_labels):
        at = np.flatnonzero(shuffled_labels == label)
        keys[at] = (np.arange(len(at)) + rng.random()) / len(at)
    return shuffled[np.argsort(keys, kind="stable")]


def _require_groups(dataset: Dataset, groups: Indices) -> None:
    group_count = len(np.unique(groups))
    held = {"test": dataset.test_indices, "validation": dataset.validation_indices}
    parts = [name for name, indices in held.items() if indices is None]
    needed = len(parts) + 1
    if parts and group_count < needed:
        raise DataError(
            f"{dataset.name}: {group_count} group{'s' * (group_count != 1)} cannot be kept whole in"
            f" {', '.join(parts)} and training;"
            f" at least {needed} are needed",
            tip="give more groups, or leave group out where samples do not belong together",
        )


def _cut(
    dataset: Dataset, order: Indices, count: int, spare: int, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """The part of about `count` samples, and the rest, each in the given order.

    With groups the part is whole groups, one at least; one group and `spare` more stay in the rest.
    It is the first of some random draws whose size and shares of the classes are near enough to those
    asked for, or else the nearest: with few groups the seed still decides which.
    """
    groups = dataset.groups_of(order)
    if groups is None or count >= len(order):
        return order[:count], order[count:]
    names, sizes = np.unique(groups, return_counts=True)
    labels = None if dataset.labels is None else np.unique(dataset.labels[order], return_inverse=True)[1]
    wanted = np.ones(1) if labels is None else _shares(labels, labels.max() + 1)
    best: tuple[float, npt.NDArray[np.bool_]] | None = None
    for _ in range(DRAWS):
        drawn = rng.permutation(len(names))
        filled = np.cumsum(sizes[drawn])[: len(names) - 1 - spare]
        chosen = names[drawn[: int(np.argmin(np.abs(filled - count))) + 1]]
        inside = np.isin(groups, chosen)
        off = abs(int(inside.sum()) - count) / count
        if labels is not None:
            off += float(np.abs(_shares(labels[inside], len(wanted)) - wanted).sum())
        if best is None or off < best[0]:
            best = (off, inside)
        if off <= NEAR:
            break
    assert best is not None
    return order[best[1]], order[~best[1]]


def _shares(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float64]:
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    counts /= counts.sum()
    return counts


def _group_counts(groups: Indices, fitted: Indices, validation: Indices, test: Indices) -> dict[str, int]:
    """How many groups each side holds, as far as the source says."""
    sides = {"train and calibration": fitted, "validation": validation, "test": test}
    counts = {side: len(np.unique(groups[at][groups[at] >= 0])) for side, at in sides.items()}
    return {side: count for side, count in counts.items() if count}
