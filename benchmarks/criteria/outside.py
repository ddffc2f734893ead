"""Torch-Pruning's importances as controls from outside, on the same checkpoint, sizes and recovery.

    pip install --no-deps torch-pruning==1.6.1

Torch-Pruning's own grouping gives each group's importance. The values are assigned to the components that
hold the group's root channels; removal, recovery and measurement are the same for every criterion, and only
the choice of channels is Torch-Pruning's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgeprune.coupling.components import Couplings
from edgeprune.criteria.base import rank_in_groups


@dataclass(frozen=True)
class Subject:
    """What Torch-Pruning is shown: the network, its training arrays and its couplings here."""

    net: torch.nn.Module
    train: tuple[np.ndarray, np.ndarray]
    couplings: Couplings
    calibration: int  # samples that gradients are taken from


def outside_rank(criterion: str, subject: Subject, seed: int) -> np.ndarray:
    """Removal order of `tp-l2`, `tp-taylor` or `tp-bn-scale`.

    Raises:
        SystemExit: Torch-Pruning is not installed, or left a component without a value.
    """
    try:
        import torch_pruning as tp
    except ImportError:
        raise SystemExit("torch-pruning is missing; pip install --no-deps torch-pruning==1.6.1") from None
    net, importance = prepared(criterion, subject, seed)
    example = torch.from_numpy(subject.train[0][:2])
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=example)
    names = {module: name for name, module in net.named_modules()}
    couplings = subject.couplings
    component = np.full(couplings.count, np.nan)
    classifier = [m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1:]
    kinds = (tp.function.prune_conv_out_channels, tp.function.prune_linear_out_channels)
    for group in graph.get_all_groups(
        ignored_layers=classifier, root_module_types=[torch.nn.Conv2d, torch.nn.Linear]
    ):
        values = importance(group)
        if values is None:
            continue
        _assign(group, values.detach().double().numpy(), names, kinds, couplings, component)
    if np.isnan(component).any():
        raise SystemExit(f"{criterion}: no value for {int(np.isnan(component).sum())} components")
    return rank_in_groups(couplings, component)


def prepared(criterion: str, subject: Subject, seed: int) -> tuple[torch.nn.Module, Any]:
    """A copy of the network, with gradients where these are read, and Torch-Pruning's importance."""
    import torch_pruning as tp

    net = copy.deepcopy(subject.net).eval()
    importance = {
        "tp-l2": tp.importance.GroupMagnitudeImportance(p=2),
        "tp-taylor": tp.importance.GroupTaylorImportance(),
        "tp-bn-scale": tp.importance.BNScaleImportance(),
    }[criterion]
    if criterion == "tp-taylor":
        _accumulate(net, subject, seed)
    return net, importance


def _assign(
    group: Any, values: np.ndarray, names: dict[Any, str], kinds: Any, couplings: Any, component: np.ndarray
) -> None:
    """Give each output channel's importance to the component that holds it."""
    for dependency, indices in group:
        weight = f"{names.get(dependency.target.module, '')}.weight"
        if dependency.handler not in kinds or weight not in couplings.aliases:
            continue
        channel_map = couplings.tensors[couplings.aliases[weight]][0]
        vector = couplings.channel_maps[channel_map]
        for position, channel in enumerate(indices[: len(values)]):
            if vector[channel] >= 0:
                component[vector[channel]] = values[position]
        return


def _accumulate(net: torch.nn.Module, subject: Subject, seed: int) -> None:
    """Gradients of the cross-entropy on the calibration samples of this seed."""
    chosen = np.random.default_rng(seed).permutation(len(subject.train[1]))[: subject.calibration]
    for part in np.array_split(chosen, max(1, len(chosen) // 128)):
        x, y = (torch.from_numpy(a[part]) for a in subject.train)
        F.cross_entropy(net(x), y, reduction="sum").div(len(chosen)).backward()
