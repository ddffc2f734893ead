"""Instructions of the real aarch64 runtime on an emulated core, as a ranking signal: not a time.

The network is run at a few sets of widths under the emulator's instruction counter, and a count per
multiply-add of each kind of layer, per element written and per inference is fitted to them. The cost
says `estimate` and its unit is "emulated instructions". Needs the arm64 sandbox (`make arm64`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.deploy.emulation import core_name, count_instructions, need_sandbox
from edgeprune.errors import BenchError
from edgeprune.graph.trace import Trace
from edgeprune.latency.costs import LatencyCost
from edgeprune.latency.measuring import draw_widths
from edgeprune.latency.resizing import Resizable
from edgeprune.latency.work import Work

UNIT = "emulated instructions"


@dataclass(frozen=True)
class InstructionPrices:
    """Instructions per multiply-add of each kind of layer, per element written, and per inference."""

    core: str
    networks: int
    macs: Mapping[str, float]
    written: float
    inference: float

    def cost_of(self, traced: Trace, couplings: Couplings) -> LatencyCost:
        """Emulated instructions of an inference after a removal from this network, or a smaller one."""
        work = Work(traced, couplings)
        prices = np.array([self.macs.get(kind, 0.0) for kind in work.kinds])

        def predict(removed: BoolArray) -> float:
            amounts = work.at(removed)
            arithmetic = float(amounts.macs @ prices)
            return arithmetic + self.written * float(amounts.written.sum()) + self.inference

        source = f"{self.networks} counts on the emulated {self.core}: a ranking signal, not a time"
        return LatencyCost(predict, UNIT, source, True, predict(np.zeros(couplings.count, bool)))


def instruction_prices(
    traced: Trace,
    couplings: Couplings,
    cpu: str,
    *,
    networks: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> InstructionPrices:
    """Count at `networks` sets of widths and fit.

    Raises:
        DeviceError: no sandbox, or a core that it does not emulate.
        BenchError: too few networks to fit, or one that cannot be resized.
    """
    if networks < 3:
        raise BenchError(f"networks {networks}: too few to fit", tip="give at least 3")
    need_sandbox()
    core = core_name(cpu)
    removals = [np.zeros(couplings.count, bool), *draw_widths(couplings, networks, seed)]
    counts = []
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        network = Resizable(traced, couplings, Path(scratch))
        path = Path(scratch) / "network.onnx"
        for n, removed in enumerate(removals):
            network.write(path, couplings.kept(removed))
            counts.append(count_instructions(path, core).per_inference)
            if progress is not None:
                progress(n + 1, len(removals))
    return fit_prices(traced, couplings, removals, counts, core)


def fit_prices(
    traced: Trace, couplings: Couplings, removals: Sequence[BoolArray], counts: Sequence[float], core: str
) -> InstructionPrices:
    """The prices that fit these counts best, by relative error, none negative."""
    work = Work(traced, couplings)
    kinds = sorted({kind for kind in work.kinds if kind})
    masks = [np.array([k == kind for k in work.kinds]) for kind in kinds]
    rows = []
    for removed in removals:
        amounts = work.at(removed)
        macs = [float(amounts.macs[mask].sum()) for mask in masks]
        rows.append([*macs, float(amounts.written.sum()), 1.0])
    wanted = np.asarray(counts, dtype=np.float64)
    *per_mac, written, inference = nnls(np.array(rows) / wanted[:, None], np.ones(len(wanted)))[0].tolist()
    return InstructionPrices(core, len(wanted), dict(zip(kinds, per_mac, strict=True)), written, inference)
