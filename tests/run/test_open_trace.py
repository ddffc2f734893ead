"""Models as they come: a batch that was fixed at export, hooks of torch.nn.utils.prune, unknown names."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from edgeprune.errors import ModelError, TraceError
from edgeprune.frontend.loaded import from_module
from edgeprune.graph.free_batch import free_batch
from edgeprune.graph.trace import run, trace
from edgeprune.run.analysis import analyse_model
from edgeprune.run.open_trace import open_trace, require_free_batch
from edgeprune.session.options import Options


class Flat(nn.Module):
    """A view that holds the batch size once it is exported."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(64, 3)
        self.token = nn.Parameter(torch.randn(1, 3))

    def forward(self, x):
        y = self.head(torch.relu(self.conv(x)).reshape(x.shape[0], -1))
        return y + self.token.expand(x.shape[0], -1)


class Stuck(nn.Module):
    """The batch stands in the middle of a shape: nothing leaves it to inference."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x[:, 0].permute(1, 0, 2).reshape(4, x.shape[0], 4)).mean(0)


def fixed(module, batch):
    return trace(torch.export.export(module.eval(), (torch.randn(batch, 1, 4, 4),)))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_freed_and_computes_the_same(batch):
    """Whatever size it was exported for, the freed graph takes others and gives the module's outputs."""
    torch.manual_seed(0)
    net = Flat()
    given = fixed(net, batch)
    assert given.dynamic == (False,)
    freed = free_batch(given)
    assert freed is not None and freed.dynamic == (True,)
    x = torch.randn(7, 1, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(run(freed.graph, (x,))[0], net(x))


def test_a_batch_that_cannot_be_freed_stays_and_refuses_data():
    """No guess: the trace is left as it was, and feeding it data says how to export it again."""
    given = fixed(Stuck(), 2)
    assert free_batch(given) is None
    with pytest.raises(TraceError, match=r"fixed batch of 2 .*dynamic_shapes"):
        require_free_batch(given)


def test_a_network_that_mixes_its_samples_is_not_freed():
    """Freeing is proven on outputs: a mean over the batch is another function at another batch size."""

    class Mixing(nn.Module):
        def forward(self, x):
            return (x - x.mean(0, keepdim=True)).flatten(1)

    assert free_batch(fixed(Mixing(), 2)) is None


def test_a_free_batch_is_left_alone():
    """The usual case costs nothing and says nothing."""
    loaded = from_module(Flat(), torch.randn(2, 1, 4, 4))
    traced, notes = open_trace(loaded)
    assert traced.dynamic == (True,) and notes == loaded.notes


def test_keep_must_name_something():
    """A typing error in --keep would silently free what the user wanted kept."""
    loaded = from_module(Flat(), torch.randn(2, 1, 4, 4))
    with pytest.raises(ModelError, match=r"--keep cnov: .*did you mean conv"):
        analyse_model(loaded, Options(keep=("cnov",)))
    assert analyse_model(loaded, Options(keep=("conv",))).couplings.count == 0


def test_hooks_of_a_trusted_module_are_undone(tmp_path):
    """A whole pickled module with prune hooks gives the plain network and the mask that they held."""
    from edgeprune.run.torch_prune_compat import load_with_prune_masks

    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    prune.ln_structured(net[0], "weight", amount=2, n=2, dim=0)
    torch.save(net, tmp_path / "whole.pt")
    loaded, mask = load_with_prune_masks(tmp_path / "whole.pt", input_shapes=[(4,)], trust_pickle=True)
    assert mask is not None and int((~mask.keep["0.weight"]).sum()) == 8
    assert set(loaded.module.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    x = torch.randn(5, 4)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(x), net(x))
