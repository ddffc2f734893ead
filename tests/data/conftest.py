"""A current directory with a user's data module in it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from samples import FUNCTIONS, X, Y


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with `datafunctions.py`."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    (tmp_path / "datafunctions.py").write_text(FUNCTIONS)
    before = list(sys.path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("datafunctions", None)
