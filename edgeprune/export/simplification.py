"""Run onnxsim where it can do no harm.

onnxsim is optional: on files of the current exporter it changes latency by nothing measurable, and
graph simplifiers have shipped wrong outputs. So it need not be installed; it runs in a process of its
own under a time and a memory limit, its result passes onnx.checker, and the caller swaps it in only
after parity.
Guarantee: the given file is never touched and no failure raises; the record says what happened.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgeprune.errors import ExportError
from edgeprune.export.files import check_onnx, count_nodes, load_onnx, opset_of
from edgeprune.export.model_files import model_files
from edgeprune.records import SimplifyResult

CHILD = Path(__file__).with_name("_onnxsim_child.py")
LIMIT_BYTES = 2_000_000_000  # a protobuf message cannot be larger
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread maps memory for itself
OUT_OF_MEMORY = ("memoryerror", "bad_alloc", "memory alloc", "allocate memory", "failed to map segment")


def simplify(
    path: Path, *, timeout_s: float = 120, memory_mb: int = 4096, destination: Path | None = None
) -> SimplifyResult:
    """Simplify `path` into `destination` (default: NAME.simplified beside it).

    Args:
        timeout_s: wall-clock limit of the process.
        memory_mb: address-space limit of the process (RLIMIT_AS), in MiB.

    Returns:
        A record whose `path` is the candidate, or None with the reason in `note`.
    """
    destination = destination or path.with_name(path.name + ".simplified")
    started = time.perf_counter()
    before: int | None = None

    def kept(reason: str) -> SimplifyResult:
        destination.unlink(missing_ok=True)
        return SimplifyResult(None, before, None, time.perf_counter() - started, f"not simplified: {reason}")

    try:
        model = load_onnx(path, external_data=False)
        before = count_nodes(model)
        files = model_files(path, error=ExportError)
    except ExportError as e:
        return kept(e.message)
    if importlib.util.find_spec("onnxsim") is None:
        return kept("onnxsim is not installed (pip install edgeprune[simplify])")
    if len(files) > 1 or path.stat().st_size > LIMIT_BYTES:
        return kept("the weights lie outside the model file or exceed 2 GB")
    try:
        finished = subprocess.run(
            [sys.executable, "-P", str(CHILD), str(path), str(destination), str(int(memory_mb))],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return kept(f"onnxsim took longer than {timeout_s:g} s")
    except OSError as e:
        return kept(f"onnxsim could not be started: {e.strerror or e}")
    if finished.returncode != 0:
        return kept(_cause(finished, memory_mb))
    try:
        counts = json.loads(finished.stdout.splitlines()[-1])
        after = int(counts["after"])
        check_onnx(destination)
        if opset_of(load_onnx(destination)) != opset_of(model):
            return kept(
                f"onnxsim changed the opset from {opset_of(model)} to {opset_of(load_onnx(destination))}"
            )
    except ExportError as e:
        return kept(e.message)
    except (IndexError, KeyError, ValueError):
        return kept("onnxsim gave no readable answer")
    seconds = time.perf_counter() - started
    return SimplifyResult(destination, before, after, seconds, f"simplified: {before} → {after} nodes")


def _cause(finished: subprocess.CompletedProcess[str], memory_mb: int) -> str:
    """One line on why the process failed."""
    lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    if any(sign in finished.stderr.lower() for sign in OUT_OF_MEMORY):
        return f"onnxsim needed more than {memory_mb} MiB"
    if finished.returncode < 0:
        number = -finished.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"onnxsim, limited to {memory_mb} MiB, was ended by {name} ({last})"
    return f"onnxsim failed: {last}"
