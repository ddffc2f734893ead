"""Refuse NaN and infinity before and after scoring: a comparison with NaN is always false, so no order holds.

require_finite_inputs("l2", context)          weights, and statistics where there are any
require_finite_scores("l2", context, scores)  what the criterion made of them
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.criteria.base import Context, Scores
from edgeprune.errors import CriterionError
from edgeprune.graph.module import state_tensors

WEIGHT_TIP = (
    "check the training run that wrote the weights; edgeprune never changes a weight to make it finite"
)
DATA_TIP = "check the calibration samples, and that the model runs on them without overflow"


def require_finite_inputs(criterion: str, context: Context) -> None:
    """Check the state tensors and, where there are any, the statistics.

    Raises:
        CriterionError: with the first tensor that holds NaN or infinity, and how many of its values.
    """
    for name, tensor in state_tensors(context.trace.graph).items():
        if tensor.is_floating_point() and (bad := int((~torch.isfinite(tensor)).sum())):
            _refuse(criterion, f"the tensor '{name}' holds NaN or infinity", bad, tensor.numel(), WEIGHT_TIP)
    for what, values in _statistics(context):
        if bad := int((~np.isfinite(values)).sum()):
            _refuse(criterion, f"{what} are NaN or infinite", bad, values.size, DATA_TIP)


def require_finite_scores(criterion: str, context: Context, scores: Scores) -> None:
    """Check a criterion's scores.

    Raises:
        CriterionError: with the first group, detail or weight whose scores are not finite.
    """
    couplings = context.couplings
    broken = ~np.isfinite(scores.component)
    if broken.any():
        group = couplings.group_names[int(couplings.group[np.flatnonzero(broken)[0]])]
        what = f"the scores of the components of '{group}' are NaN or infinite"
        _refuse(criterion, what, int(broken.sum()), broken.size)
    others: list[tuple[str, npt.NDArray[np.floating]]] = [
        (f"its '{name}'", values) for name, values in scores.details.items()
    ]
    others += [(f"the scores of the connections of '{name}'", v) for name, v in scores.connections.items()]
    for what, values in others:
        if bad := int((~np.isfinite(values)).sum()):
            _refuse(criterion, f"{what} are NaN or infinite", bad, values.size)


def _statistics(context: Context) -> Iterator[tuple[str, npt.NDArray[np.floating]]]:
    if context.statistics is None:
        return
    weights = {layer.node: layer.weight or layer.node for layer in context.couplings.layers}
    for node, layer in context.statistics.layers.items():
        of = f"of what '{weights.get(node, node)}'"
        yield f"the means {of} reads", layer.mean
        yield f"the second moments {of} reads", layer.second
        yield f"the slopes {of} puts out", layer.slopes
        for what, values in (("values per sample", layer.reduced), ("Taylor terms", layer.taylor)):
            if values is not None:
                yield f"the {what} {of} reads", values
    yield "the costs of silencing what other operators read", context.statistics.other_readings


def _refuse(criterion: str, what: str, bad: int, total: int, tip: str = "") -> None:
    raise CriterionError(
        f"--criterion {criterion}: cannot rank: {what} ({bad} of {total} values)",
        tip=tip or "use another criterion, such as l2, and report the model and the data",
    )
