"""Networks that cannot be exported, or pruned: every command says what was found, where, and what to do."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
import torch
from shop import HALF, QUICK, listing

import edgeprune
from edgeprune.errors import PinnedError, TraceError

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(64, 10)


class Branch(Net):
    def forward(self, x):
        x = self.body(x)
        if x.sum() > 0:  # by value
            x = x * 2
        return self.head(x)


class Loop(Net):
    def forward(self, x):
        x = self.head(self.body(x))
        for _ in range(int(x.abs().max().item()) + 1):  # by value
            x = torch.tanh(x)
        return x


class Numpy(Net):
    def forward(self, x):
        x = self.body(x)
        x = torch.from_numpy(x.detach().numpy())  # leaves torch
        return self.head(x)


class NonZero(Net):
    def forward(self, x):
        x = self.body(x)
        kept = (x.sum(1) > -1e9).nonzero()[:, 0]  # size by value
        return self.head(x[kept])


class ToList(Net):
    def forward(self, x):
        x = self.body(x)
        return self.head(torch.tensor(x.tolist()))  # number by value


class Misfit(Net):
    def forward(self, x):
        return self.head(self.body(x).flatten(0))  # does not run


class Text(Net):
    def forward(self, x):
        return {"logits": self.head(self.body(x)), "version": "1.2"}


class Nothing(Net):
    def forward(self, x):
        self.head(self.body(x))


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(x.flatten(1))  # output


class Summed(Net):
    def forward(self, x):
        x = self.body[2](self.body[0](x).cumsum(1))  # pinned
        return x.flatten(1)
"""
UNEXPORTABLE = {
    "Branch": (
        "by the value of aten.gt, `if x.sum() > 0:", "head (78%), body (22%) can be exported",
        "export(model.body, (torch.randn(2, 1, 8, 8),)), 'body.pt2')",
    ),
    "Loop": ("by the value of aten.max", "for _ in range("),
    "Numpy": ("x.detach().numpy()", "torch.export refused Numpy"),
    "NonZero": ("aten.nonzero", "depends on the values"),
    "ToList": ("aten.item", "depends on the values"),
    "Misfit": ("does not run on its example inputs (float32 2×1×8×8)", "--input-shape"),
    "Text": ("'1.2' (a str)", "return tensors only"),
    "Nothing": ("returns no tensor",),
}  # fmt: skip
SHAPE = ("--input-shape", "1,8,8")
COMMANDS = {
    "inspect": (),
    "score": ("--criterion", "l2", "-o", "no.npz"),
    "prune": ("--criterion", "l2", "--macs", "0.5", "-o", "no.pt2"),
    "export": ("-o", "no.onnx"),
    "compress": (*QUICK, *HALF, "--data", "digits.npz", "-o", "no"),
}


@pytest.fixture(scope="module")
def nets(shop):
    """The networks as a module of the shop, with their weights; nothing else is left behind."""
    (shop.path / "badnets.py").write_text(NETS)
    sys.path.insert(0, str(shop.path))
    module = importlib.import_module("badnets")
    torch.manual_seed(0)
    for name in (*UNEXPORTABLE, "Single", "Summed"):
        torch.save(getattr(module, name)().state_dict(), shop.path / f"{name}.pt")
    known = listing(shop.path)
    yield module
    assert listing(shop.path) == known
    sys.path.remove(str(shop.path))
    del sys.modules["badnets"]


def line_of(name: str) -> str | None:
    """badnets.py:N of the marked line of a network, None where it has none."""
    lines = NETS.splitlines()
    start = lines.index(next(line for line in lines if line.startswith(f"class {name}(")))
    for number, line in enumerate(lines[start:], start + 1):
        if "  # " in line:
            return f"badnets.py:{number}"
        if number > start + 1 and line.startswith("class "):
            return None
    return None


@pytest.mark.parametrize("name", UNEXPORTABLE)
def test_a_network_that_cannot_be_exported(shop, nets, name):
    """In one line: the user's own line, the operator, what to do; code 9, nothing written."""
    words = (*UNEXPORTABLE[name], *filter(None, [line_of(name)]))
    for command, more in COMMANDS.items():
        found = shop.run(command, f"{name}.pt", "--model", f"badnets:{name}", *SHAPE, *more)
        found.refused(9, "TraceError", *words)
        assert not found.out, "what torch prints is kept off stdout, which --json needs for itself"
        assert not re.search(r"\[\d+\*?s\d+", found.err.rpartition("edgeprune:")[0]), (
            "torch's graphs are not shown"
        )


@pytest.mark.parametrize(("name", "reason"), [("Single", "output 'linear'"), ("Summed", "aten.cumsum at ")])
def test_a_network_of_which_nothing_can_be_removed(shop, nets, name, reason):
    """inspect says so and why; what would remove something refuses with the same reasons; export works."""
    asked = (f"{name}.pt", "--model", f"badnets:{name}", *SHAPE)
    where = line_of(name) if name == "Summed" else ""
    found = shop.run("inspect", *asked)
    assert found.code == 0 and "nothing can be removed from this model" in found.out
    assert f"{reason}{where}" in found.out
    for command in ("score", "prune", "compress"):
        found = shop.run(command, *asked, *COMMANDS[command])
        found.refused(18, "PinnedError", "nothing can be removed", f"{reason}{where}", "edgeprune export")
    assert shop.run("export", *asked, "-o", "whole.onnx").code == 0
    (shop.path / "whole.onnx").unlink()


def test_the_same_from_python(shop, nets, tmp_path):
    """edgeprune.compress raises the same sentences, leaves the module as it was and no folder."""
    x = torch.from_numpy(shop.x[:2])
    for name, words in UNEXPORTABLE.items():
        with pytest.raises(TraceError) as refused:
            edgeprune.compress(
                getattr(nets, name)(), example_inputs=x, macs=0.5, criterion="l2", output=tmp_path / "no"
            )
        assert words[0] in str(refused.value), str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(PinnedError, match=r"nothing can be removed.*output 'linear'"):
        edgeprune.compress(nets.Single(), example_inputs=x, macs=0.5, criterion="l2", output=tmp_path / "no")
    assert not list(tmp_path.iterdir())
