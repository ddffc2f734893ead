"""Targets of detection: true boxes and their classes, per image.

A list of mappings with `boxes` (n, 4), corners x1, y1, x2, y2, and `labels` (n,); or a mapping of two padded
arrays (or lists) with label −1 for what is missing. Boxes are pixels, or shares of the image where none
reaches beyond 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Targets
from edgeprune.tasks.boxes import Objects, as_objects
from edgeprune.tasks.detection_layout import NORMALISED
from edgeprune.tasks.numbers import show

OUTSIDE = 1.0  # pixels that a true box may reach beyond the image


def objects_of(targets: Targets, source: str) -> list[Objects]:
    """One entry per image from a list of mappings or a mapping of padded arrays or lists.

    Raises:
        DataError: another form, boxes that are not (n, 4), or unequal numbers of boxes and labels.
    """
    padded = isinstance(targets, Mapping)
    if isinstance(targets, Mapping) and {"boxes", "labels"} <= set(targets):
        targets = [
            {"boxes": b, "labels": t} for b, t in zip(targets["boxes"], targets["labels"], strict=True)
        ]
    if not isinstance(targets, list | tuple):
        raise DataError(
            f"{source}: detection takes boxes and labels per sample, targets are {show(targets)}",
            tip="give a list of {'boxes': (n, 4), 'labels': (n,)}; an npz holds y_boxes, y_labels, y_offsets",
        )
    objects = []
    for index, entry in enumerate(targets):
        if not isinstance(entry, Mapping) or not {"boxes", "labels"} <= set(entry):
            raise DataError(f"{source}: the target of sample {index} is no mapping with boxes and labels")
        boxes, labels = np.asarray(entry["boxes"], np.float64), np.asarray(entry["labels"]).reshape(-1)
        if not boxes.size:
            boxes = np.zeros((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(labels):
            raise DataError(
                f"{source}: sample {index} has boxes {show(boxes)} and {len(labels)} labels; (n, 4) and n are"
                " expected"
            )
        real = labels >= 0 if padded else np.ones(len(labels), dtype=bool)
        objects.append(as_objects(boxes[real], labels[real]))
    return objects


def in_pixels(truth: list[Objects]) -> bool:
    """Whether boxes are pixels."""
    return max((float(t.boxes.max(initial=0.0)) for t in truth), default=0.0) > NORMALISED


def check_boxes(
    objects: Objects, index: int, limit: tuple[float, float] | None, pixels: bool, source: str
) -> None:
    """Refuse NaN, boxes of no area, and boxes outside the image.

    Args:
        limit: width and height of the images, where they are known.
    """
    boxes = objects.boxes
    if not np.isfinite(boxes).all():
        raise DataError(f"{source}: sample {index} has a box with NaN or infinity")
    flat = np.flatnonzero((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    if flat.size:
        raise DataError(
            f"{source}: sample {index} has a box of no area: {_show_box(boxes[flat[0]])}",
            tip="boxes are corners x1, y1, x2, y2; leave empty ones out",
        )
    slack = OUTSIDE if pixels else 1e-3
    width, height = limit or ((np.inf, np.inf) if pixels else (1.0, 1.0))
    outside = (
        (boxes[:, :2] < -slack).any(axis=1) | (boxes[:, 2] > width + slack) | (boxes[:, 3] > height + slack)
    )
    if outside.any():
        where = f" of {height:g}×{width:g}" if limit else ""
        raise DataError(
            f"{source}: sample {index} has a box outside the image{where}:"
            f" {_show_box(boxes[int(np.argmax(outside))])}"
        )


def _show_box(box: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in box)
