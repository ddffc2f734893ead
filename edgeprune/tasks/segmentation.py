"""Semantic segmentation: a class for every pixel.

Outputs (samples, C, H, W), logits or probabilities; C = 1 is one logit of the foreground. Targets: masks of
class numbers (samples, H, W) or (samples, 1, H, W); 255 is left out. Measures: mean IoU of a set (classes
that neither masks nor decisions hold are left out), mean IoU per image, and the share of right pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets
from edgeprune.tasks.categorical import CategoricalTask
from edgeprune.tasks.classification import require_decisions_differ
from edgeprune.tasks.numbers import (
    FloatArray,
    class_axis_shares,
    distinct_class,
    finite_rows,
    mean_score,
    only,
    require_targets,
    set_score,
    show,
)  # fmt: skip


@dataclass(frozen=True)
class Segmentation(CategoricalTask):
    """One class per pixel."""

    name: ClassVar[str] = "segmentation"
    measures: ClassVar[dict[str, Measure]] = {
        "miou": Measure("mIoU"), "image_iou": Measure("mean IoU per image"),
        "pixel_accuracy": Measure("right pixels"),
    }  # fmt: skip
    agreement_measure: ClassVar[Measure] = Measure("mean IoU per image with the dense model's mask")
    ignore: int = 255

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse masks of another size or type, class numbers beyond the head, masks without a pixel that
        counts, and a single class.
        """
        out = only(outputs, self.name)
        if out.ndim != 4:
            raise DataError(
                f"task segmentation takes outputs (samples, classes, height, width), the model's are"
                f" {show(out)}"
            )
        if targets is None:
            require_decisions_differ(self.decide(out).reshape(len(out), -1).T, source, varied)
            return
        require_targets(targets, self.name, source)
        masks: npt.NDArray[Any] = targets if isinstance(targets, np.ndarray) else np.zeros(0)
        if masks.ndim == 4 and masks.shape[1] == 1:
            masks = masks[:, 0]
        if masks.ndim != 3 or masks.dtype.kind not in "biuf" or (masks != np.floor(masks)).any():
            raise DataError(
                f"{source}: segmentation takes masks of class numbers (samples, height, width), targets are"
                f" {show(targets)}"
            )
        if masks.shape[1:] != out.shape[2:]:
            raise DataError(
                f"{source}: masks are {masks.shape[1]}×{masks.shape[2]}, the model's outputs"
                f" {out.shape[2]}×{out.shape[3]}",
                tip="save masks at the size of the model's outputs (nearest neighbour), or upsample in it",
            )
        counted = masks != self.ignore
        classes = max(2, out.shape[1])
        off = counted & ((masks < 0) | (masks >= classes))
        if off.any():
            first = int(np.flatnonzero(off.reshape(len(masks), -1).any(axis=1))[0])
            raise DataError(
                f"{source}: the mask of sample {first} holds class {masks[first][off[first]][0]}, but the"
                f" model has {classes} classes",
                tip=f"class numbers lie in 0..{classes - 1}; {self.ignore} is left out"
                " (change it with --task segmentation:ignore=N)",
            )
        empty = np.flatnonzero(~counted.reshape(len(masks), -1).any(axis=1))
        if empty.size:
            raise DataError(
                f"{source}: the mask of sample {empty[0]} has no pixel that counts (all {self.ignore})",
                tip="leave such samples out",
            )
        if varied and len(np.unique(masks[counted])) < 2:
            raise DataError(f"{source}: all masks hold one class only", tip="give data of every class")

    def numbers(self, targets: Targets, shape: tuple[int, ...]) -> Any:
        """Masks without the axis of one channel."""
        return targets.reshape(len(targets), *shape[2:])

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The measure chosen; an image whose outputs hold NaN or infinity counts 0."""
        out = only(outputs, self.name)
        masks = np.asarray(self.numbers(targets, out.shape)).astype(np.int64)
        decided = np.where(finite_rows(out)[:, None, None], self.decide(out), -1)
        if self.measure is self.measures["pixel_accuracy"]:
            counted = (masks != self.ignore).reshape(len(masks), -1)
            right = (decided == masks).reshape(len(masks), -1) & counted
            return mean_score(right.sum(axis=1) / np.maximum(1, counted.sum(axis=1)))
        both, either = overlaps(decided, masks, max(2, out.shape[1]), self.ignore)
        if self.measure is self.measures["image_iou"]:
            return mean_score(_image_iou(both, either))

        def miou(at: npt.NDArray[np.int64]) -> float:
            return float(_image_iou(both[at].sum(axis=0)[None], either[at].sum(axis=0)[None])[0])

        return set_score(miou, len(masks))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """Mean IoU of each image's masks, over the classes that either of them holds."""
        ours, theirs = only(outputs, self.name), only(dense, self.name)
        decided = np.where(finite_rows(ours)[:, None, None], self.decide(ours), -1)
        return mean_score(
            _image_iou(*overlaps(decided, self.decide(theirs), max(2, ours.shape[1]), self.ignore))
        )

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The class that each image has beyond the average over images."""
        out = only(outputs, self.name)
        masks = self.decide(out) if targets is None else np.asarray(self.numbers(targets, out.shape))
        numbers = np.where(masks == self.ignore, -1, masks).reshape(len(masks), -1).astype(np.int64)
        return distinct_class(class_axis_shares(numbers, max(2, out.shape[1])))


def overlaps(
    decided: npt.NDArray[np.int64], masks: npt.NDArray[np.int64], classes: int, ignore: int
) -> tuple[FloatArray, FloatArray]:
    """Pixels in both and in either of two masks, per image and class: two arrays (samples, classes)."""
    both, either = np.zeros((len(masks), classes)), np.zeros((len(masks), classes))
    for row, (ours, theirs) in enumerate(zip(decided, masks, strict=True)):
        counted = theirs != ignore
        a, b = ours[counted], theirs[counted]
        both[row] = np.bincount(a[(a == b) & (a >= 0)], minlength=classes)[:classes]
        sizes = [np.bincount(x[x >= 0], minlength=classes)[:classes] for x in (a, b)]
        either[row] = sizes[0] + sizes[1] - both[row]
    return both, either


def _image_iou(both: FloatArray, either: FloatArray) -> FloatArray:
    """Mean over the classes present, shape (samples,); 1 where there is none."""
    present = either > 0
    ratio = np.where(present, both / np.maximum(either, 1), 0.0).sum(axis=1)
    count = present.sum(axis=1)
    return np.asarray(np.where(count > 0, ratio / np.maximum(count, 1), 1.0), dtype=np.float64)
