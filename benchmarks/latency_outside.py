"""What Torch-Pruning itself would remove: its pruner as documented, its widths and its rounding.

    pip install --no-deps torch-pruning==1.6.1

`BasePruner` (one step, the same ratio in every layer, `round_to` where asked) names channels; they are
handed to the components that hold them, and removal, recovery and export are then those of everybody.
Elsewhere: its importances under our allocation (bakeoff_outside).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.bakeoff_outside import prepared

if TYPE_CHECKING:
    from benchmarks.bakeoff_net import Bench


def outside_removal(criterion: str, bench: Bench, ratio: float, round_to: int | None) -> np.ndarray:
    """Components that its pruner removes at a ratio of channels; boolean, shape (components,).

    Raises:
        SystemExit: a channel that it removes is one that stays here: the comparison would not be of one
            network.
    """
    import torch_pruning as tp

    net, importance = prepared(criterion, bench, 0)
    names = {module: name for name, module in net.named_modules()}
    classifier = [m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1:]
    pruner = tp.pruner.BasePruner(
        net,
        torch.from_numpy(bench.train[0][:2]),
        importance=importance,
        pruning_ratio=ratio,
        ignored_layers=classifier,
        round_to=round_to,
    )
    couplings = bench.couplings
    removed = np.zeros(couplings.count, bool)
    kinds = (tp.function.prune_conv_out_channels, tp.function.prune_linear_out_channels)
    for group in pruner.step(interactive=True):
        dependency, indices = next((d, i) for d, i in group if d.handler in kinds)
        channel_map = couplings.tensors[couplings.aliases[f"{names[dependency.target.module]}.weight"]][0]
        components = couplings.channel_maps[channel_map][np.asarray(indices)]
        if (components < 0).any():
            raise SystemExit(f"{criterion} removes pinned channels of {names[dependency.target.module]}")
        removed[components] = True
        group.prune()
    return removed
