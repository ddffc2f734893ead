"""Training losses of detectors, on decoded boxes and scores.

`dense_loss`: every true box is given to the ten predictions that are best aligned with it (score^0.5 ·
IoU^6, Feng et al., TOOD, ICCV 2021); scores learn the alignment, boxes the generalised IoU.
`set_loss`: one prediction per true box by the assignment of least cost, class, L1 and generalised IoU
(Carion et al., DETR, ECCV 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

TAKEN = 10  # predictions per true box
BOX_WEIGHT, SCORE_WEIGHT = 7.5, 0.5  # of the dense loss, as in YOLOv8
L1_WEIGHT, IOU_WEIGHT = 5.0, 2.0  # of the set loss, as in DETR
EMPTY_WEIGHT = 0.1  # of the class "no object"
CLOSE = 1e-6


def generalised_iou(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and generalised IoU of boxes (…, 4), pair by pair after broadcasting."""
    import torch

    def area(box: torch.Tensor) -> torch.Tensor:
        return (box[..., 2] - box[..., 0]).clamp_min(0) * (box[..., 3] - box[..., 1]).clamp_min(0)

    inner = torch.minimum(ours[..., 2:], theirs[..., 2:]) - torch.maximum(ours[..., :2], theirs[..., :2])
    outer = torch.maximum(ours[..., 2:], theirs[..., 2:]) - torch.minimum(ours[..., :2], theirs[..., :2])
    common, hull = inner.clamp_min(0).prod(-1), outer.clamp_min(0).prod(-1)
    union = area(ours) + area(theirs) - common
    iou = common / (union + CLOSE)
    return iou, iou - (hull - union) / (hull + CLOSE)


def dense_loss(
    boxes: torch.Tensor, scores: torch.Tensor, probabilities: bool, truth: list[Any]
) -> torch.Tensor:
    """Args: boxes (N, A, 4) xyxy and scores (N, A, C), logits unless `probabilities`; objects per image."""
    import torch
    import torch.nn.functional as F

    wanted = torch.zeros_like(scores)
    box_part, weight_sum = boxes.sum() * 0, 0.0
    for index, objects in enumerate(truth):
        if not len(objects.labels):
            continue
        true = torch.as_tensor(objects.boxes).to(boxes.device, boxes.dtype)
        labels = torch.as_tensor(objects.labels).to(boxes.device)
        with torch.no_grad():
            iou = generalised_iou(true[:, None], boxes[index][None])[0]
            p = scores[index] if probabilities else scores[index].sigmoid()
            aligned = p[:, labels].T.clamp(0, 1) ** 0.5 * iou**6
            best = aligned.topk(min(TAKEN, aligned.shape[1]), dim=1).indices
            taken = torch.zeros_like(iou, dtype=torch.bool).scatter_(1, best, True) & (iou > 0)
            owner = torch.where(taken, iou, torch.full_like(iou, -1.0)).argmax(0)
            at = torch.where(taken.any(0))[0]
            owner = owner[at]
            strength = aligned / (aligned.amax(1, keepdim=True) + CLOSE) * iou.amax(1, keepdim=True)
            weight = strength[owner, at]
        wanted[index, at, labels[owner]] = weight
        box_part = box_part + (weight * (1 - generalised_iou(boxes[index, at], true[owner])[1])).sum()
        weight_sum += float(weight.sum())
    if probabilities:
        score_part = F.binary_cross_entropy(scores.clamp(CLOSE, 1 - CLOSE), wanted, reduction="sum")
    else:
        score_part = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")
    return (BOX_WEIGHT * box_part + SCORE_WEIGHT * score_part) / max(1.0, weight_sum)


def set_loss(
    boxes: torch.Tensor, scores: torch.Tensor, background: int | None, scale: torch.Tensor, truth: list[Any]
) -> torch.Tensor:
    """Args: boxes (N, Q, 4) xyxy, scores (N, Q, columns) logits, `scale` (4,) that makes boxes shares of the
    image, objects per image.
    """
    import torch
    import torch.nn.functional as F
    from scipy.optimize import linear_sum_assignment

    columns = scores.shape[-1]
    total, count = boxes.sum() * 0, max(1, sum(len(t.labels) for t in truth))
    empty = torch.full(scores.shape[:2], -1 if background is None else background, device=scores.device)
    for index, objects in enumerate(truth):
        if not len(objects.labels):
            continue
        true = torch.as_tensor(objects.boxes).to(boxes.device, boxes.dtype)
        labels = torch.as_tensor(objects.labels).to(boxes.device)
        with torch.no_grad():
            p = scores[index].sigmoid() if background is None else scores[index].softmax(-1)
            distance = ((boxes[index][:, None] - true[None]) / scale).abs().sum(-1)
            similar = generalised_iou(boxes[index][:, None], true[None])[1]
            cost = -p[:, labels] + L1_WEIGHT * distance - IOU_WEIGHT * similar
            cost = torch.nan_to_num(cost.float(), nan=1e6, posinf=1e6, neginf=-1e6)
            rows, picked = (np.asarray(x) for x in linear_sum_assignment(cost.cpu().numpy()))
        chosen, wanted = boxes[index, rows], true[picked]
        total = total + L1_WEIGHT * ((chosen - wanted) / scale).abs().sum()
        total = total + IOU_WEIGHT * (1 - generalised_iou(chosen, wanted)[1]).sum()
        empty[index, rows] = labels[picked]
    if background is None:
        one_hot = F.one_hot(empty + 1, columns + 1)[..., 1:].to(scores.dtype)
        return (total + F.binary_cross_entropy_with_logits(scores, one_hot, reduction="sum")) / count
    weight = torch.ones(columns, device=scores.device, dtype=scores.dtype)
    weight[background] = EMPTY_WEIGHT
    class_part = F.cross_entropy(scores.reshape(-1, columns), empty.reshape(-1), weight)
    return class_part + total / count
