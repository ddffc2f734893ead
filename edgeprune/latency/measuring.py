"""Measure a network's layers at many widths on a machine, and keep what was measured.

The network is run whole, at some hundred sets of widths drawn at random, and every operator is timed
where it stands (timer.py): one run of one network gives a point for each of its layers, fused as in
the real thing, in the same memory layout, with caches as cold or warm as they will be. A layer in a
file of its own has reorders around it that the network has not, and its weights stay in the cache.

Guarantees: points are written as they come and an interrupted profile is taken up again; every lot of
networks runs beside the dense one, which takes the machine's drift out; no time of an emulated machine
is ever kept. Elsewhere: what becomes of the answers (collecting), the file (profiles), whether it may be
used (profile_compatibility), predicting (costs).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.deploy.remote import Board
from edgeprune.errors import BenchError, DeviceError
from edgeprune.graph.module import state_tensors
from edgeprune.graph.trace import Trace
from edgeprune.latency.collecting import Collected
from edgeprune.latency.profiles import Profile, read_profile, write_profile
from edgeprune.latency.resizing import BLOB, Resizable, keep_shares
from edgeprune.latency.sites import find_sites
from edgeprune.measure.host import RUNNER, read_answer
from edgeprune.measure.runner import machine
from edgeprune.records import Target
from edgeprune.targets.matching import match

TIMER = Path(__file__).with_name("timer.py")
TOGETHER, CALLS = 5, 4  # networks that take turns with the dense one; such lots in one process
OnProgress = Callable[[int, int], None]


def profile_model(
    traced: Trace,
    couplings: Couplings,
    *,
    target: Target,
    path: Path | None = None,
    board: Board | None = None,
    threads: int = 1,
    networks: int = 160,
    seconds: float = 120.0,
    name: str = "model",
    seed: int = 0,
    progress: OnProgress | None = None,
) -> Profile:
    """Measure `networks` sets of widths for about `seconds`, on this machine or on a board.

    Args:
        path: where the profile is kept; an unfinished one of the same request is taken up again.
        threads: intra-op threads, and cores that the process is bound to.

    Raises:
        BenchError: a model without layers, a machine that is surely not the target, or a file in the way
            that is no such profile.
        DeviceError: the board is not fit, not of the target's architecture, or emulated: then nothing
            is written, since an emulator's times mean nothing.
    """
    if threads < 1 or networks < 1 or not seconds > 0:
        raise BenchError(f"threads {threads}, networks {networks}, seconds {seconds}: all are above zero")
    if board is not None:
        board.require_fit(target.arch)
    elif _machine_family() != target.arch:
        raise BenchError(
            f"target {target.name} is {target.arch}, this machine is {_machine_family()}",
            tip="name the board with --board, or plan from the descriptor (an estimate)",
        )
    else:
        _doubts(target, machine(), "this machine")
    design = [np.zeros(couplings.count, bool), *draw_widths(couplings, networks, seed)]
    request = _identity(traced, target, board, threads, networks, seed)
    earlier = _earlier(path, request)
    if earlier is not None and earlier.complete:
        return earlier
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        folder = Path(scratch)
        network = Resizable(traced, couplings, folder)
        sites = find_sites(network)
        if not sites:
            raise BenchError("the model has no layer with weights", tip="there is nothing to profile")
        collected = Collected(network, sites, traced, couplings, earlier)
        lot = TOGETHER * CALLS
        while len(collected.wholes) < len(design):
            done = len(collected.wholes)
            numbers = list(range(max(done, 1), min(max(done, 1) + lot, len(design))))
            each = seconds * TOGETHER / max(networks, 1)
            answer = _run(network, [design[n] for n in numbers], threads, each, board, folder)
            where = board.remote.destination if board else "this machine"
            if answer["emulated"]:
                raise DeviceError(
                    f"{where} is emulated ({answer['emulated']}): the network runs there at "
                    f"{len(numbers) + 1} sets of widths; an emulator's times mean nothing, so none was kept",
                    tip="plan from the target's descriptor or from instruction counts, which are estimates",
                )
            collected.warnings |= _doubts(target, answer["machine"], where)
            collected.add(answer, [couplings.kept(design[n]) for n in numbers])
            profile = collected.profile(
                target=target,
                board=board,
                threads=threads,
                model=name,
                planned=len(design),
                request=request,
            )
            if path is not None:
                write_profile(path, profile)
            if progress is not None:
                progress(len(collected.wholes), len(design))
    return profile if path is None else read_profile(path)


def draw_widths(couplings: Couplings, count: int, seed: int) -> list[BoolArray]:
    """Removals that spread over what a planner may ask for: every level, multiples of 1 to 32 and others."""
    rng = np.random.default_rng(seed)
    groups = len(couplings.group_names)
    sizes = np.bincount(couplings.group[couplings.group >= 0], minlength=groups)
    drawn = []
    for _ in range(count):
        level = rng.uniform(0.15, 1.0)
        shares = np.clip(level * np.exp(rng.normal(0, 0.4, groups)), 0.04, 1.0)
        steps = rng.choice([1, 2, 4, 8, 16, 32], size=groups, p=[0.26, 0.08, 0.16, 0.2, 0.2, 0.1])
        steps = np.where(steps * 2 > sizes, 1, steps)
        kept = np.clip(np.round(shares * sizes / steps) * steps, np.minimum(steps, sizes), sizes)
        drawn.append(keep_shares(couplings, kept / np.maximum(sizes, 1)))
    return drawn


def _run(
    network: Resizable,
    removals: Sequence[BoolArray],
    threads: int,
    seconds: float,
    board: Board | None,
    folder: Path,
) -> dict[str, Any]:
    """Time the dense network and these in one call of the timer."""
    kept = [np.array([len(e) for e in network.couplings.channel_maps], np.int64)]
    kept += [network.couplings.kept(removed) for removed in removals]
    names = [f"w{n}.onnx" for n in range(len(kept))]
    for name, counts in zip(names, kept, strict=True):
        network.write(folder / name, counts)
    flags = [f"--threads={threads}", f"--seconds={seconds}", f"--together={TOGETHER}"]
    if board is not None:
        files: dict[str, Path | bytes] = {"runner.py": RUNNER, "timer.py": TIMER, BLOB: folder / BLOB}
        files |= {name: folder / name for name in names}
        limit = 900 + 60 * seconds * CALLS
        arguments = ["timer.py", "--runner=runner.py", *flags, "--", *names]
        request = {"do": "run", "arguments": arguments, "timeout": limit, "returns": []}
        reply = board.call(request, files, timeout=limit + 120)
        return read_answer(reply["stdout"], reply["code"], reply["stderr"], "layers", error=DeviceError)
    command = [sys.executable, "-P", str(TIMER), f"--runner={RUNNER}", *flags, "--"]
    command += [str(folder / name) for name in names]
    done = subprocess.run(command, capture_output=True, text=True)
    return read_answer(done.stdout, done.returncode, done.stderr, "layers")


def _identity(
    traced: Trace, target: Target, board: Board | None, threads: int, networks: int, seed: int
) -> str:
    """What has to be equal for a profile to be taken up again."""
    nodes = [str(n.target) for n in traced.graph.graph.nodes if n.op == "call_function"]
    shapes = {name: list(t.shape) for name, t in state_tensors(traced.graph).items()}
    where = board.remote.destination if board else None
    facts = [nodes, shapes, target.name, where, threads, networks, seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _earlier(path: Path | None, request: str) -> Profile | None:
    if path is None or not path.exists():
        return None
    profile = read_profile(path)
    if profile.request != request:
        raise BenchError(
            f"{path}: holds a profile of another model, target or setting", tip="give another --output"
        )
    return profile


def _doubts(target: Target, facts: Mapping[str, Any], where: str) -> set[str]:
    """What could not be told of a machine; one that surely is not the target is refused."""
    comparison = match(target, facts)
    if comparison.refused:
        raise BenchError(
            f"{where} is not {target.name}: {'; '.join(comparison.refused)}",
            tip="leave --target out, or name the right board with --board",
        )
    return {f"{where} as {target.name}: {doubt}" for doubt in comparison.doubts}


def _machine_family() -> str:
    import platform

    name = platform.machine().lower()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name, name)
