"""The shop and one finished run, made once per session."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shop import MODEL, QUICK, Outcome, Shop, open_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield open_shop(tmp_path_factory.mktemp("shop"))
    torch.set_num_threads(threads)
    sys.modules.pop("shopnet", None)


ASKED = (
    "compress", *MODEL, "--data", "digits.npz", "--macs", "0.4", "--rounds", "2", *QUICK,
    "--metric", "accuracy", "--metric", "top5", "--eval-data", "first=digits.npz",
    "--eval-data", "second=digits.npz", "--json",
)  # fmt: skip


@pytest.fixture(scope="session")
def request_of_run() -> tuple[str, ...]:
    """The command of the finished run, without its output folder."""
    return ASKED


@pytest.fixture(scope="session")
def finished(shop: Shop) -> tuple[Path, Outcome]:
    """A run folder that was never interrupted, and what its command printed."""
    outcome = shop.finish(*ASKED, "-o", "whole")
    assert outcome.code == 0, outcome.err
    json.loads(outcome.out)
    return shop.path / "whole", outcome
