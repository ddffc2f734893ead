"""The certificate of a step: the largest output difference on real inputs.

A reference is run once and remembered, per call and per output. A step passes when every
output stays within its own tolerance: 1e-5 of the output's largest magnitude in float32,
1e-9 in float64; an integer output must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeprune.errors import TraceError
from edgeprune.graph.trace import Trace, run

Inputs = Sequence[tuple[torch.Tensor, ...]]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class Certificate:
    """Compares graphs with one reference on the same inputs.

    Raises:
        TraceError: no inputs.
    """

    def __init__(self, reference: Trace, inputs: Inputs) -> None:
        if not inputs:
            raise TraceError(
                "a certificate needs inputs to run the network on",
                tip="give at least one batch of real samples",
            )
        self.inputs = inputs
        self.expected = [_outputs(reference, x) for x in inputs]

    def gaps(self, other: Trace) -> list[float]:
        """Largest absolute difference of each output, over all inputs."""
        rows = [
            [_difference(a, b) for a, b in zip(y, _outputs(other, x), strict=True)]
            for x, y in zip(self.inputs, self.expected, strict=True)
        ]
        return [max(column) for column in zip(*rows, strict=True)]

    def allowed(self) -> list[float]:
        """What each output may differ by."""
        rows = [[_tolerated(y) for y in outputs] for outputs in self.expected]
        return [max(column) for column in zip(*rows, strict=True)]

    def verdict(self, other: Trace) -> tuple[float, str]:
        """The largest difference, and what is wrong with it; an empty text passes."""
        gaps, limits = self.gaps(other), self.allowed()
        worst = max(gaps, default=0.0)
        for gap, limit in zip(gaps, limits, strict=True):
            if not gap <= limit:
                return worst, f"undone: it changed an output by {gap:.3g}, more than {limit:.3g}"
        return worst, ""


def certify(before: Trace, after: Trace, inputs: Inputs) -> float:
    """Largest absolute difference of any output of two traces, over real inputs.

    An output that is not floating point counts as 1 where it differs; a NaN in one of
    them only counts as infinite.

    Raises:
        TraceError: no inputs.
    """
    return max(Certificate(before, inputs).gaps(after), default=0.0)


def _outputs(traced: Trace, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return run(traced.graph, inputs)


def _tolerated(output: torch.Tensor) -> float:
    if not output.is_floating_point() or not output.numel():
        return 0.0
    finite = torch.nan_to_num(output.double(), nan=0.0, posinf=0.0, neginf=0.0)
    return TOLERANCE[output.dtype] * float(finite.abs().max())


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    if not a.is_floating_point():
        return float((a != b).any())
    gap = (a.double() - b.double()).abs()
    gap[(a == b) | (a.isnan() & b.isnan())] = 0.0  # equal infinities differ by NaN
    return float(torch.nan_to_num(gap, nan=torch.inf).max())
