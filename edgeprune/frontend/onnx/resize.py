"""Resampling: PyTorch's operators where they compute the same, else a weighted sum of picked positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgeprune.frontend.onnx.table import Call, operator, refuse

NEAREST = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda at: math.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: math.floor(at + 0.5),
}


@operator("Resize", "Upsample")
def resize(call: Call) -> torch.Tensor:
    """Any mode along any axes but the first two together with others; region of interest is refused."""
    x = call.tensor(0)
    upsample = call.step.op_type == "Upsample"
    scales = call.numbers(1 if upsample else 2)
    wanted = None if upsample else call.numbers(3)
    axes = list(call.attr("axes") or range(x.dim()))
    if call.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refuse(call, "it keeps the aspect ratio")
    ratios: list[Any] = [1.0] * x.dim()
    lengths: list[Any] = list(x.shape)
    if wanted is not None and wanted.size:
        for axis, n in zip(axes, wanted.reshape(-1).tolist(), strict=True):
            same = isinstance(n, torch.SymInt) or isinstance(x.shape[axis], torch.SymInt)
            lengths[axis] = x.shape[axis] if same else int(n)
            ratios[axis] = 1.0 if same else int(n) / x.shape[axis]
    elif scales is not None and scales.size:
        for axis, ratio in zip(axes, scales.reshape(-1).tolist(), strict=True):
            ratios[axis] = ratio
            lengths[axis] = x.shape[axis] if ratio == 1 else math.floor(x.shape[axis] * ratio)
    elif upsample and call.attr("scales"):
        ratios = list(call.attr("scales"))
        lengths = [n if r == 1 else math.floor(n * r) for n, r in zip(x.shape, ratios, strict=True)]
    mode = call.attr("mode", "nearest")
    place = "asymmetric" if upsample else call.attr("coordinate_transformation_mode", "half_pixel")
    if place == "tf_crop_and_resize":
        raise refuse(call, "it crops a region of interest")
    changed = [i for i, ratio in enumerate(ratios) if ratio != 1]
    if not changed:
        return x
    plain = _plain(call, x, ratios, lengths, changed, mode, place)
    if plain is not None:
        return plain
    for axis in changed:
        x = _along(call, x, axis, ratios[axis], lengths[axis], mode, place)
    return x


def _plain(
    call: Call,
    x: torch.Tensor,
    ratios: list[Any],
    lengths: list[Any],
    changed: list[int],
    mode: str,
    place: str,
) -> torch.Tensor | None:
    """PyTorch's operator for what it computes; None for the rest."""
    dims = x.dim() - 2
    if (
        min(changed) < 2
        or dims not in (1, 2, 3)
        or call.attr("antialias", 0)
        or call.attr("exclude_outside", 0)
    ):
        return None
    size = lengths[2:]
    if mode == "nearest":
        whole = all(float(r).is_integer() for r in ratios)
        rounding = (
            "floor" if call.step.op_type == "Upsample" else call.attr("nearest_mode", "round_prefer_floor")
        )
        half = place in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        if (place == "asymmetric" and rounding == "floor") or (half and whole):
            if whole:
                return functional.interpolate(x, scale_factor=[float(r) for r in ratios[2:]], mode="nearest")
            return functional.interpolate(x, size=size, mode="nearest")
        return None
    aligned = place == "align_corners"
    half = place == "half_pixel" or (place == "pytorch_half_pixel" and all(lengths[i] > 1 for i in changed))
    exact = all(abs(lengths[i] / x.shape[i] - ratios[i]) < 1e-6 for i in changed)
    if not (aligned or (half and exact)):
        return None
    if mode == "cubic":
        if dims != 2 or call.attr("cubic_coeff_a", -0.75) != -0.75:
            return None
        return functional.interpolate(x, size=size, mode="bicubic", align_corners=aligned)
    names = {1: "linear", 2: "bilinear", 3: "trilinear"}
    return functional.interpolate(x, size=size, mode=names[dims], align_corners=aligned)


def _along(
    call: Call, x: torch.Tensor, axis: int, ratio: float, length: int, mode: str, place: str
) -> torch.Tensor:
    """One axis: each new position is a weighted sum of old ones, whose places are known early."""
    before = int(x.shape[axis])
    index, weights = taps(call, before, int(length), ratio, mode, place)
    result = None
    shape = [1] * x.dim()
    shape[axis] = int(length)
    for k in range(index.shape[1]):
        part = x.index_select(axis, torch.from_numpy(index[:, k].copy()))
        if not (weights[:, k] == 1).all():
            part = part * torch.from_numpy(weights[:, k].astype(np.float32)).reshape(shape)
        result = part if result is None else result + part
    assert result is not None
    return result


def taps(call: Call, before: int, after: int, ratio: float, mode: str, place: str) -> tuple[Any, Any]:
    """Old positions and their weights for every new position: two arrays of shape (after, taps)."""
    new = np.arange(after, dtype=np.float64)
    if place == "align_corners":
        at = new * (before - 1) / (after - 1) if after > 1 else new * 0
    elif place == "asymmetric":
        at = new / ratio
    elif place == "half_pixel_symmetric":
        adjustment = after / (ratio * before)
        centre = before / 2
        at = centre * (1 - adjustment) + (new + 0.5) / ratio - 0.5
    elif place == "pytorch_half_pixel" and after == 1:
        at = new * 0
    elif place in ("half_pixel", "pytorch_half_pixel"):
        at = (new + 0.5) / ratio - 0.5
    else:
        raise refuse(call, f"its coordinate transformation is {place}")
    if mode == "nearest":
        rounding = (
            "floor" if call.step.op_type == "Upsample" else call.attr("nearest_mode", "round_prefer_floor")
        )
        picked = np.array([NEAREST[rounding](round(float(a), 9)) for a in at])
        return np.clip(picked, 0, before - 1).astype(np.int64)[:, None], np.ones((after, 1))
    stretch = max(1.0, 1 / ratio) if call.attr("antialias", 0) else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) * stretch)
    index = np.floor(at).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weights = _kernel(np.abs(index - at[:, None]) / stretch, mode, call.attr("cubic_coeff_a", -0.75))
    if call.attr("exclude_outside", 0):
        weights = np.where((index < 0) | (index >= before), 0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    return np.clip(index, 0, before - 1), weights


def _kernel(distance: Any, mode: str, a: float) -> Any:
    """The weight at a distance: a triangle, or Keys' cubic with coefficient a."""
    if mode == "linear":
        return np.clip(1 - distance, 0, None)
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


@operator("GridSample")
def grid_sample(call: Call) -> torch.Tensor:
    """Positions from a grid; two spatial dimensions or three."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = call.attr("mode", "linear")
    return functional.grid_sample(
        call.tensor(0), call.tensor(1), names.get(mode, mode), call.attr("padding_mode", "zeros"),
        bool(call.attr("align_corners", 0)),
    )  # fmt: skip
