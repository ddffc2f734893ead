"""Masks from elsewhere: torch.nn.utils.prune, zeros in the weights, scores.

Guarantee: the same input gives the same mask, ties included. Nothing given is changed.
torch is imported only where a module has to be copied.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune.errors import MaskError
from edgeprune.masks.mask import Mask, binary

ORIG, MASK = "_orig", "_mask"


def mask_from_scores(scores: Mapping[str, Any], density: float) -> Mask:
    """Keep the best-scored share of every tensor.

    The cut is per tensor, because scores rank only within a layer: the
    round(density·n) highest of n stay, at least one; among equals the earlier index stays.

    Args:
        scores: state tensor name -> float array of the weight's shape; higher is kept.
        density: share to keep, above 0 and at most 1.

    Raises:
        MaskError: a density out of range, an empty tensor, a NaN.
    """
    if not 0.0 < density <= 1.0:
        raise MaskError(
            f"density {density:g}: out of range",
            tip="give the share of connections to keep, above 0 and at most 1",
        )
    keep = {}
    for name, array in scores.items():
        values = _floats(array)
        if not values.size or np.isnan(values).any():
            what = "NaN" if values.size else "no value"
            raise MaskError(
                f"scores of {name!r}: hold {what}", tip="every connection needs a score; -inf prunes it first"
            )
        flat = values.reshape(-1)
        count = max(1, round(density * flat.size))
        # A stable sort of the negated scores puts the earlier of two equals first.
        kept = np.zeros(flat.size, dtype=bool)
        kept[np.argsort(-flat, kind="stable")[:count]] = True
        keep[name] = kept.reshape(values.shape)
    return Mask(keep)


def mask_from_zeros(state: Mapping[str, Any]) -> Mask:
    """The mask that already sparse weights imply: exact zeros of tensors with two dimensions or more."""
    weights = {name: _floats(value) for name, value in state.items() if len(value.shape) >= 2}
    return Mask({name: values != 0 for name, values in weights.items()})


def split_prune_state(state: Mapping[str, Any]) -> tuple[dict[str, Any], Mask]:
    """Undo `torch.nn.utils.prune` in a state dict.

    Every pair `X_orig`, `X_mask` becomes one tensor `X` = X_orig · X_mask, which is what the
    pruned module computes with, and a mask of X. A name without its partner is left alone
    (spectral norm has `weight_orig` too, and an attention mask is an ordinary buffer).

    Returns:
        a state dict that fits the unpruned class, in the order of the one given, and the mask.

    Raises:
        MaskError: a pair of different shapes, values other than 0 and 1, X present beside its pair.
    """
    dense: dict[str, Any] = {}
    keep = {}
    for name, value in state.items():
        stem = name.removesuffix(ORIG)
        partner = state.get(stem + MASK) if name.endswith(ORIG) else None
        if name.endswith(MASK) and name.removesuffix(MASK) + ORIG in state:
            continue
        if partner is None:
            dense[name] = value
            continue
        if stem in state:
            raise MaskError(
                f"state dict: holds {stem!r} beside {name!r} and {stem + MASK!r}",
                tip="save module.state_dict() itself, or call torch.nn.utils.prune.remove first",
            )
        if tuple(value.shape) != tuple(partner.shape):
            raise MaskError(
                f"mask of {stem!r}: shape {tuple(partner.shape)}, but the weight has {tuple(value.shape)}",
                tip="save module.state_dict() itself",
            )
        keep[stem] = binary(stem, partner)
        dense[stem] = value * partner
    return dense, Mask(keep)


def fuse_pruned(module: Any) -> tuple[Any, Mask]:
    """A copy of a module without its `torch.nn.utils.prune` hooks, and the mask that they held.

    The copy computes what the module computes; `torch.export` then sees plain parameters.
    """
    from torch.nn.utils import prune

    # The hooks leave the product as a plain attribute; it is part of autograd's graph, so
    # deepcopy refuses it. The copy gets it detached, and prune.remove replaces it anyway.
    memo = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in part.__dict__.values()
        if hasattr(value, "grad_fn") and value.grad_fn is not None
    }
    twin = copy.deepcopy(module, memo)
    _, mask = split_prune_state(module.state_dict())
    for path, part in twin.named_modules():
        for name in [n.removesuffix(ORIG) for n in list(part._parameters) if n.endswith(ORIG)]:
            if (f"{path}.{name}" if path else name) in mask.keep:
                prune.remove(part, name)
    return twin, mask


def _floats(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)
