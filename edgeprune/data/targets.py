"""Targets of a dataset: whatever a task is trained on, taken by sample index.

    array             one row per sample: class numbers, values, label rows, masks
    list              one entry per sample, of any length: boxes, sequences
    mapping           several of these by name, one per output or as a task asks for them

Guarantee: `take` gives the same form as the whole, in the order of the indices. What targets mean is
the task's business (tasks); here nothing is interpreted, except that one whole number or one name per
sample counts as its class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError

Targets: TypeAlias = Any


def take(targets: Targets, indices: npt.NDArray[np.int64]) -> Targets:
    """The targets of some samples, in this order; None where there are none."""
    if targets is None:
        return None
    if isinstance(targets, Mapping):
        return {name: take(part, indices) for name, part in targets.items()}
    if isinstance(targets, np.ndarray):
        return targets[indices]
    return [targets[int(i)] for i in indices]


def size_of(targets: Targets, name: str) -> int:
    """How many samples there are targets for.

    Raises:
        DataError: parts of a mapping have unequal lengths, or there is no entry per sample.
    """
    if not isinstance(targets, Mapping):
        if isinstance(targets, np.ndarray) and targets.ndim == 0:
            raise DataError(f"{name}: targets are a single number, not one entry per sample")
        return len(targets)
    if not targets:
        raise DataError(f"{name}: the mapping of targets is empty", tip="leave y out where there are none")
    sizes = {key: size_of(part, name) for key, part in targets.items()}
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise DataError(f"{name}: targets of unequal lengths ({listed})", tip="give one entry per sample")
    return next(iter(sizes.values()))


def as_class_numbers(targets: Targets) -> npt.NDArray[np.int64] | None:
    """Targets as int64 class numbers, shape (samples,), where they are one whole number ≥ 0 of an integer
    type per sample; else None.
    """
    if not isinstance(targets, np.ndarray) or targets.dtype.kind not in "biu":
        return None
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1 or (len(targets) and targets.min() < 0):
        return None
    return np.asarray(targets, dtype=np.int64)


def number_classes(targets: Targets) -> tuple[Targets, npt.NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Targets with names turned into numbers, the class of each sample, and the names of classes.

    One name per sample is numbered in sorted order. Class numbers come back as int64, shape (samples,).
    Targets that are not classes come back as they are, with None and None.
    """
    if isinstance(targets, np.ndarray) and targets.dtype.kind in "US" and targets.size == len(targets):
        names, numbers = np.unique(targets.reshape(-1), return_inverse=True)
        labels = numbers.astype(np.int64)
        return labels, labels, tuple(str(n) for n in names)
    classes = as_class_numbers(targets)
    return (targets if classes is None else classes), classes, None


def join_targets(parts: Sequence[Targets], name: str) -> Targets:
    """The targets of several parts of a source, one after another.

    Raises:
        DataError: the parts are not of one form, shape or kind.
    """
    first = parts[0]
    if isinstance(first, Mapping):
        if any(not isinstance(p, Mapping) or set(p) != set(first) for p in parts):
            raise DataError(f"{name}: its parts do not have the same targets ({', '.join(first)})")
        return {key: join_targets([p[key] for p in parts], f"{name}: {key}") for key in first}
    if any(isinstance(p, Mapping) for p in parts):
        raise DataError(f"{name}: its parts do not have the same targets")
    if all(isinstance(p, np.ndarray) for p in parts):
        classes = [as_class_numbers(p) for p in parts]
        if all(c is not None for c in classes):
            return np.concatenate([c for c in classes if c is not None])
        kinds = {"text" if p.dtype.kind in "US" else "numbers" for p in parts}
        if len({p.shape[1:] for p in parts}) == 1 and len(kinds) == 1:
            return np.concatenate(list(parts))
        if len(kinds) > 1 or len({p.ndim for p in parts}) > 1:
            shapes = " and ".join(f"{p.dtype} {p.shape}" for p in parts)
            raise DataError(f"{name}: the targets of its parts do not go together: {shapes}")
    return [entry for p in parts for entry in p]


def require_known(targets: Targets, name: str) -> None:
    """Refuse NaN and types that are no targets.

    Raises:
        DataError: the first sample whose target holds NaN is named; complex numbers and objects.
    """
    if isinstance(targets, Mapping):
        for key, part in targets.items():
            require_known(part, f"{name}: {key}")
        return
    if isinstance(targets, np.ndarray):
        if targets.dtype.kind not in "biufUS":
            raise DataError(f"{name}: targets are {targets.dtype}, not numbers or names")
        if targets.dtype.kind == "f" and np.isnan(targets).any():
            bad = np.flatnonzero(np.isnan(targets).reshape(len(targets), -1).any(axis=1))
            _refuse_nan(name, int(bad[0]), len(bad), len(targets))
        return
    bad = np.array([i for i, entry in enumerate(targets) if _holds_nan(entry, name, i)], dtype=np.int64)
    if len(bad):
        _refuse_nan(name, int(bad[0]), len(bad), len(targets))


def update_digest(digest: hashlib._Hash, value: Targets) -> None:
    """Add targets of any form to a running sha256."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key} ".encode())
            update_digest(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)} ".encode())
        for entry in value:
            update_digest(digest, entry)
    else:
        array = np.ascontiguousarray(value)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())


def _holds_nan(entry: Any, name: str, index: int) -> bool:
    if isinstance(entry, Mapping):
        return any(_holds_nan(part, name, index) for part in entry.values())
    array = np.asarray(entry)
    if array.dtype.kind not in "biufUS":
        raise DataError(f"{name}: the target of sample {index} is {array.dtype}, not numbers or names")
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def _refuse_nan(name: str, first: int, count: int, size: int) -> None:
    raise DataError(
        f"{name}: the target of sample {first} holds NaN ({count} of {size} do)",
        tip="remove or repair such samples",
    )
