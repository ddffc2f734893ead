"""A current directory with a user's module in it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loading import NETS
from torch import nn


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with `loadnets.py` in it, not otherwise importable."""
    (tmp_path / "loadnets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("loadnets", None)


@pytest.fixture
def net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """An instance of the folder's class whose normalisation statistics are not the initial ones."""
    monkeypatch.syspath_prepend(str(folder))
    made = importlib.import_module("loadnets").build()
    torch.manual_seed(1)
    made.train()(torch.randn(8, 1, 6, 6))
    return made.eval()
