"""What Torch-Pruning itself would remove: its pruner as documented, its widths and its rounding.

    pip install --no-deps torch-pruning==1.6.1

`BasePruner` (one step, the same ratio in every layer, `round_to` where asked) selects channels. They are
mapped to the components that hold them; removal, recovery and export are the same as for every other plan.
Elsewhere: its importances under our allocation (criteria.outside).
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.criteria.outside import Subject, prepared


def outside_removal(criterion: str, subject: Subject, ratio: float, round_to: int | None) -> np.ndarray:
    """Components that its pruner removes at a ratio of channels; boolean, shape (components,).

    Raises:
        SystemExit: a channel that it removes is one that stays here: the comparison would not be of one
            network.
    """
    import torch_pruning as tp

    net, importance = prepared(criterion, subject, 0)
    names = {module: name for name, module in net.named_modules()}
    classifier = [m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1:]
    pruner = tp.pruner.BasePruner(
        net,
        torch.from_numpy(subject.train[0][:2]),
        importance=importance,
        pruning_ratio=ratio,
        ignored_layers=classifier,
        round_to=round_to,
    )
    couplings = subject.couplings
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
