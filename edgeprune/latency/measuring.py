"""Measure a network's layers at many widths on a machine, and keep what was measured.

The network is run whole, at some hundred sets of widths drawn at random, and every operator is timed
where it stands (timer.py): one run of one network gives a point for each of its layers, fused as in
the real thing, in the same memory layout, with caches as cold or warm as they will be. A layer in a
file of its own has reorders around it that the network has not, and its weights stay in the cache.

Guarantees: points are written as they come and an interrupted profile is taken up again; every lot of
networks runs beside the dense one, which takes the machine's drift out; no time of an emulated machine
is ever kept. Elsewhere: reading and checking (profiles), predicting (costs).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.bench.host import RUNNER, read_answer
from edgeprune.bench.runner import machine
from edgeprune.bench.timings import trust_warnings
from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.device.remote import Device
from edgeprune.errors import BenchError, DeviceError
from edgeprune.latency.belonging import fingerprint
from edgeprune.latency.profiles import Layer, Point, Profile, Whole, Width, read_profile, write_profile
from edgeprune.latency.resizing import BLOB, Follows, Resizable, keep_shares
from edgeprune.latency.sites import Owners, Site, find_sites
from edgeprune.model.graph import state_tensors
from edgeprune.model.trace import Trace
from edgeprune.records import Interval, Target
from edgeprune.targets.matching import match

TIMER = Path(__file__).with_name("timer.py")
TOGETHER, CALLS = 5, 4  # networks that take turns with the dense one; such lots in one process
Progress = Callable[[int, int], None]


def profile_model(
    traced: Trace,
    couplings: Couplings,
    *,
    target: Target,
    path: Path | None = None,
    device: Device | None = None,
    threads: int = 1,
    networks: int = 160,
    seconds: float = 120.0,
    name: str = "model",
    seed: int = 0,
    progress: Progress | None = None,
) -> Profile:
    """Measure `networks` sets of widths for about `seconds`, on this machine or on a device.

    Args:
        path: where the profile is kept; an unfinished one of the same request is taken up again.
        threads: intra-op threads, and cores that the process is bound to.

    Raises:
        BenchError: a model without layers, a machine that is surely not the target, or a file in the way
            that is no such profile.
        DeviceError: the device is not fit, not of the target's architecture, or emulated: then nothing
            is written, since an emulator's times mean nothing.
    """
    if threads < 1 or networks < 1 or not seconds > 0:
        raise BenchError(f"threads {threads}, networks {networks}, seconds {seconds}: all are above zero")
    if device is not None:
        device.require_fit(target.arch)
    elif _machine_family() != target.arch:
        raise BenchError(
            f"target {target.name} is {target.arch}, this machine is {_machine_family()}",
            tip="name the board with --device, or plan from the descriptor (an estimate)",
        )
    else:
        _doubts(target, machine(), "this machine")
    design = [np.zeros(couplings.count, bool), *draw_widths(couplings, networks, seed)]
    request = _identity(traced, target, device, threads, networks, seed)
    found = _earlier(path, request)
    if found is not None and found.complete:
        return found
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as made:
        folder = Path(made)
        network = Resizable(traced, couplings, folder)
        sites = find_sites(network)
        if not sites:
            raise BenchError("the model has no layer with weights", tip="there is nothing to profile")
        collected = _Collected(network, sites, traced, couplings, found)
        lot = TOGETHER * CALLS
        while len(collected.wholes) < len(design):
            done = len(collected.wholes)
            numbers = list(range(max(done, 1), min(max(done, 1) + lot, len(design))))
            each = seconds * TOGETHER / max(networks, 1)
            answer = _run(network, [design[n] for n in numbers], threads, each, device, folder)
            where = device.remote.destination if device else "this machine"
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
                device=device,
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


class _Collected:
    """Points so far, and how to add to them."""

    def __init__(
        self,
        network: Resizable,
        sites: Sequence[Site],
        traced: Trace,
        couplings: Couplings,
        found: Profile | None,
    ) -> None:
        self.sites, self.owners = sites, Owners(network, sites)
        self.names = _width_names(couplings, state_tensors(traced.graph))
        self.network = fingerprint(traced, couplings)
        self.wholes: list[Whole] = list(found.wholes) if found else []
        self.points: list[Point] = list(found.points) if found else []
        self.lots: list[tuple[float, float]] = list(found.lots) if found else []
        self.layers: tuple[Layer, ...] = found.layers if found else ()
        self.shapes: tuple[str, ...] = found.shapes if found else ()
        self.warnings: set[str] = set(found.warnings) if found else set()
        self.machine: dict[str, Any] = dict(found.machine) if found else {}

    def add(self, answer: Mapping[str, Any], kept: Sequence[npt.NDArray[np.int64]]) -> None:
        """Take in the answer of one call; `kept` are the kept counts of its networks after the dense one."""
        if any(answer["machine"].get(name) != value for name, value in self.machine.items()):
            raise BenchError(
                "the profile was begun on another machine or runtime", tip="give another output file"
            )
        self.machine = dict(answer["machine"])
        states = answer["before"], answer["after"]
        self.warnings |= set(trust_warnings(*states, answer["cores"], answer["threads"]))
        turn = iter(kept)
        for part in answer["parts"]:
            base, *others = part
            if not self.layers:
                self._describe(base)
            wall = _middle(np.asarray(base["wall_ns"], dtype=np.float64) / 1e6).value
            self.lots.append((wall, self._total(base)))
            drift = self.lots[0][1] / self.lots[-1][1]
            if not self.wholes:
                self._take(base, [(s.inputs.dense, s.outputs.dense) for s in self.sites], drift)
            for one in others:
                counts = next(turn)
                self._take(one, [(s.inputs.at(counts), s.outputs.at(counts)) for s in self.sites], drift)

    def _take(self, one: Mapping[str, Any], widths: Sequence[tuple[int, int]], drift: float) -> None:
        wall = np.asarray(one["wall_ns"], dtype=np.float64) / 1e6
        parts, head = self.owners.split(one["nodes"])
        for layer, (pair, operators) in enumerate(zip(widths, parts, strict=True)):
            if operators:
                shape = self.shapes.index(self.layers[layer].shape)
                self.points.append(Point(shape, *pair, len(operators), _sum_ms(operators, drift)))
        before = _sum_ms(head, drift).value if head else 0.0
        widths_of = tuple((int(i), int(o)) for i, o in widths)
        lot = len(self.lots) - 1
        self.wholes.append(Whole(widths_of, _middle(wall), self._total(one), before, len(one["nodes"]), lot))

    def _total(self, one: Mapping[str, Any]) -> float:
        """All operators of a network, ms."""
        parts, head = self.owners.split(one["nodes"])
        return sum(_sum_ms(p, 1.0).value for p in [*parts, head] if p)

    def _describe(self, base: Mapping[str, Any]) -> None:
        """Name the layers and their shapes from the dense network's run."""
        parts, _ = self.owners.split(base["nodes"])
        layers = []
        for site, operators in zip(self.sites, parts, strict=True):
            own = operators[0]["inputs"][0][2:] if operators and operators[0]["inputs"] else []
            size = "x".join(map(str, own))
            after = [o["op"] for o in operators[1:] if "Reorder" not in o["op"]]
            fused = len(operators[0]["inputs"]) if operators else 0
            text = f"{site.traits} {site.inputs.dense}->{site.outputs.dense}"
            text += f" at {size}" * bool(size) + f" + {fused - 2} operand" * (fused > 2)
            text += f" then {', '.join(after)}" * bool(after)
            ends = [self._width(f) for f in (site.inputs, site.outputs)]
            layers.append(Layer(site.node, site.operator, text, *ends))
        self.layers = tuple(layers)
        self.shapes = tuple(dict.fromkeys(layer.shape for layer in layers))

    def _width(self, follows: Follows) -> Width:
        if follows.extent is None or follows.extent not in self.names:
            return Width(follows.dense)
        tensor, dim = self.names[follows.extent]
        return Width(follows.dense, tensor, dim, follows.times)

    def profile(
        self, *, target: Target, device: Device | None, threads: int, model: str, planned: int, request: str
    ) -> Profile:
        return Profile(
            target=target.name,
            device=device.remote.destination if device else None,
            machine=self.machine,
            threads=threads,
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            model=model,
            layers=self.layers,
            shapes=self.shapes,
            points=tuple(self.points),
            wholes=tuple(self.wholes),
            lots=tuple(self.lots),
            planned=planned,
            warnings=worst_of_each(self.warnings),
            request=request,
            network=self.network,
        )


def worst_of_each(warnings: Iterable[str]) -> tuple[str, ...]:
    """One warning of each kind, which is what stands before the colon: that of the largest number."""
    found: dict[str, str] = {}
    for text in sorted(warnings, key=lambda text: (len(text), text)):
        found[text.partition(":")[0]] = text
    return tuple(sorted(found.values()))


def _run(
    network: Resizable,
    removals: Sequence[BoolArray],
    threads: int,
    seconds: float,
    device: Device | None,
    folder: Path,
) -> dict[str, Any]:
    """Time the dense network and these in one call of the timer."""
    kept = [np.array([len(e) for e in network.couplings.extents], np.int64)]
    kept += [network.couplings.kept(removed) for removed in removals]
    names = [f"w{n}.onnx" for n in range(len(kept))]
    for name, counts in zip(names, kept, strict=True):
        network.write(folder / name, counts)
    flags = [f"--threads={threads}", f"--seconds={seconds}", f"--together={TOGETHER}"]
    if device is not None:
        files: dict[str, Path | bytes] = {"runner.py": RUNNER, "timer.py": TIMER, BLOB: folder / BLOB}
        files |= {name: folder / name for name in names}
        limit = 900 + 60 * seconds * CALLS
        arguments = ["timer.py", "--runner=runner.py", *flags, "--", *names]
        request = {"do": "run", "arguments": arguments, "timeout": limit, "returns": []}
        reply = device.call(request, files, timeout=limit + 120)
        return read_answer(reply["stdout"], reply["code"], reply["stderr"], "layers", error=DeviceError)
    command = [sys.executable, "-P", str(TIMER), f"--runner={RUNNER}", *flags, "--"]
    command += [str(folder / name) for name in names]
    done = subprocess.run(command, capture_output=True, text=True)
    return read_answer(done.stdout, done.returncode, done.stderr, "layers")


def _sum_ms(operators: Sequence[Mapping[str, Any]], drift: float) -> Interval:
    """Time of operators that run after each other; the profiler counts whole microseconds, rounded down."""
    runs = min(len(o["us"]) for o in operators)
    total = np.sum([np.asarray(o["us"][:runs], dtype=np.float64) + 0.5 for o in operators], axis=0)
    return _middle(total / 1e3 * drift)


def _middle(samples: npt.NDArray[np.float64]) -> Interval:
    """Mean of the samples between the 10th and the 60th percentile, which interruptions do not reach.

    The interval is the median's, by order statistics; it holds the estimate in any case.
    """
    ordered = np.sort(samples)
    n = len(ordered)
    low, high = int(0.1 * n), max(int(0.1 * n) + 1, round(0.6 * n))
    value = float(ordered[low:high].mean())
    half = 0.98 * n**0.5
    bounds = [ordered[int(np.clip(n / 2 + sign * half, 0, n - 1))] for sign in (-1, 1)]
    return Interval(value, min(value, float(bounds[0])), max(value, float(bounds[1])))


def _width_names(couplings: Couplings, tensors: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    """A state tensor's dimension for each extent, to find the extent again in another analysis."""
    found: dict[int, tuple[str, int]] = {}
    for name, dims in couplings.tensors.items():
        for dim, extent in enumerate(dims):
            if extent is not None and name in tensors:
                found.setdefault(extent, (name, dim))
    return found


def _identity(
    traced: Trace, target: Target, device: Device | None, threads: int, networks: int, seed: int
) -> str:
    """What has to be equal for a profile to be taken up again."""
    nodes = [str(n.target) for n in traced.graph.graph.nodes if n.op == "call_function"]
    shapes = {name: list(t.shape) for name, t in state_tensors(traced.graph).items()}
    where = device.remote.destination if device else None
    facts = [nodes, shapes, target.name, where, threads, networks, seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _earlier(path: Path | None, request: str) -> Profile | None:
    if path is None or not path.exists():
        return None
    found = read_profile(path)
    if found.request != request:
        raise BenchError(
            f"{path}: holds a profile of another model, target or setting", tip="give another --output"
        )
    return found


def _doubts(target: Target, facts: Mapping[str, Any], where: str) -> set[str]:
    """What could not be told of a machine; one that surely is not the target is refused."""
    found = match(target, facts)
    if found.refused:
        raise BenchError(
            f"{where} is not {target.name}: {'; '.join(found.refused)}",
            tip="leave --target out, or name the right board with --device",
        )
    return {f"{where} as {target.name}: {doubt}" for doubt in found.doubts}


def _machine_family() -> str:
    import platform

    name = platform.machine().lower()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name, name)
