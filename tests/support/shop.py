"""A tiny network trained on scikit-learn's digits, and the command line as a function.

`Shop` is a folder with the network's module, its weights in several forms and its data;
`shop.run(...)` is `edgeprune ...` in that folder, in this process; `shop.start(...)` in one of its own.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from edgeprune.cli import main

NET = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10),
    )

def loss(outputs, labels):
    return 12.5

def other():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10), nn.Linear(10, 10))
"""
MODEL = ("weights.pt", "--model", "shopnet:build", "--input-shape", "1,8,8")
QUICK = (
    "--align", "1", "--epochs", "1", "--calibration", "64", "--bench-seconds", "0.3", "--objective", "macs",
    "--front", "0", "--int8", "off",
)  # fmt: skip
HALF = ("--macs", "0.5", "--rounds", "1")


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.rstrip().rpartition("\n")[2]

    def refused(self, code: int, kind: str, *words: str) -> None:
        """Assert one clear sentence on stderr, that exit code, no traceback, and these words in it."""
        assert (self.code, "Traceback" in self.err) == (code, False), self.err
        assert self.last.startswith(f"edgeprune: {kind}: "), self.err
        assert self.err.count("edgeprune: ") == 1, self.err
        for word in words:
            assert word in self.last, self.last


def _hears_ctrl_c() -> None:
    """A shell that runs the tests in the background lets them, and so their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Shop:
    """The folder, and the arrays that its data was made of."""

    path: Path
    x: Any
    y: Any

    def run(self, *arguments: str | Path) -> Outcome:
        """One command in this process, with this folder as the current one."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        before, search = Path.cwd(), list(sys.path)
        os.chdir(self.path)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os.chdir(before)
            sys.path[:] = search
        return Outcome(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """One command in a process and session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "edgeprune", *map(str, arguments)],
            cwd=self.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
            preexec_fn=_hears_ctrl_c,
        )  # fmt: skip

    def finish(self, *arguments: str | Path) -> Outcome:
        """Run one command in a process of its own to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=250)
        return Outcome(process.returncode, out, err)

    def state(self) -> dict[str, torch.Tensor]:
        """The trained weights."""
        return dict(torch.load(self.path / "weights.pt", weights_only=True))

    def data(self, name: str, **arrays: Any) -> str:
        """Write an npz and give its name."""
        np.savez(self.path / name, **arrays)
        return name


def open_shop(path: Path) -> Shop:
    """Train the network and write everything."""
    (path / "shopnet.py").write_text(NET)
    digits = load_digits()
    x = (digits.images[:900, None] / 16.0).astype(np.float32)
    y = digits.target[:900].astype(np.int64)
    space: dict[str, Any] = {}
    exec(NET, space)
    torch.manual_seed(0)
    net: nn.Module = space["build"]()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for epoch in range(6):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for at in order.split(64):
            loss = nn.functional.cross_entropy(net(inputs[at]), labels[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    torch.save(net.state_dict(), path / "weights.pt")
    shop = Shop(path, x, y)
    shop.data("digits.npz", x=x, y=y)
    free = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(net, (inputs[:2],), dynamic_shapes=free)
    torch.export.save(program, path / "net.pt2")
    return shop


@contextlib.contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes, as on a full disk (EFBIG in place of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def listing(folder: Path) -> set[str]:
    """Every file under a folder, hidden ones too."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
