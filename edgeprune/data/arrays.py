"""Sources that are arrays in memory: npz files, idx folders, arrays and tensors.

Each reader returns `Parts`: the inputs and labels of a training part and, where the
source has them, of its own validation and test parts.
Elsewhere: how arrays are stored in files (stored).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data.dataset import Indices, Inputs
from edgeprune.data.stored import read_idx_array, read_npz_arrays
from edgeprune.data.target_encodings import pop_targets
from edgeprune.data.targets import Targets, update_digest
from edgeprune.errors import DataError
from edgeprune.paths import open_file, printable

Array = npt.NDArray[Any]
IDX_PARTS = ("train", "t10k")
OWN = {"validation": "val", "test": "test"}  # the parts a source may keep apart, and their ending
ENDINGS = {"train": "", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class ArrayPart:
    """Raw arrays of one part, its targets if it has any, and what each sample belongs to if that is said."""

    inputs: dict[str, Array]
    targets: Targets
    groups: Array | None = None


@dataclass(frozen=True)
class Parts:
    """Raw arrays of a source.

    `held_out` holds the parts that the source keeps apart from what may be trained on, "validation" before
    "test".
    """

    train: ArrayPart
    held_out: dict[str, ArrayPart]
    sha256: str


class ArraySource:
    """Arrays in memory, one per model input."""

    def __init__(self, arrays: Inputs) -> None:
        self._arrays = arrays

    def read(self, indices: Indices) -> Inputs:
        return tuple(array[indices] for array in self._arrays)


def read_npz(path: Path) -> Parts:
    """Read `x` (or `x_0`, `x_1`, … or any other names), `y` or `y_…` (see target_encodings), `group`,
    and `x_val`, `x_test`, … beside them.

    `x_train`, `y_train`, `group_train` count as `x`, `y`, `group`; `x_valid` and `x_validation` as `x_val`.

    Raises:
        DataError: not an npz file, damaged, empty, or holding pickled objects, which are never loaded.
    """
    arrays = read_npz_arrays(path)
    return from_mapping(arrays, printable(path), sha256=hash_files([path]))


def from_mapping(arrays: Mapping[str, Any], name: str, *, sha256: str | None = None) -> Parts:
    """Sort named arrays into inputs, labels and groups of the training part and of the parts kept apart.

    Raises:
        DataError: no input array, a part that lacks what the training part has, or one that shares a
            group with another.
    """
    sides: dict[str, dict[str, Any]] = {"": {}, **{end: {} for end in OWN.values()}}
    for key, array in arrays.items():
        plain, end = _plain(key)
        sides[end][plain] = array
    groups = {end: side.pop("group") for end, side in sides.items() if "group" in side}
    labels = {end: pop_targets(side, name) for end, side in sides.items()}
    inputs = sides[""]
    if not inputs:
        raise DataError(
            f"{name}: no input array; it holds {', '.join(sorted(arrays)) or 'nothing'}",
            tip="save the samples as x and the labels as y",
        )
    if "x" in inputs and len(inputs) > 1:
        raise DataError(
            f"{name}: holds x and also {', '.join(sorted(set(inputs) - {'x'}))}",
            tip="a model with several inputs takes x_0, x_1, … and no x; labels are named y",
        )
    if all(key.startswith("x_") and key[2:].isdigit() for key in inputs):
        inputs = dict(sorted(inputs.items(), key=lambda item: int(item[0][2:])))
    parts = {}
    for part, end in OWN.items():
        side = sides[end]
        if side and set(side) != set(inputs):
            raise DataError(
                f"{name}: {part} arrays {', '.join(sorted(side))} do not match the inputs {', '.join(inputs)}"
            )
        if side and (labels[""] is None) != (labels[end] is None):
            raise DataError(
                f"{name}: only one of y and y_{end} is there", tip="give labels for both or neither"
            )
        if labels[end] is not None and not side:
            raise DataError(f"{name}: y_{end} is there, but no x_{end}")
        if end in groups and not side:
            raise DataError(f"{name}: group_{end} is there, but no x_{end}")
        if side:
            parts[part] = ArrayPart({key: side[key] for key in inputs}, labels[end], groups.get(end))
    for one, other in combinations(groups, 2):
        shared = np.intersect1d(groups[one], groups[other])
        if shared.size:
            first, second = (f"group_{end}" if end else "group" for end in (one, other))
            raise DataError(
                f"{name}: group {shared[0]} is in {first} and in {second} ({shared.size} are in both)",
                tip=f"move whole groups to one side, or leave x_{other}, y_{other} and {second} out",
            )
    return Parts(ArrayPart(inputs, labels[""], groups.get("")), parts, sha256 or _hash_arrays(arrays))


def read_idx(folder: Path) -> Parts:
    """Read an idx folder: `train-images-idx3-ubyte[.gz]`, `train-labels-…`, and `t10k-…` if there.

    Raises:
        DataError: no training images, or a file that is damaged.
    """
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        for part in IDX_PARTS:
            for kind in ("images", "labels"):
                if path.name.startswith((f"{part}-{kind}-idx", f"{part}-{kind}.idx")):
                    files.setdefault((part, kind), path)
    if ("train", "images") not in files:
        raise DataError(
            f"{folder}: no train-images-idx3-ubyte[.gz]",
            tip="an idx folder holds train-images-…, train-labels-… and, if there is one, the t10k pair",
        )
    arrays = {key: read_idx_array(path) for key, path in files.items()}
    train, test = (
        ArrayPart({"x": arrays[part, "images"]}, arrays.get((part, "labels")))
        if (part, "images") in arrays
        else None
        for part in IDX_PARTS
    )
    assert train is not None
    return Parts(train, {} if test is None else {"test": test}, hash_files(sorted(files.values())))


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds at least one file named as idx files are."""
    return any(p.name.startswith(IDX_PARTS) and "idx" in p.name for p in folder.iterdir() if p.is_file())


def hash_files(paths: list[Path]) -> str:
    """sha256 over the contents of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open_file(path, DataError) as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _hash_arrays(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        if not isinstance(arrays[key], np.ndarray):  # ragged targets
            digest.update(f"{key} ".encode())
            update_digest(digest, arrays[key])
            continue
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes() if array.dtype.hasobject is False else repr(array.tolist()).encode())
    return digest.hexdigest()


def _plain(key: str) -> tuple[str, str]:
    """Name and part: `x_train` → x of the training part (""), `x_0_val` and `x_valid_0` → x_0 of "val"."""
    for pattern, name in ((r"x_([a-z]+)_(\d+)", r"x_\2"), (r".+_([a-z]+)", "")):
        match = re.fullmatch(pattern, key)
        if match and match[1] in ENDINGS:
            return match.expand(name) or key.removesuffix(f"_{match[1]}"), ENDINGS[match[1]]
    return key, ""
