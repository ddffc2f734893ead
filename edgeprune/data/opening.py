"""Open data by name: decide what it is, check it, fit it to the model.

The order of checks is the order in which a person would find the trouble: is it
there, can it be read, do lengths agree, are the numbers finite, does one sample have
the model's shape, are the targets known. What targets mean is checked by the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data.annotated import open_annotated
from edgeprune.data.annotations import is_annotated, read_coco, read_folder
from edgeprune.data.arrays import OWN, ArraySource, Parts, from_mapping, is_idx_folder, read_idx, read_npz
from edgeprune.data.dataset import Dataset, Source, require_finite
from edgeprune.data.images import open_image_folder
from edgeprune.data.items import ItemSource, hash_items, is_item_dataset, to_array
from edgeprune.data.layout import Statistic, fit_layout
from edgeprune.data.target_encodings import collect_targets, to_targets
from edgeprune.data.targets import Targets, join_targets, number_classes, require_known, size_of
from edgeprune.errors import DataError
from edgeprune.importing import import_object

Shapes = Sequence[Sequence[int]] | None


def open_data(
    spec: Any,
    *,
    input_shapes: Shapes = None,
    mean: Statistic = None,
    std: Statistic = None,
) -> Dataset:
    """Open a dataset and fit it to a model.

    Args:
        spec: a path to an npz file, an idx folder, a folder of class folders with images, a folder of images
            with YOLO's labels or with masks, or a COCO file;
            `package.module:function`, called without arguments; arrays or tensors as `(x, y)`, `(x, None)`
            or a mapping with `x`, `y`, `group`, `x_val`, `y_val`, `x_test`, `y_test` (x may be a tuple for
            several inputs; y an array, a list with one entry per sample, or a mapping of these);
            or a map-style dataset with `__len__` and `__getitem__`.
        input_shapes: the model's input shapes without batch (−1 for any size); None takes data as it is.
        mean, std: subtracted and divided by after scaling; a number or one per channel.

    Raises:
        DataError: missing, unreadable, empty, of unequal lengths, not finite, of the wrong shape,
            targets that hold NaN, groups that are not one number or text a sample.
    """
    if isinstance(spec, str | Path):
        return _open_named(str(spec), input_shapes, mean, std)
    return _open_object(spec, "data", input_shapes, mean, std)


def _open_named(spec: str, shapes: Shapes, mean: Statistic, std: Statistic) -> Dataset:
    path = Path(spec).expanduser()
    if path.is_dir():
        if is_idx_folder(path):
            return _build(read_idx(path), spec, shapes, mean, std)
        if is_annotated(path):
            return open_annotated(read_folder(path, spec), path, spec, shapes, mean=mean, std=std)
        return open_image_folder(path, spec, shapes, mean=mean, std=std)
    if path.is_file():
        with open(path, "rb") as handle:
            head = handle.read(8)
        if not head:
            raise DataError(f"{spec}: the file is empty")
        if head.startswith(b"PK"):
            return _build(read_npz(path), spec, shapes, mean, std)
        if head.lstrip().startswith(b"{"):
            root = path.parent.parent
            return open_annotated(read_coco(path, spec), root, spec, shapes, mean=mean, std=std)
        raise DataError(
            f"{spec}: not an npz file (it begins with {head[:4].hex()})",
            tip="give an npz with x and y, a COCO json, folders of images, an idx folder, or module:function",
        )
    if path.exists():
        raise DataError(f"{spec}: neither a file nor a folder")
    if ":" in spec and "/" not in spec:
        function = import_object(spec, option="--data", error=DataError)
        if not callable(function):
            return _open_object(function, spec, shapes, mean, std)
        try:
            source = function()
        except DataError:
            raise
        except Exception as exc:
            raise DataError(f"--data {spec}: the function raised {type(exc).__name__}: {exc}") from exc
        return _open_object(source, spec, shapes, mean, std)
    raise DataError(f"{spec}: no such file or folder")


def _open_object(value: Any, name: str, shapes: Shapes, mean: Statistic, std: Statistic) -> Dataset:
    if isinstance(value, Dataset):
        return value
    if isinstance(value, Mapping):
        named: dict[str, Any] = {}
        for key, part in value.items():
            if part is None:
                continue
            if str(key) == "y" or str(key).startswith("y_"):
                named[str(key)] = to_targets(part, name)
            elif isinstance(part, tuple | list) and str(key).startswith("x") and _several(part):
                named.update({f"{key}_{i}": to_array(p, name) for i, p in enumerate(part)})
            else:
                named[str(key)] = to_array(part, name)
        return _build(from_mapping(named, name), name, shapes, mean, std)
    if isinstance(value, tuple | list) and len(value) == 2:
        x, y = value
        return _open_object({"x": x, "y": y}, name, shapes, mean, std)
    if hasattr(value, "__array__") or isinstance(value, tuple | list):
        if isinstance(value, tuple | list) and len(value) == 1:
            value = value[0]
        return _open_object({"x": value}, name, shapes, mean, std)
    if is_item_dataset(value):
        return _build_items(value, name, shapes, mean, std)
    raise DataError(
        f"{name}: cannot take data from a {type(value).__name__}",
        tip="give (x, y) arrays or tensors, a mapping with x and y, or an indexable dataset with a length",
    )


def _several(parts: Sequence[Any]) -> bool:
    return bool(parts) and all(hasattr(p, "__array__") or hasattr(p, "detach") for p in parts)


def _build(parts: Parts, name: str, shapes: Shapes, mean: Statistic, std: Statistic) -> Dataset:
    """Join the training part and those kept apart, check them, and fit every input to the model."""
    arrays, targets = dict(parts.train.inputs), [parts.train.targets]
    _require_lengths(arrays, parts.train.targets, name, "")
    size = len(next(iter(arrays.values())))
    groups = [_group_numbers(parts.train.groups, size, name, "group", 0)]
    part_indices: dict[str, npt.NDArray[np.int64]] = {}
    for kind, part in parts.held_out.items():
        _require_lengths(part.inputs, part.targets, name, f"{kind} ")
        count = len(next(iter(part.inputs.values())))
        for key, array in part.inputs.items():
            if array.shape[1:] != arrays[key].shape[1:] or array.dtype != arrays[key].dtype:
                raise DataError(
                    f"{name}: {key} has samples of {arrays[key].shape[1:]} {arrays[key].dtype},"
                    f" its {kind} part of {array.shape[1:]} {array.dtype}"
                )
            arrays[key] = np.concatenate([arrays[key], array])
        targets.append(part.targets)
        part_indices[kind] = np.arange(size, size + count)
        size += count
        first = max(int(numbers.max(initial=-1)) for numbers in groups) + 1
        groups.append(_group_numbers(part.groups, count, name, f"group_{OWN[kind]}", first))
    for key, array in arrays.items():
        require_finite(array, name if len(arrays) == 1 else f"{name}: {key}")
    belongs = np.concatenate(groups)
    return _assemble(
        name=name,
        source=ArraySource(tuple(arrays.values())),
        samples=[(key, array.shape[1:], array.dtype) for key, array in arrays.items()],
        size=size,
        targets=None if targets[0] is None else join_targets(targets, name),
        part_indices=part_indices,
        sha256=parts.sha256,
        checked=True,
        fitting=(shapes, mean, std),
        groups=belongs if (belongs >= 0).any() else None,
    )


def _build_items(value: Any, name: str, shapes: Shapes, mean: Statistic, std: Statistic) -> Dataset:
    """A map-style dataset: items are read when asked for; targets come from `.targets` or one pass."""
    size = len(value)
    if size == 0:
        raise DataError(f"{name}: holds no samples")
    source = ItemSource(value, name)
    first = source.read(np.zeros(1, dtype=np.int64))
    targets = collect_targets(value, name)
    return _assemble(
        name=name,
        source=source,
        samples=[(f"x_{i}", array.shape[1:], array.dtype) for i, array in enumerate(first)],
        size=size,
        targets=targets,
        part_indices={},
        sha256=hash_items(source, size, number_classes(targets)[0]),
        checked=False,
        fitting=(shapes, mean, std),
    )


def _assemble(
    *,
    name: str,
    source: Source,
    samples: list[tuple[str, tuple[int, ...], np.dtype[Any]]],
    size: int,
    targets: Targets,
    part_indices: dict[str, npt.NDArray[np.int64]],
    sha256: str,
    checked: bool,
    fitting: tuple[Shapes, Statistic, Statistic],
    groups: npt.NDArray[np.int64] | None = None,
) -> Dataset:
    shapes, mean, std = fitting
    targets, labels, names = number_classes(targets)
    if targets is not None:
        require_known(targets, name)
    if shapes is not None and len(shapes) != len(samples):
        raise DataError(
            f"{name}: holds {len(samples)} input(s) per sample, the model takes {len(shapes)}",
            tip="name the arrays x_0, x_1, … in the order of the model's inputs",
        )
    prepare, described = [], []
    for index, (key, shape, dtype) in enumerate(samples):
        label = name if len(samples) == 1 else f"{name}: {key}"
        wanted = None if shapes is None else shapes[index]
        step, description = fit_layout(shape, dtype, wanted, name=label, mean=mean, std=std)
        prepare.append(step)
        described.append(description)
    return Dataset(
        name=name,
        source=source,
        size=size,
        targets=targets,
        labels=labels,
        classes=None if labels is None else int(labels.max()) + 1,
        class_names=names,
        prepare=prepare,
        preprocessing=described[0] if len(described) == 1 else {"inputs": described},
        validation_indices=part_indices.get("validation"),
        test_indices=part_indices.get("test"),
        sha256=sha256,
        checked=checked,
        groups=groups,
    )


def _group_numbers(
    groups: npt.NDArray[Any] | None, count: int, name: str, key: str, first: int
) -> npt.NDArray[np.int64]:
    """Groups numbered from `first` in sorted order; −1 for all where the source does not say."""
    if groups is None:
        return np.full(count, -1, dtype=np.int64)
    if groups.ndim != 1 or groups.dtype.kind not in "biuUS":
        raise DataError(
            f"{name}: {key} has shape {groups.shape} and type {groups.dtype}; one whole number or text per"
            " sample is expected",
            tip="give the person, machine or recording that each sample comes from",
        )
    if len(groups) != count:
        raise DataError(f"{name}: lengths do not agree: {count} samples, {len(groups)} {key}")
    return first + np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _require_lengths(inputs: dict[str, npt.NDArray[Any]], targets: Targets, name: str, part: str) -> None:
    for key, array in inputs.items():
        if array.ndim == 0:
            raise DataError(f"{name}: {part}{key} is a single number, not one row per sample")
    lengths = {f"{part}{key}": len(array) for key, array in inputs.items()}
    if targets is not None:
        lengths[f"{part}targets"] = size_of(targets, name)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{count} {key}" for key, count in lengths.items())
        raise DataError(f"{name}: lengths do not agree: {listed}")
    if 0 in lengths.values():
        raise DataError(f"{name}: holds no {part}samples")
