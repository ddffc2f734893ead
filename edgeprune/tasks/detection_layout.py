"""Where a detector's outputs hold boxes and scores, and how to read them.

    joined      one output (N, 4 + C, A) or (N, A, 4 + C): boxes, then a score per class (YOLO's export), then
                what is not in 0..1 everywhere (masks, key points); with objectness (N, A, 5 + C) (YOLOv5)
    final       one output (N, A, 6): x1, y1, x2, y2, score, class, nothing left to suppress (YOLOv10)
    separate    boxes (N, A, 4) and scores (N, A, C); nothing is suppressed yet (SSD, RetinaNet)
    set         either, at most 1000 boxes as shares of the image and nothing to suppress (DETR)

What shapes do not say is read off values: corners where x2 ≥ x1 and y2 ≥ y1 nearly everywhere, else centre
and size; scores within 0..1 need no activation. `describe` says it, options of the task change it.
Decoding works on arrays and tensors alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeprune.errors import DataError
from edgeprune.tasks.base import Outputs
from edgeprune.tasks.numbers import show_all

Kind = Literal["joined", "final", "separate", "set"]
SET_SIZE = 1000  # predictions of a set predictor; dense heads have more
NORMALISED = 1.5  # boxes whose largest coordinate is below are shares of the image
CORNERS = 0.99  # share of boxes that must be valid corners


@dataclass(frozen=True)
class Layout:
    """How to read a detector's outputs.

    kind: see the module. boxes_at, scores_at: outputs that hold them, the same one where joined.
    channel_axis: of these outputs, 1 or 2. form: of the boxes. activation: what turns scores into 0..1.
    background: the score column that means no object, or None. classes: score columns without it.
    objectness: column 4 holds it. normalised: boxes are shares of the image.
    """

    kind: Kind
    boxes_at: int
    scores_at: int
    channel_axis: int
    form: Literal["xywh", "xyxy"]
    activation: Literal["none", "sigmoid", "softmax"]
    background: int | None
    classes: int
    objectness: bool
    normalised: bool

    def describe(self) -> str:
        """The reading in words."""
        form = "centre and size" if self.form == "xywh" else "corners"
        unit = "shares of the image" if self.normalised else "pixels"
        place = f"output {self.boxes_at}" if self.boxes_at == self.scores_at else (
            f"outputs {self.boxes_at} (boxes) and {self.scores_at} (scores)"
        )  # fmt: skip
        empty = "" if self.background is None else f", column {self.background} is no object"
        empty += ", column 4 is objectness" if self.objectness else ""
        scores = "scores as they are" if self.activation == "none" else f"scores through {self.activation}"
        return f"{place}, {self.kind}: boxes as {form} in {unit}, {self.classes} classes, {scores}{empty}"

    def raw(self, outputs: Any) -> tuple[Any, Any]:
        """Boxes (N, A, 4) as they are in the outputs, and score columns (N, A, …), arrays or tensors."""
        boxes = self._last(outputs[self.boxes_at])
        if self.kind == "final":
            return boxes[..., :4], boxes[..., 4:6]
        if self.boxes_at != self.scores_at:
            return boxes, self._last(outputs[self.scores_at])
        first = 5 if self.objectness else 4
        scores = boxes[..., first : first + self.classes]
        return boxes[..., :4], scores * boxes[..., 4:5] if self.objectness else scores

    def _last(self, out: Any) -> Any:
        return out if self.channel_axis == 2 else out.swapaxes(1, 2)


def corners(boxes: Any, form: str, concatenate: Any) -> Any:
    """Boxes as xyxy; `concatenate` is np.concatenate or torch.cat."""
    if form == "xyxy":
        return boxes
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return concatenate([centre - half, centre + half], -1)


def find_layout(
    outputs: Outputs,
    *,
    most: int | None = None,
    zero_used: bool = True,
    form: str = "",
    activation: str = "",
    background: str = "",
    classes: int = 0,
    objectness: bool = False,
) -> Layout:
    """Read the layout off outputs of a few samples.

    Args:
        most: the largest class number of the targets, where there are any.
        zero_used: whether a target has class 0.
        form, activation, background ("first", "last", "none"), classes, objectness: what the user said;
            empty or 0 where nothing was.

    Raises:
        DataError: no output, or no pair of outputs, holds boxes and scores.
    """
    flat = [i for i, out in enumerate(outputs) if out.ndim == 3 and out.dtype.kind == "f"]
    pair = _pair(outputs, flat)
    if pair is not None:
        return _separate(outputs, *pair, most, zero_used, form, activation, background)
    if len(flat) != 1:
        raise DataError(
            f"task detection finds no boxes and scores among outputs of shapes {show_all(outputs)}",
            tip="it takes one output (N, 4+C, A) or (N, A, 4+C), (N, A, 6), or boxes (N, A, 4) and scores"
            " (N, A, C)",
        )
    return _joined(outputs, flat[0], most, form, activation, classes, objectness)


def _pair(outputs: Outputs, flat: list[int]) -> tuple[int, int, int] | None:
    """Boxes, scores and the channel axis of two outputs of as many predictions.

    Where both have four columns, boxes are those with positive sizes and the larger numbers.
    """
    for axis in (2, 1):
        pairs = []
        for at in flat:
            if outputs[at].shape[axis] != 4:
                continue
            rest = [i for i in flat if i != at and outputs[i].shape[3 - axis] == outputs[at].shape[3 - axis]]
            if len(rest) == 1:
                values = outputs[at] if axis == 2 else outputs[at].swapaxes(1, 2)
                sized = _form(values) == "xyxy" or float((values[..., 2:] >= 0).mean()) >= CORNERS
                pairs.append((sized, float(np.abs(values).max()), at, rest[0]))
        if pairs:
            return (*max(pairs)[2:], axis)
    return None


def _joined(
    outputs: Outputs, at: int, most: int | None, form: str, activation: str, classes: int, objectness: bool
) -> Layout:
    out = outputs[at]
    axis = 2 if out.shape[2] <= out.shape[1] else 1
    width = out.shape[axis]
    values = out if axis == 2 else out.swapaxes(1, 2)
    if width < 5:
        raise DataError(f"task detection: output {at} has {width} columns; boxes and scores need 5 or more")
    normalised = _is_normalised(values[..., :4])
    if width == 6 and axis == 2 and not classes and _is_final(values):
        number = max(int(values[..., 5].max()), most if most is not None else 0) + 1
        return Layout("final", at, at, 2, "xyxy", "none", None, number, False, normalised)
    number = classes or _score_columns(values)
    first = 5 if objectness else 4
    number = min(number, width - first)
    chosen: Any = form or _form(values[..., :4])
    scores: Any = activation or _activation(values[..., first : first + number])
    kind: Kind = "set" if values.shape[1] <= SET_SIZE and normalised and chosen == "xywh" else "joined"
    return Layout(kind, at, at, axis, chosen, scores, None, number, objectness, normalised)


def _separate(
    outputs: Outputs,
    at: int,
    scores_at: int,
    axis: int,
    most: int | None,
    zero_used: bool,
    form: str,
    activation: str,
    background: str,
) -> Layout:
    boxes, scores = (outputs[i] if axis == 2 else outputs[i].swapaxes(1, 2) for i in (at, scores_at))
    columns = scores.shape[2]
    chosen: Any = form or _form(boxes)
    act: Any = activation or _activation(scores)
    normalised = _is_normalised(boxes)
    kind: Kind = "set" if boxes.shape[1] <= SET_SIZE and normalised and chosen == "xywh" else "separate"
    if not background and act != "none":
        if most is not None and not zero_used and most == columns - 1:
            background = "first"  # torchvision counts classes from 1
        elif kind == "set" and (most is None or most < columns - 1):
            background = "last"
    empty = {"first": 0, "last": columns - 1}.get(background)
    if empty is not None and not activation:
        act = "softmax"
    number = columns if empty != columns - 1 else columns - 1
    return Layout(kind, at, scores_at, axis, chosen, act, empty, number, False, normalised)


def _form(boxes: Any) -> str:
    valid = (boxes[..., 2] >= boxes[..., 0]) & (boxes[..., 3] >= boxes[..., 1])
    return "xyxy" if valid.mean() >= CORNERS else "xywh"


def _activation(scores: Any) -> str:
    return "none" if scores.min() >= 0 and scores.max() <= 1 else "sigmoid"


def _score_columns(values: Any) -> int:
    """Columns behind the box that hold probabilities; what follows them (coefficients of masks, key points,
    angles) is no score. All, where the first one holds logits.
    """
    columns = values[..., 4:].reshape(-1, values.shape[2] - 4)
    inside = (columns.min(axis=0) >= 0) & (columns.max(axis=0) <= 1)
    return len(inside) if inside.all() or not inside[0] else int(np.argmin(inside))


def _is_normalised(boxes: Any) -> bool:
    return bool(np.abs(boxes).max() <= NORMALISED)


def _is_final(values: Any) -> bool:
    label, score = values[..., 5], values[..., 4]
    return bool((label == np.floor(label)).all() and score.min() >= 0 and score.max() <= 1)
