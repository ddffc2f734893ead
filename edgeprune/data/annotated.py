"""Images with boxes or masks, brought to the model's size together.

An image is scaled to fit into the model's height and width (bilinear, aspect ratio kept), centred on grey
114, and its boxes or its mask move with it; nothing is cropped away. Pixels of a mask outside the image are
255, which segmentation leaves out. Targets are a list of `boxes` (corners in pixels of the model's input) and
`labels`, or masks uint8 (samples, height, width).
Elsewhere: reading annotations (annotations), images with one class each (images).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeprune.data.annotations import Annotated, AnnotatedParts
from edgeprune.data.dataset import Dataset, Indices, Inputs
from edgeprune.data.images import MODES, image_shape, scan_images
from edgeprune.data.layout import Statistic, fit_layout
from edgeprune.data.pictures import Fitted, contain, opened_picture
from edgeprune.data.targets import update_digest
from edgeprune.errors import DataError
from edgeprune.paths import printable

GREY, NO_CLASS = 114, 255


def open_annotated(
    found: AnnotatedParts,
    root: Path,
    name: str,
    shapes: Sequence[Sequence[int]] | None,
    *,
    mean: Statistic = None,
    std: Statistic = None,
) -> Dataset:
    """The dataset of images that were read from `root` with their boxes or masks.

    Raises:
        DataError: an unreadable image, a model that does not take one image, masks of another size.
    """
    rows = [row for part in found.parts.values() for row in part]
    if not rows:
        raise DataError(f"{name}: holds no images")
    sha256, first = scan_images(root, [row.image for row in rows])
    shape = image_shape(shapes, first, name)
    prepare, described = fit_layout(
        (*shape[1:], shape[0]), np.dtype(np.uint8), shape, name=name, mean=mean, std=std
    )
    described |= {"raw": "image file", "resize": f"contain, bilinear, centred on grey {GREY}"}
    targets = _targets(rows, shape[1:], name)
    digest = hashlib.sha256(sha256.encode())
    update_digest(digest, targets)
    starts = np.cumsum([0, *(len(part) for part in found.parts.values())])
    part_indices = {p: np.arange(a, b) for p, a, b in zip(found.parts, starts[:-1], starts[1:], strict=True)}
    if (
        "validation" in part_indices and "test" not in part_indices
    ):  # as with class folders, what is held back is the test part
        part_indices = {"train": part_indices["train"], "test": part_indices["validation"]}
    return Dataset(
        name=name,
        source=_FittedSource([row.image for row in rows], shape),
        size=len(rows),
        labels=None,
        classes=None,
        class_names=found.names,
        prepare=(prepare,),
        preprocessing=described,
        validation_indices=part_indices.get("validation"),
        test_indices=part_indices.get("test"),
        sha256=digest.hexdigest(),
        checked=True,  # uint8 pixels are finite
        targets=targets,
    )


class _FittedSource:
    def __init__(self, files: list[Path], shape: tuple[int, int, int]) -> None:
        self._files = files
        self._channels, self._height, self._width = shape

    def read(self, indices: Indices) -> Inputs:
        out = np.full((len(indices), self._height, self._width, self._channels), GREY, dtype=np.uint8)
        for row, index in enumerate(indices):
            with opened_picture(self._files[int(index)]) as (image, _):
                fitted = contain(image.size, self._width, self._height)
                scaled = image.convert(MODES[self._channels]).resize(fitted.size, Image.Resampling.BILINEAR)
                pixels = np.asarray(scaled, np.uint8).reshape(*fitted.size[::-1], self._channels)
            out[row][fitted.window] = pixels
        return (out,)


def _targets(rows: list[Annotated], size: tuple[int, int], name: str) -> Any:
    if rows[0].mask is not None:
        return np.stack([_mask(row, size, name) for row in rows])
    targets = []
    for row in rows:
        assert row.boxes is not None and row.labels is not None
        boxes = row.boxes
        if len(boxes):
            with opened_picture(row.image) as (image, _):
                fitted = contain(image.size, size[1], size[0])
            boxes = boxes * np.tile(fitted.scale, 2) + np.tile([fitted.left, fitted.top], 2)
        targets.append({"boxes": boxes.astype(np.float32), "labels": row.labels})
    return targets


def _mask(row: Annotated, size: tuple[int, int], name: str) -> npt.NDArray[np.uint8]:
    assert row.mask is not None
    with opened_picture(row.image) as (image, _):
        wanted = image.size
    with opened_picture(row.mask) as (picture, _):
        if picture.size != wanted:
            raise DataError(
                f"{name}: the mask {printable(row.mask)} has {picture.width}×{picture.height} pixels,"
                f" its image {wanted[0]}×{wanted[1]}"
            )
        if picture.mode not in ("1", "L", "P"):
            raise DataError(
                f"{name}: the mask {printable(row.mask)} is a picture of mode {picture.mode}",
                tip="save class numbers as a grey or palette PNG",
            )
        fitted: Fitted = contain(picture.size, size[1], size[0])
        scaled = picture.resize(fitted.size, Image.Resampling.NEAREST)
        numbers = np.asarray(scaled, np.uint8)  # of a palette: its indices
    out = np.full(size, NO_CLASS, np.uint8)
    out[fitted.window] = numbers
    return out
