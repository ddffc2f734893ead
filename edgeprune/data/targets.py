"""Targets of a dataset: whatever a task is trained on, taken by sample index.

    array             one row per sample: class numbers, values, label rows, masks
    list              one entry per sample, of any length: boxes, sequences
    mapping           several of these by name, one per output or as a task asks for them

Guarantee: `take` gives the same form as the whole, in the order of the indices. What targets mean is
the task's business (tasks); here nothing is interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        DataError: parts of a mapping have unequal lengths.
    """
    if not isinstance(targets, Mapping):
        return len(targets)
    sizes = {key: size_of(part, name) for key, part in targets.items()}
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise DataError(f"{name}: targets of unequal lengths ({listed})", tip="give one entry per sample")
    return next(iter(sizes.values()))


def as_class_numbers(targets: Targets) -> npt.NDArray[np.int64] | None:
    """Targets as int64 class numbers, shape (samples,), where they are one integer per sample; else None."""
    if isinstance(targets, np.ndarray) and targets.ndim == 1 and targets.dtype.kind in "iu":
        return targets.astype(np.int64)
    return None
