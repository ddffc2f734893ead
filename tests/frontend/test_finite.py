"""Weights with NaN or infinity are refused at load, by name, whichever way the model comes in."""

from __future__ import annotations

from pathlib import Path

import archives
import pytest
import torch
from loading import BUILD, write_module, write_state
from torch import nn

from edgeprune import prune_parts
from edgeprune.errors import ModelError
from edgeprune.frontend.load import from_module, load_model

VALUES = [float("nan"), float("inf"), float("-inf")]


def spoilt(net: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        net.conv.weight[0, 0, 1, 1] = value
    return net


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("form", ["state dict", "safetensors", "checkpoint"])
def test_a_state_dict_with_one_such_value_names_the_tensor(
    value: float, form: str, net: nn.Module, folder: Path
):
    """One value of 36 is enough, and the count is said."""
    write_state(spoilt(net, value), form, folder / "w")
    with pytest.raises(ModelError, match=r"conv\.weight holds (NaN|infinity) in 1 of its 36 values"):
        load_model(folder / "w", **BUILD)


def test_a_trusted_pickle_is_looked_at_too(net: nn.Module, folder: Path):
    """Trust concerns the code in the file, not its numbers."""
    write_module(spoilt(net, VALUES[0]), "torch.save", folder / "m.pt")
    with pytest.raises(ModelError, match=r"conv\.weight holds NaN"):
        load_model(folder / "m.pt", input_shapes=[(1, 6, 6)], trust_pickle=True)


@pytest.mark.parametrize("name", ["conv.weight", "norm.running_var", "head.bias"])
def test_an_exported_program_names_the_tensor(name: str, folder: Path):
    """Parameters and batch norm's statistics of a .pt2."""
    program = archives.small_program()
    with torch.no_grad():
        program.state_dict[name].view(-1)[0] = float("inf")
    torch.export.save(program, folder / "m.pt2")
    with pytest.raises(ModelError, match=f"{name} holds infinity"):
        load_model(folder / "m.pt2")


def test_a_module_from_python_names_the_tensor(net: nn.Module):
    """`from_module`, and the parts of a model that is pruned in parts."""
    with pytest.raises(ModelError, match=r"Net: conv\.weight holds NaN"):
        from_module(spoilt(net, VALUES[0]), torch.randn(2, 1, 6, 6))
    with pytest.raises(ModelError, match=r"Net: conv\.weight holds NaN"):
        prune_parts(net, torch.randn(2, 1, 6, 6))


def test_a_mask_of_minus_infinity_is_no_fault():
    """Attention masks are buffers with infinity; NaN in a buffer is a fault all the same."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, float("-inf")]))

        def forward(self, x):
            return (self.a(x) + self.mask).softmax(-1)

    masked = Masked()
    assert from_module(masked, torch.randn(2, 4)).module is not None
    masked.mask[0] = float("nan")
    with pytest.raises(ModelError, match="mask holds NaN"):
        from_module(masked, torch.randn(2, 4))


def test_a_module_without_values_is_refused():
    """Built on the meta device: shapes only."""
    with torch.device("meta"):
        hollow = nn.Linear(3, 2)
    with pytest.raises(ModelError, match="weight has a shape but no values"):
        from_module(hollow, torch.randn(2, 3))
