"""Folders of class folders with images, read one image at a time.

    flowers/daisy/1.jpg, flowers/rose/2.png, …      or      flowers/train/…, flowers/test/…

Class names are the folder names in sorted order. Folders `val` and `test` beside `train`
become the validation and the test part (`val` alone takes the role of the test part). An
image is scaled to cover the model's height and width (bilinear, aspect ratio kept) and
cropped at its centre; it becomes grey or RGB as the model takes it. Only the images asked
for are in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeprune.data.dataset import Dataset, Indices, Inputs
from edgeprune.data.layout import Statistic, fit_layout
from edgeprune.data.pictures import cover, opened_picture
from edgeprune.errors import DataError
from edgeprune.paths import printable, special_kind

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
HASHED_HEAD = 4096


def open_image_folder(
    root: Path,
    name: str,
    shapes: Sequence[Sequence[int]] | None,
    *,
    mean: Statistic = None,
    std: Statistic = None,
) -> Dataset:
    """Open class folders; every file with an image suffix is opened once to see that it is one.

    Raises:
        DataError: no class folders, no images, a class without images, an unreadable image (named),
            a model that does not take one image.
    """
    train_root, own_roots = _layout(root)
    classes = _classes(train_root, name)
    files: list[Path] = []
    labels: list[int] = []
    _collect(train_root, classes, files, labels, name)
    part_indices: dict[str, Indices] = {}
    for part, part_root in own_roots.items():
        before = len(files)
        _collect(part_root, classes, files, labels, name)
        part_indices[part] = np.arange(before, len(files))
    sha256, first_shape = scan_images(root, files)
    shape = image_shape(shapes, first_shape, name)
    prepare, described = fit_layout(
        (*shape[1:], shape[0]), np.dtype(np.uint8), shape, name=name, mean=mean, std=std
    )
    described["raw"] = "image file"
    described["resize"] = "cover, bilinear, centre crop"
    return Dataset(
        name=name,
        source=_ImageSource(files, shape),
        size=len(files),
        labels=np.asarray(labels, dtype=np.int64),
        classes=len(classes),
        class_names=tuple(printable(folder) for folder in classes),
        prepare=(prepare,),
        preprocessing=described,
        validation_indices=part_indices.get("validation"),
        test_indices=part_indices.get("test"),
        sha256=sha256,
        checked=True,  # uint8 pixels are finite
    )


class _ImageSource:
    def __init__(self, files: list[Path], shape: tuple[int, int, int]) -> None:
        self._files = files
        self._channels, self._height, self._width = shape

    def read(self, indices: Indices) -> Inputs:
        out = np.empty((len(indices), self._height, self._width, self._channels), dtype=np.uint8)
        for row, index in enumerate(indices):
            out[row] = self._load(self._files[int(index)])
        return (out,)

    def _load(self, path: Path) -> npt.NDArray[np.uint8]:
        with opened_picture(path) as (image, _):
            converted = image.convert(MODES[self._channels])
        pixels = cover(converted, self._width, self._height)
        return np.asarray(pixels, dtype=np.uint8).reshape(self._height, self._width, self._channels)


def _layout(root: Path) -> tuple[Path, dict[str, Path]]:
    """The folder whose class folders are for training, and those of the parts kept apart from it."""
    by_name = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    train = next((by_name[n] for n in TRAIN_NAMES if n in by_name), None)
    if train is None or not any(p.is_dir() for p in train.iterdir()):
        return root, {}
    validation = next((by_name[n] for n in VALIDATION_NAMES if n in by_name), None)
    test = by_name.get("test")
    if test is None or not any(p.is_dir() for p in test.iterdir()):
        return train, {} if validation is None else {"test": validation}
    return train, {"test": test} if validation is None else {"validation": validation, "test": test}


def _classes(root: Path, name: str) -> list[str]:
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(
            f"{name}: no class folders in {root}",
            tip="put the images of each class in a folder of its own, or give idx files or an .npz",
        )
    return classes


def _collect(root: Path, classes: list[str], files: list[Path], labels: list[int], name: str) -> None:
    present = [p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise DataError(f"{name}: {root} has class folder {unknown[0]}, which the training part lacks")
    suffixes = Image.registered_extensions()
    for label, folder in enumerate(classes):
        if folder not in present:
            continue
        images = sorted(
            p for p in (root / folder).rglob("*") if p.suffix.lower() in suffixes and not p.is_dir()
        )
        if not images:
            raise DataError(f"{name}: no images in class folder {printable(root / folder)}")
        for path in images:
            require_regular(path)
        files.extend(images)
        labels.extend([label] * len(images))


def require_regular(path: Path) -> None:
    try:
        kind = special_kind(path)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    if kind:
        raise DataError(f"{printable(path)}: is {kind}, not an image", tip="remove it from the class folder")


def scan_images(root: Path, files: list[Path]) -> tuple[str, tuple[int, int, int]]:
    """Open every header once; hash names, sizes and beginnings; the first image's shape."""
    digest = hashlib.sha256()
    shape: tuple[int, int, int] | None = None
    for path in files:
        with opened_picture(path) as (image, stream):
            digest.update(os.fsencode(path.relative_to(root)) + f" {path.stat().st_size} ".encode())
            stream.seek(0)
            digest.update(stream.read(HASHED_HEAD))
            if shape is None:
                channels = 1 if image.mode in ("1", "L", "I", "I;16", "F") else 3
                shape = (channels, image.height, image.width)
    if shape is None:
        raise DataError(f"{root}: holds no images")
    return digest.hexdigest(), shape


def image_shape(
    shapes: Sequence[Sequence[int]] | None, first: tuple[int, int, int], name: str
) -> tuple[int, int, int]:
    """The model's (channels, height, width); free sizes (−1) are the first image's."""
    if shapes is None:
        return first
    if len(shapes) != 1:
        raise DataError(f"{name}: images are one input per sample, the model takes {len(shapes)}")
    want = tuple(int(s) for s in shapes[0])
    if len(want) == 2:
        want = (1, *want)
    if len(want) != 3 or want[0] not in (*MODES, -1):
        raise DataError(
            f"{name}: images cannot become the model's input of shape {'×'.join(map(str, shapes[0]))}",
            tip="class folders need a model that takes channels×height×width with 1, 3 or 4 channels",
        )
    channels, height, width = (w if w != -1 else f for w, f in zip(want, first, strict=True))
    return channels, height, width
