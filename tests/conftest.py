"""What all tests share: a small trained network, one operator table for ONNX exports, who runs which file."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(scope="session", autouse=True)
def operator_table() -> Iterator[None]:
    """Let torch.onnx.export parse its operator translations once per process.

    It parses the source of all (about 500) anew for every file, which takes half of the time of exporting a
    small network. Each export gets a copy of its own. Processes that tests start have torch as it is.
    """
    export = torch.onnx.export

    def with_kept_table(*arguments: Any, **settings: Any) -> Any:
        keep_operator_table()  # here and not before: its import costs a test file without exports a second
        return export(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", with_kept_table)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file of tests to one process, as --dist loadfile does, and tests/cli to one as a whole.

    A file's fixtures are then made once; so is the finished run that the files of tests/cli share.
    """
    from xdist.scheduler import LoadScopeScheduling

    class LoadRoomScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "tests/cli" if file.startswith("tests/cli/") else file

    return LoadRoomScheduling(config, log)


@functools.cache
def keep_operator_table() -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    build = functools.cache(ONNXRegistry.from_torchlib)

    def from_torchlib(opset_version: int) -> Any:
        table = copy.copy(build(opset_version))
        table.functions = {operator: list(known) for operator, known in table.functions.items()}
        return table

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)


@pytest.fixture(scope="session")
def stripes() -> tuple[nn.Module, tuple[np.ndarray, np.ndarray]]:
    """A convolutional network on stripes of two directions, and its data."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    x = rng.normal(0, 0.3, (600, 1, 12, 12)).astype(np.float32)
    x[y == 1, :, ::3, :] += 1
    x[y == 0, :, :, ::3] += 1
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    return net.eval(), (x, y)
