"""Object detection: boxes with a class and a score.

Outputs: see `detection_layout`. Targets: per image a mapping with `boxes` (n, 4), corners x1, y1, x2, y2, and
`labels` (n,); a mapping of two padded arrays with label −1 for what is missing is taken too. Measures of a
set: mAP50-95 and mAP50 as COCO counts them; per image: F1 at IoU 0.5 of detections above the threshold.
Without targets that F1 is taken against the dense model's detections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.tasks.base import Classes, Measure, Outputs, Score, Targets, Tensors
from edgeprune.tasks.boxes import (
    THRESHOLDS,
    FloatArray,
    Objects,
    as_objects,
    average_precision,
    match_f1,
    suppress,
)  # fmt: skip
from edgeprune.tasks.categorical import gradients
from edgeprune.tasks.detection_layout import Layout, corners, find_layout
from edgeprune.tasks.detection_loss import dense_loss, set_loss
from edgeprune.tasks.detection_targets import check_boxes, in_pixels, objects_of
from edgeprune.tasks.generic import ContinuousTask
from edgeprune.tasks.numbers import distinct_class, finite_rows, mean_score, set_score

if TYPE_CHECKING:
    import torch

LEAST_SCORE, CANDIDATES = 0.001, 1000  # of what average precision is counted over, per image
FLOOR = 0.05  # weight of a prediction without confidence in distillation
READ_ON, DOUBTFUL, ENOUGH = 64, 0.1, 10  # images and mAP50 that other readings are tried on, true boxes


@dataclass(frozen=True, eq=False)
class Detection(ContinuousTask):
    """Boxes, classes and scores.

    Attributes:
        boxes, scores, background, columns: what the user says about the outputs, see detection_layout.
        size: height and width of the images, or one number for both; needed where outputs are shares of
            the image and targets are pixels.
        threshold: score from which a detection counts for F1. overlap: of suppression.
        layout: how outputs are read, set by `fitted`.
    """

    name: ClassVar[str] = "detection"
    measures: ClassVar[dict[str, Measure]] = {
        "map": Measure("mAP50-95"), "map50": Measure("mAP50"), "f1": Measure("F1 of boxes per image"),
    }  # fmt: skip
    agreement_measure: ClassVar[Measure] = Measure("F1 of boxes per image with the dense model's")
    boxes: str = ""
    scores: str = ""
    background: str = ""
    columns: int = 0
    size: tuple[float, float] | float = 0.0
    threshold: float = 0.25
    overlap: float = 0.7
    layout: Layout | None = None
    pixels: bool = False

    def fitted(self, outputs: Outputs, targets: Targets | None) -> Self:
        """The same task, knowing where outputs hold what, in which unit targets are, and all spreads.

        What values alone do not say is decided by the true boxes: of the readings that the user's options
        leave open, the one that finds them is taken.

        Raises:
            DataError: no output holds boxes and scores, or no reading finds a single true box.
        """
        truth = [] if targets is None else objects_of(targets, "targets")
        labels = np.concatenate([np.zeros(0, np.int64), *(t.labels for t in truth)])
        said: dict[str, Any] = {"form": self.boxes, "activation": self.scores, "background": self.background}
        known: dict[str, Any] = {
            "most": int(labels.max()) if labels.size else None,
            "zero_used": not labels.size or bool((labels == 0).any()),
            "classes": self.columns,
        }
        task = replace(self, layout=find_layout(outputs, **said, **known), pixels=in_pixels(truth))
        if labels.size and not (task.needs_size and self.extent() is None):
            task = task._read_by_truth(outputs, truth, said, known)
        return task._scaled(outputs)

    @property
    def needs_size(self) -> bool:
        """Whether outputs are shares of the image and targets are pixels."""
        return self.known.normalised and self.pixels

    def _read_by_truth(
        self, outputs: Outputs, truth: list[Objects], said: dict[str, Any], known: dict[str, Any]
    ) -> Self:
        """The reading with the best average precision at IoU 0.5, the default where it is near the best."""
        some = tuple(out[:READ_ON] for out in outputs)
        every = np.arange(len(some[0]))

        def precision(task: Self) -> float:
            return average_precision(task.detect(some, LEAST_SCORE), truth[:READ_ON], THRESHOLDS[:1])(every)

        best, best_value = self, precision(self)
        if best_value < DOUBTFUL:
            first = known["classes"] or (known["most"] or 0) + 1
            for form, background, objectness, classes in product(
                ("xywh", "xyxy"), ("none", "first", "last"), (False, True), {known["classes"], first}
            ):
                options = {
                    **said,
                    "form": said["form"] or form,
                    "background": said["background"] or background,
                }
                layout = find_layout(
                    some, **options, **{**known, "classes": classes}, objectness=objectness
                )  # fmt: skip
                other = replace(self, layout=layout)
                if known["most"] < layout.classes and (value := precision(other)) > 2 * best_value:
                    best, best_value = other, value
        if best_value == 0 and sum(len(t.labels) for t in truth[:READ_ON]) >= ENOUGH:
            raise DataError(
                f"the dense model finds none of the true boxes; outputs were read as {self.known.describe()}",
                tip="say how: --task detection:boxes=xyxy,scores=sigmoid,background=last,columns=80",
            )
        return best

    def _scaled(self, outputs: Outputs) -> Self:
        return super().fitted(outputs, None)

    def axis(self, values: Any) -> int:
        """The columns of boxes and scores; the first axis of what else there is."""
        if self.layout is not None and values.ndim == 3:
            return self.layout.channel_axis
        return 0 if values.ndim < 2 else 1

    def check(self, outputs: Outputs, targets: Targets | None, source: str, *, varied: bool = True) -> None:
        """Refuse boxes of another shape, of no area or outside the image, class numbers beyond the head, data
        without a single box, and, without targets, a dense model that detects nothing.
        """
        task = self if self.layout else self.fitted(outputs, targets)
        layout = task.known
        if targets is None:
            if varied and not any(len(d.labels) for d in task.detect(outputs, self.threshold)):
                self._refuse_nothing(source, len(outputs[0]))
            return
        truth = objects_of(targets, source)
        size, pixels = self.extent(), in_pixels(truth)
        if layout.normalised and pixels and size is None:  # targets of another set may be in another unit
            raise DataError(
                f"{source}: the model gives boxes as shares of the image, targets are pixels",
                tip="say the size of the images: --task detection:size=640 (or size=480x640)",
            )
        limit = (size[1], size[0]) if size is not None and pixels else None
        classes = layout.classes
        for index, objects in enumerate(truth):
            check_boxes(objects, index, limit, pixels, source)
            off = objects.labels[(objects.labels < 0) | (objects.labels >= classes)]
            if off.size:
                raise DataError(
                    f"{source}: sample {index} has a box of class {off[0]}, but the model has {classes}"
                    " classes",
                    tip=f"class numbers lie in 0..{classes - 1}; outputs were read as {layout.describe()}",
                )
        if varied and not any(len(t.labels) for t in truth):
            raise DataError(f"{source}: no sample has a box", tip="give samples with objects in them")

    @property
    def known(self) -> Layout:
        """The layout. Raises DataError before `fitted`."""
        if self.layout is None:
            raise DataError("task detection has seen no outputs yet", tip="call its fitted(outputs, targets)")
        return self.layout

    def extent(self) -> tuple[float, float] | None:
        """Height and width of the images, where they were said."""
        if isinstance(self.size, tuple):
            return self.size
        return (self.size, self.size) if self.size else None

    def scale(self) -> FloatArray:
        """What outputs are multiplied with to have the targets' unit, shape (4,)."""
        size = self.extent()
        if size is None or self.known.normalised == (not self.pixels):
            return np.ones(4)
        height, width = size
        factor = np.array([width, height, width, height], dtype=np.float64)
        return factor if self.pixels else 1.0 / factor

    def detect(self, outputs: Outputs, least: float) -> list[Objects]:
        """The detections of each image with a score of at least `least`, suppressed, best first."""
        task = self if self.layout else self.fitted(outputs, None)
        layout = task.known
        raw, columns = layout.raw(outputs)
        boxes = corners(np.asarray(raw, np.float64), layout.form, np.concatenate) * task.scale()
        fine = np.all([finite_rows(outputs[i]) for i in {layout.boxes_at, layout.scores_at}], axis=0)
        detections = []
        for index in range(len(boxes)):
            if not fine[index]:
                detections.append(as_objects(np.zeros((0, 4)), []))
            elif layout.kind == "final":
                scores, labels = columns[index].astype(np.float64).T
                keep = np.flatnonzero(scores >= least)
                keep = keep[np.argsort(-scores[keep], kind="stable")]
                detections.append(as_objects(boxes[index, keep], labels[keep], scores[keep]))
            else:
                detections.append(self._pick(boxes[index], _activated(columns[index], layout), layout, least))
        return detections

    def _pick(self, boxes: FloatArray, scores: FloatArray, layout: Layout, least: float) -> Objects:
        if layout.background is not None:
            scores = scores.copy()
            scores[:, layout.background] = -1.0
        rows, labels = np.nonzero(scores >= max(least, 1e-12))
        values = scores[rows, labels]
        if len(values) > CANDIDATES:  # sorting all of them takes longer than everything else
            best = np.flatnonzero(values >= np.partition(values, -CANDIDATES)[-CANDIDATES])
            rows, labels, values = rows[best], labels[best], values[best]
        order = np.argsort(-values, kind="stable")[:CANDIDATES]
        rows, labels, values = rows[order], labels[order], values[order]
        if layout.kind != "set":
            kept = suppress(boxes[rows], values, labels, self.overlap)
            rows, labels, values = rows[kept], labels[kept], values[kept]
        return as_objects(boxes[rows], labels, values)

    def loss(self, outputs: Tensors, targets: Targets) -> torch.Tensor:
        """The loss of the layout's kind, see detection_loss."""
        import torch

        layout = self.known
        raw, columns = layout.raw(outputs)
        scale = torch.as_tensor(self.scale()).to(raw.device, raw.dtype)
        boxes = corners(raw, layout.form, torch.cat) * scale
        truth = objects_of(targets, "targets")
        if layout.kind == "set" and layout.activation != "none":
            background = layout.background if layout.activation == "softmax" else None
            return set_loss(boxes, columns, background, scale, truth)
        if layout.kind == "final":
            confidence = columns[..., :1]
            one_class = [replace(t, labels=np.zeros_like(t.labels)) for t in truth]
            return dense_loss(boxes, confidence, True, one_class)
        if layout.activation == "softmax":
            return dense_loss(boxes, columns.softmax(-1), True, truth)
        return dense_loss(boxes, columns, layout.activation == "none", truth)

    def distil(self, student: Tensors, teacher: Tensors) -> torch.Tensor:
        """Squared error of all outputs by each column's variance, weighted by the teacher's confidence."""
        import torch

        layout = self.known
        weight = self._confidence(teacher)
        parts = []
        for index, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
            if not theirs.is_floating_point():
                continue
            a, b, spread = self._normalised(index, ours, theirs)
            error = (((a - b) / spread) ** 2).mean(-1)
            parts.append((error * weight if index in (layout.boxes_at, layout.scores_at) else error).mean())
        return torch.stack(parts).mean()

    def _confidence(self, outputs: Tensors) -> torch.Tensor:
        """The largest score of each prediction, (N, A), at least a floor, with mean 1."""
        layout = self.known
        _, columns = layout.raw(tuple(out.detach() for out in outputs))
        scores = columns[..., :1] if layout.kind == "final" else columns
        if layout.activation == "sigmoid":
            scores = scores.sigmoid()
        elif layout.activation == "softmax":
            scores = scores.softmax(-1)
        if layout.background is not None:
            kept = [i for i in range(scores.shape[-1]) if i != layout.background]
            scores = scores[..., kept]
        weight = scores.amax(-1).clamp(0, 1) + FLOOR
        return weight / weight.mean()

    def _given(self, outputs: Tensors, targets: Targets) -> Tensors:
        samples = len(outputs[0])
        return gradients(outputs, lambda leaves: self.loss(leaves, targets) * samples)

    def score(self, outputs: Outputs, targets: Targets) -> Score:
        """The measure chosen."""
        truth = objects_of(targets, "targets")
        if self.chosen == "f1":
            detections = self.detect(outputs, self.threshold)
            return mean_score(np.array([match_f1(a, b) for a, b in zip(detections, truth, strict=True)]))
        levels = THRESHOLDS[:1] if self.chosen == "map50" else THRESHOLDS
        return set_score(average_precision(self.detect(outputs, LEAST_SCORE), truth, levels), len(truth))

    def agreement(self, outputs: Outputs, dense: Outputs) -> Score:
        """F1 of boxes per image.

        Raises:
            DataError: the dense model detects nothing in any image.
        """
        task = self if self.layout else self.fitted(dense, None)
        theirs = task.detect(dense, self.threshold)
        if not any(len(d.labels) for d in theirs):
            self._refuse_nothing("agreement", len(theirs))
        ours = task.detect(outputs, self.threshold)
        return mean_score(np.array([match_f1(a, b) for a, b in zip(ours, theirs, strict=True)]))

    def classes(self, outputs: Outputs, targets: Targets | None) -> Classes | None:
        """The class that each image has beyond the average over images."""
        objects = self.detect(outputs, self.threshold) if targets is None else objects_of(targets, "targets")
        width = 1 + max((int(t.labels.max(initial=0)) for t in objects), default=0)
        counts = np.stack([np.bincount(t.labels, minlength=width) for t in objects]).astype(np.float64)
        return distinct_class(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))

    def _refuse_nothing(self, source: str, samples: int) -> None:
        raise DataError(
            f"{source}: the dense model detects nothing above {self.threshold:g} in all {samples} samples;"
            " agreement with it says nothing",
            tip=f"lower it with --task detection:threshold=0.05; outputs were read as"
            f" {self.layout.describe() if self.layout else 'boxes and scores'}",
        )


def _activated(columns: npt.NDArray[Any], layout: Layout) -> FloatArray:
    values = columns.astype(np.float64)
    if layout.activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60, 60))))
    if layout.activation == "softmax":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(values / values.sum(axis=1, keepdims=True))
    return values
