"""Arrays out of tensors, and map-style datasets read item by item.

torch is never imported: a tensor is recognised by its methods, so a dataset that
needs torch has already imported it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data.dataset import Indices, Inputs
from edgeprune.data.targets import Targets, update_digest
from edgeprune.errors import DataError


def to_array(value: Any, name: str) -> npt.NDArray[Any]:
    """A NumPy view or copy of an array, a tensor (any device) or nested lists of numbers."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":
                value = value.float()
            value = value.numpy()
        array = np.asarray(value)
    except Exception as exc:
        raise DataError(f"{name}: cannot read a {type(value).__name__} as an array: {exc}") from exc
    if array.dtype.hasobject:
        raise DataError(f"{name}: a {type(value).__name__} of mixed or ragged values is not an array")
    return array


def is_item_dataset(value: Any) -> bool:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


class ItemSource:
    """Samples of a map-style dataset: an item is `(x, y)`, `((x_0, x_1, …), y)` or `x`."""

    def __init__(self, items: Any, name: str) -> None:
        self._items = items
        self._name = name

    def read(self, indices: Indices) -> Inputs:
        rows = [self._inputs(int(i)) for i in indices]
        if not rows:
            return tuple(part[:0] for part in self.read(np.zeros(1, dtype=np.int64)))
        columns = []
        for part in zip(*rows, strict=True):
            odd = [i for i, row in enumerate(part) if row.shape != part[0].shape]
            if odd:
                raise DataError(
                    f"{self._name}: sample {indices[odd[0]]} has shape {part[odd[0]].shape},"
                    f" sample {indices[0]} has {part[0].shape}",
                    tip="resize or pad them to one shape",
                )
            columns.append(np.stack(part))
        return tuple(columns)

    def _inputs(self, index: int) -> Inputs:
        item = fetch(self._items, index, self._name)
        x = item[0] if isinstance(item, tuple | list) and len(item) == 2 else item
        parts = x if isinstance(x, tuple | list) else (x,)
        return tuple(to_array(part, self._name) for part in parts)


def fetch(items: Any, index: int, name: str) -> Any:
    """One item; whatever the user's `__getitem__` raises becomes a DataError with the index."""
    try:
        return items[index]
    except Exception as exc:
        raise DataError(f"{name}: reading sample {index} raised {type(exc).__name__}: {exc}") from exc


def hash_items(source: ItemSource, size: int, targets: Targets) -> str:
    """sha256 over the length, the targets and sixteen samples spread over the dataset."""
    digest = hashlib.sha256(str(size).encode())
    if isinstance(targets, np.ndarray):
        digest.update(targets.tobytes())
    elif targets is not None:
        update_digest(digest, targets)
    for part in source.read(np.unique(np.linspace(0, size - 1, 16).astype(np.int64))):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
