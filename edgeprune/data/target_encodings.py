"""Targets as they arrive: arrays, tensors, nested lists, items of a dataset, and named arrays of a file.

A file holds arrays only, never pickled objects; targets of unequal lengths are written flat, with the
place where each sample begins:

    y                                             one array, any shape and type
    y_depth, y_mask                               several targets, by the name of the output
    y_values (total, …), y_offsets (N + 1,)       a sequence per sample: values[offsets[i]:offsets[i + 1]]
    y_boxes (total, 4), y_labels (total,), y_offsets      a mapping per sample: its boxes and their labels
    y_det_boxes, y_det_labels, y_det_offsets      the same under the name `det`, beside other targets

Each may end in `_train`, `_val` or `_test`. Elsewhere: what targets mean (tasks).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data.items import fetch, to_array
from edgeprune.data.targets import Targets
from edgeprune.errors import DataError

OFFSETS = "offsets"


def to_targets(value: Any, name: str) -> Targets:
    """An array where every sample has the same shape, else a list with one entry per sample; a mapping of
    these where a mapping comes.

    Raises:
        DataError: no entry per sample, or an entry that is neither numbers nor text.
    """
    if isinstance(value, Mapping):
        return {str(key): to_targets(part, f"{name}: {key}") for key, part in value.items()}
    if hasattr(value, "detach") or (hasattr(value, "__array__") and np.asarray(value).dtype != object):
        return to_array(value, name)
    if isinstance(value, str | bytes) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        raise DataError(
            f"{name}: cannot take targets from a {type(value).__name__}", tip="give one entry per sample"
        )
    return stack([_entry(value[i], name, i) for i in range(len(value))])


def stack(entries: list[Any]) -> Targets:
    """One array where all entries are arrays of one shape and kind, else the list itself."""
    if not entries:
        return np.zeros(0)
    if all(isinstance(e, np.ndarray) for e in entries):
        kinds = {"text" if e.dtype.kind in "US" else "numbers" for e in entries}
        if len({e.shape for e in entries}) == 1 and len(kinds) == 1:
            return np.stack(entries)
    return entries


def pop_targets(arrays: MutableMapping[str, Any], name: str) -> Targets:
    """Take `y` and everything that begins with `y_` out of one part's arrays; None where there is none.

    Raises:
        DataError: `y` beside `y_…`, or offsets that do not divide their values.
    """
    targets = {key[2:]: arrays.pop(key) for key in [k for k in arrays if k.startswith("y_")]}
    if "y" in arrays:
        array = arrays.pop("y")
        if targets:
            raise DataError(
                f"{name}: holds y and also {', '.join(f'y_{k}' for k in targets)}",
                tip="several targets are named y_NAME, and there is no y then",
            )
        return array
    if not targets:
        return None
    named = sorted(key.removesuffix(f"_{OFFSETS}") for key in targets if key.endswith(f"_{OFFSETS}"))
    sequences: dict[str, Targets] = {}
    for prefix in named:
        offsets = targets.pop(f"{prefix}_{OFFSETS}")
        fields = {k: targets.pop(k) for k in [k for k in targets if k.startswith(f"{prefix}_")]}
        sequences[prefix] = _ragged(
            {k.removeprefix(f"{prefix}_"): v for k, v in fields.items()}, offsets, name
        )
    if OFFSETS in targets:
        offsets = targets.pop(OFFSETS)
        ragged = _ragged(targets, offsets, name)
        if sequences:
            raise DataError(
                f"{name}: holds y_offsets beside {', '.join(f'y_{p}_offsets' for p in named)}",
                tip="name every target: y_NAME_offsets and y_NAME_…",
            )
        return ragged
    return {**targets, **sequences}


def collect_targets(items: Any, name: str) -> Targets:
    """`.targets` where the items give the same, otherwise one pass over the items; None if there are none."""
    listed = getattr(items, "targets", None)
    first = fetch(items, 0, name)
    paired = isinstance(first, tuple | list) and len(first) == 2 and first[1] is not None
    if listed is not None and len(listed) == len(items) and (not paired or _same(listed[0], first[1])):
        return to_targets(listed, name)
    if not paired:
        return None
    return stack([_entry(fetch(items, i, name)[1], name, i) for i in range(len(items))])


def _entry(value: Any, name: str, index: int) -> Any:
    """The target of one sample: an array, or a mapping of arrays."""
    if isinstance(value, Mapping):
        return {str(key): to_array(part, f"{name}: sample {index}: {key}") for key, part in value.items()}
    return to_array(value, f"{name}: the target of sample {index}")


def _same(one: Any, other: Any) -> bool:
    """Whether `.targets` is what the items give. VOC keeps file names there; a transform changes numbers."""
    try:
        return bool(np.array_equal(to_array(one, ""), to_array(other, "")))
    except DataError:
        return False


def _ragged(fields: dict[str, Any], offsets: npt.NDArray[Any], name: str) -> list[Any]:
    """One entry per sample out of flat arrays."""
    where = np.asarray(offsets)
    if where.ndim != 1 or where.dtype.kind not in "iu" or len(where) < 1:
        raise DataError(
            f"{name}: offsets have shape {where.shape} and type {where.dtype};"
            " N + 1 whole numbers are expected"
        )
    where = where.astype(np.int64)
    if not fields:
        raise DataError(f"{name}: offsets without values", tip="save y_values and y_offsets together")
    for key, values in fields.items():
        size = len(values) if np.ndim(values) else 0
        if where[0] != 0 or where[-1] != size or (np.diff(where) < 0).any():
            raise DataError(
                f"{name}: offsets run from {where[0]} to {where[-1]} over {size} {key}",
                tip="offsets begin with 0, never fall and end with the number of values",
            )
    rows = range(len(where) - 1)
    parts = {key: [np.asarray(v)[where[i] : where[i + 1]] for i in rows] for key, v in fields.items()}
    if set(parts) == {"values"}:
        return parts["values"]
    return [{key: part[i] for key, part in parts.items()} for i in rows]
