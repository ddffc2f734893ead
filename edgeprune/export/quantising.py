"""The workshop of `quantise`: calibrated ranges, 8-bit files on demand, how far they move the outputs.

Guarantee: calibration data pass through memory one call at a time; onnxruntime.quantization runs in
child processes, and what goes wrong there is one ExportError.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import DataError, ExportError, ParityError
from edgeprune.export.channels import ChannelLoss, channel_losses
from edgeprune.export.files import load_onnx
from edgeprune.export.model_files import model_files
from edgeprune.export.onnx_nodes import QUANTISABLE
from edgeprune.export.parity import Arrays, open_session, run_session
from edgeprune.export.sensitive_layers import sensitive_layers

CHILD = Path(__file__).with_name("_quantise_child.py")
INTEGERS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger",
}  # fmt: skip
MOST_LOST = 0.25  # of a channel's own variance; beyond that its values are noise rather than steps
SUBSET = 256  # samples that output differences are taken on
AT_ONCE = 8  # files that one child builds and that lie on disk together


class RunFile:
    """A file as a function of its inputs; `optimised=False` runs the graph as written."""

    def __init__(self, path: Path, *, optimised: bool = True) -> None:
        self._path = path
        self._session = open_session(path, optimised=optimised)[0]
        self.names = tuple(output.name for output in self._session.get_outputs())

    def __call__(self, call: Arrays) -> Arrays:
        return run_session(self._session, self._path, call)


@dataclass(frozen=True)
class Difference:
    """Outputs of an 8-bit file against the float file's.

    share: mean square difference by variance, of the worst output. top1_agreement: share of samples with
    the same largest entry; None without classes. output, channel: the channel that lost most of its own
    variance, and the output that it belongs to.
    """

    share: float
    top1_agreement: float | None
    output: str
    channel: ChannelLoss

    @property
    def holds(self) -> bool:
        """Whether every channel kept what MOST_LOST allows."""
        return not self.channel.collapsed and self.channel.share <= MOST_LOST

    @property
    def text(self) -> str:
        """The worst channel in words."""
        place = f"output {self.output!r}" + (f", {self.channel.place}" if self.channel.place else "")
        if self.channel.collapsed:
            return f"{place}: its values collapse to a constant"
        return f"{place}: loses {100 * self.channel.share:.2g}% of its own variance"


class Quantiser:
    """Builds 8-bit forms of one file inside `folder`.

    Attributes:
        layers: (name, operator) of every layer; quantisable: the names that can have 8 bits.
        calls: the first calibration calls, at most SUBSET samples.
        methods: those that gave ranges; failed: the others, with the reason.
    """

    def __init__(
        self, source: Path, folder: Path, activations: str, reduce_range: bool, timeout_s: float
    ) -> None:
        if activations not in ("uint8", "int8"):
            raise ExportError(f"activations {activations!r}: unknown", tip="uint8 or int8")
        model = load_onnx(source, external_data=False)
        eight = sorted({node.op_type for node in model.graph.node} & INTEGERS)
        if eight:
            raise ExportError(
                f"{source}: is in 8 bits already, it has {', '.join(eight)}",
                tip="give the float file that it was made of",
            )
        if len(model_files(source, error=ExportError)) > 1:
            raise ExportError(
                f"{source}: its weights lie outside the file", tip="models above 2 GB stay in float"
            )
        self.source, self._folder, self._limit_s = source, folder, timeout_s
        self._until = time.monotonic() + timeout_s
        self._settings = {"activations": activations, "reduce_range": reduce_range}
        self._model = str(folder / "prepared.onnx")
        self._ranges = str(folder / "ranges.json")
        self._numbers = itertools.count()
        self._built: dict[tuple[str, frozenset[str]], Path] = {}
        layers = self._child({"step": "prepare", "source": str(source), "prepared": self._model})["layers"]
        self.layers = tuple((label, operator) for label, _, operator in layers)
        self._nodes = {label: node for label, node, _ in layers}
        self.quantisable = tuple(label for label, _, operator in layers if operator in QUANTISABLE)
        self.calls: list[Arrays] = []
        self.methods: list[str] = []
        self.failed: dict[str, str] = {}
        self._expected: list[Arrays] = []

    def calibrate(self, calibration: Iterable[Arrays], methods: Sequence[str]) -> int:
        """Take the ranges; gives the number of samples.

        Raises:
            DataError: no call at all, or one that does not fit the file.
        """
        session = open_session(self.source)[0]
        names = [i.name for i in session.get_inputs()]
        batches, samples, held = [], 0, 0
        for n, call in enumerate(calibration):
            if len(call) != len(names):
                raise DataError(f"{self.source.name} takes {len(names)} inputs; calibration gave {len(call)}")
            batches.append(self._folder / f"batch{n}.npz")
            np.savez(batches[-1], **dict(zip(names, call, strict=True)))
            count = len(call[0]) if np.ndim(call[0]) else 1
            if held < SUBSET:
                self.calls.append(tuple(np.asarray(a) for a in call))
                self._expected.append(run_session(session, self.source, self.calls[-1]))
                held += count
            samples += count
        if not batches:
            raise DataError("no calibration data for 8 bits", tip="give data with --data")
        job = {"model": self._model, "batches": [str(b) for b in batches], "methods": list(methods)}
        self.failed = self._child({"step": "calibrate", **job, "ranges": self._ranges})["failed"]
        self.methods = [name for name in methods if name not in self.failed]
        for batch in batches:
            batch.unlink()
        return samples

    def file(self, method: str, floats: Iterable[str]) -> Path:
        """The 8-bit file that keeps `floats` in float; built once."""
        return self._files(method, [frozenset(floats)])[0]

    def harm(self, method: str, names: Sequence[str]) -> dict[str, float]:
        """Output difference, as in `difference`, of files with one layer alone in 8 bits."""
        harm_of: dict[str, float] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            files = self._files(method, [frozenset(set(self.quantisable) - {n}) for n in some])
            for name, path in zip(some, files, strict=True):
                difference = self.difference(path)
                harm_of[name] = max(difference.share, difference.channel.share)
            for path in files:
                path.unlink(missing_ok=True)
            self._built = {key: path for key, path in self._built.items() if path not in files}
        return harm_of

    def sensitive(self, method: str) -> dict[str, str]:
        """Layers that should keep float unless measured harmless, with the reason; see sensitive_layers."""
        ranges = json.loads(Path(self._ranges).read_text())[method]
        prepared = load_onnx(Path(self._model), external_data=False)
        return sensitive_layers(prepared, {name: (low, high) for name, (low, high) in ranges.items()})

    def difference(self, path: Path) -> Difference:
        """How far a file's outputs are from the float file's, over the calibration calls.

        Raises:
            ExportError: no output in floating point. ParityError: an output is not finite.
        """
        run = RunFile(path)
        calls = [run(call) for call in self.calls]
        shares, same, worst = [], [], ("", ChannelLoss(None, 0, 0.0, False))
        for n, name in enumerate(run.names):
            expected, quantised = [c[n] for c in self._expected], [c[n] for c in calls]
            if expected[0].dtype.kind != "f":
                continue
            for what, side in (("the float file", expected), ("the 8-bit file", quantised)):
                if not all(np.isfinite(a).all() for a in side):
                    raise ParityError(f"{self.source.name}: output {name!r} of {what} is not finite")
            ours, theirs = ([np.asarray(a, np.float64) for a in side] for side in (expected, quantised))
            errors = sum(float(((a - b) ** 2).sum()) for a, b in zip(ours, theirs, strict=True))
            flat = np.concatenate([a.reshape(-1) for a in ours])
            shares.append(errors / max(flat.size, 1) / max(float(flat.var()), 1e-30))
            for loss in channel_losses(ours, theirs):
                if (loss.collapsed, loss.share) > (worst[1].collapsed, worst[1].share):
                    worst = name, loss
            if all(a.ndim == 2 and a.shape[1] > 1 for a in ours):
                pairs = zip(ours, theirs, strict=True)
                same.append(np.concatenate([a.argmax(1) == b.argmax(1) for a, b in pairs]).mean())
        if not shares:
            raise ExportError(f"{self.source}: no output in floating point", tip="ship the float file")
        return Difference(max(shares), float(min(same)) if same else None, *worst)

    def _files(self, method: str, sets: Sequence[frozenset[str]]) -> list[Path]:
        missing = {
            s: self._folder / f"q{next(self._numbers)}.onnx" for s in sets if (method, s) not in self._built
        }
        if missing:
            files = [{"path": str(p), "float": sorted(self._nodes[n] for n in s)} for s, p in missing.items()]
            job: dict[str, Any] = {"step": "build", "model": self._model, "ranges": self._ranges}
            self._child({**job, **self._settings, "method": method, "files": files})
            self._built |= {(method, s): p for s, p in missing.items()}
        return [self._built[method, s] for s in sets]

    def _child(self, job: Mapping[str, Any]) -> dict[str, Any]:
        left = self._until - time.monotonic()
        if left <= 0:
            raise ExportError(
                f"{self.source.name}: the {self._limit_s:g} s for 8 bits were up", tip="ship the float file"
            )
        written = self._folder / "job.json"
        written.write_text(json.dumps(job))
        what = f"onnxruntime.quantization ({job['step']})"
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(CHILD), str(written)],
                capture_output=True,
                text=True,
                timeout=left,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"{self.source.name}: {what} took longer than the {self._limit_s:g} s for 8 bits",
                tip="calibrate on fewer samples",
            ) from None
        if done.returncode == 0:
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return answer
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1] if lines else "no message"
        if done.returncode < 0:
            why = f"ended by {signal.Signals(-done.returncode).name}; {why}"
        raise ExportError(f"{self.source.name}: {what} failed: {why[:300]}", tip="ship the float file")
