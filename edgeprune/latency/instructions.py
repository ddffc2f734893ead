"""Instructions of the real aarch64 runtime on an emulated core, as a ranking signal: not a time.

The network is run at a few sets of widths under the emulator's instruction counter, and a count per
multiply-add of each kind of layer, per element written and per inference is fitted to them. The cost
says `estimate` and its unit is "emulated instructions". Needs the arm64 sandbox (`make arm64`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.device.emulation import core_name, count_instructions, need_sandbox
from edgeprune.errors import BenchError
from edgeprune.latency.costs import LatencyCost
from edgeprune.latency.measuring import draw_widths
from edgeprune.latency.resizing import Resizable
from edgeprune.latency.work import Work
from edgeprune.model.trace import Trace

UNIT = "emulated instructions"


def instructions(
    traced: Trace,
    couplings: Couplings,
    cpu: str,
    *,
    networks: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyCost:
    """Emulated instructions of an inference after a removal, fitted to counts at `networks` sets of widths.

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
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as made:
        network = Resizable(traced, couplings, Path(made))
        path = Path(made) / "network.onnx"
        for n, removed in enumerate(removals):
            network.write(path, couplings.kept(removed))
            counts.append(count_instructions(path, core).per_inference)
            if progress is not None:
                progress(n + 1, len(removals))
    return fit_instructions(traced, couplings, removals, counts, core)


def fit_instructions(
    traced: Trace, couplings: Couplings, removals: Sequence[BoolArray], counts: Sequence[float], core: str
) -> LatencyCost:
    """The cost that fits these counts best, by relative error, with no negative price."""
    work = Work(traced, couplings)
    kinds = sorted({kind for kind in work.kinds if kind})
    masks = [np.array([k == kind for k in work.kinds]) for kind in kinds]

    def features(removed: BoolArray) -> npt.NDArray[np.float64]:
        amounts = work.at(removed)
        macs = [float(amounts.macs[mask].sum()) for mask in masks]
        return np.array([*macs, float(amounts.written.sum()), 1.0])

    rows = np.stack([features(removed) for removed in removals])
    wanted = np.asarray(counts, dtype=np.float64)
    prices = nnls(rows / wanted[:, None], np.ones(len(wanted)))[0]

    def predict(removed: BoolArray) -> float:
        return float(features(removed) @ prices)

    source = f"{len(wanted)} instruction counts on the emulated {core}: a ranking signal, not a time"
    return LatencyCost(predict, UNIT, source, True, predict(np.zeros(couplings.count, bool)))
