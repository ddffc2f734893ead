"""A network's source, and the ways in which people save such a network."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from edgeprune.frontend.load import LoadedModel

NETS = """
import pathlib
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    def __setstate__(self, state):
        pathlib.Path("ran").touch()
        super().__setstate__(state)

def build():
    return Net()

def wide():
    net = Net()
    net.head = nn.Linear(5, 3)
    net.extra = nn.Linear(2, 2)
    return net

def fails():
    raise RuntimeError("no such dataset")

def not_a_module():
    return 3

instance = 7
"""
BUILD = {"factory": "loadnets:build", "input_shapes": [(1, 6, 6)]}


def same(loaded: LoadedModel, net: nn.Module) -> bool:
    assert loaded.module is not None
    x = torch.randn(3, 1, 6, 6)
    return torch.equal(loaded.module(x), net(x))


def write_state(net: nn.Module, form: str, path: Path) -> None:
    state = net.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "old format":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif form == "checkpoint":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif form == "data parallel":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    elif form == "compiled":
        torch.save({f"_orig_mod.{k}": v for k, v in state.items()}, path)
    else:
        torch.save(state, path)


def write_module(net: nn.Module, form: str, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "raw pickle":
            path.write_bytes(pickle.dumps(net))
        elif form == "protocol 2":
            path.write_bytes(pickle.dumps(net, protocol=2))
        elif form == "checkpoint":
            torch.save({"model": net, "epoch": 1}, path)
        else:
            torch.save(net, path, _use_new_zipfile_serialization=form != "old format")


PICKLED = ["torch.save", "old format", "raw pickle", "protocol 2", "checkpoint"]
