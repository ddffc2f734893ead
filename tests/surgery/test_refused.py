"""What a model that torch.export refuses, or whose frames torch made itself, is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.coupling.analysis import analyse
from edgeprune.errors import TraceError
from edgeprune.graph.trace import trace


class DynamicCache:
    """Stands for the cache of a language model."""


class Caches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x):
        return {"logits": self.a(x), "past": DynamicCache()}


def test_an_output_that_torch_export_does_not_know_is_named_with_the_way_out():
    """The type, and the option that leaves a cache out."""
    with pytest.raises(TraceError, match="Caches cannot be exported: it returns a DynamicCache") as found:
        trace(Caches().eval(), (torch.randn(2, 6),))
    assert found.value.tip.startswith("set model.config.use_cache = False, or wrap it in a module")


class Guarded(nn.Module):
    """One layer without gradients, and a branch by value."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.a(x)
        x = torch.cond(x.sum() > 0, lambda t: t * 2.0, lambda t: t - 1.0, (x,))
        return self.c(self.b(x))


def test_places_are_in_files_that_a_user_can_open():
    """Frames of code that torch made itself are left out; the branch is at the user's line."""
    reasons = [p.reason for p in analyse(trace(Guarded().eval(), (torch.randn(2, 6),))).pins]
    assert not any("eval_with_key" in reason for reason in reasons)
    assert any(reason.startswith("cond at test_refused.py:") for reason in reasons)
