"""Prove that a file computes elsewhere what it computes here: on an emulated core, or on a board.

A quantised file is compared with its own graph run unoptimised here, that is with its integers
simulated in floating point: x86 processors without VNNI saturate sums of products of bytes, so
their optimised integer kernels are no reference for anybody.
Guarantee: a VerifyResult is returned only when every output agrees and moves with the input
(export/parity.py judges floating-point files); it has no field for a time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgeprune.deploy.emulation import core_name, count_instructions, find_sandbox, need_sandbox
from edgeprune.deploy.remote import Board, packed
from edgeprune.errors import DeviceError, ParityError
from edgeprune.export.model_files import model_files
from edgeprune.export.parity import check_parity, judged
from edgeprune.measure import runner
from edgeprune.measure.host import RUNNER, read_answer
from edgeprune.records import ParityResult, Target, VerifyResult
from edgeprune.records.npz import read_npz

FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 0.05
InputArrays = tuple[np.ndarray, ...]


def verify_emulated(
    model: Path,
    cpu: str,
    *,
    inputs: Path | None = None,
    samples: int = 4,
    seed: int = 0,
    shapes: Sequence[str] = (),
    count: bool = True,
) -> VerifyResult:
    """Compare the outputs on an emulated core with this machine's; on request count instructions too.

    Args:
        inputs: npz with recorded inputs (input_0 ...); otherwise `samples` random ones are made.

    Raises:
        ParityError: the outputs differ by more than 1e-4 of the largest (5% for a quantised file,
            whose integer kernels round differently by design), or do not move with the input.
        DeviceError: no sandbox, unknown core, or the file does not run there.
    """
    sandbox, core = need_sandbox(), core_name(cpu)

    def execute(calls: Sequence[InputArrays]) -> list[bytes]:
        with TemporaryDirectory(prefix="edgeprune-") as scratch:
            arguments = [str(RUNNER), f"--save={scratch}/answer"]
            for n, call in enumerate(calls):
                Path(scratch, f"call{n}.npz").write_bytes(_npz(call))
                arguments.append(f"--check={scratch}/call{n}.npz")
            output = sandbox.run(core, [*arguments, "--", str(model.absolute())])
            read_answer(output, 0, "", "check", error=DeviceError)
            return [Path(scratch, f"answer{n}.npz").read_bytes() for n in range(len(calls))]

    where = f"emulated {core}"
    parity = _compare(model, where, inputs, samples, seed, shapes, execute)
    counted = count_instructions(model, core, seed=seed, shapes=shapes) if count else None
    return VerifyResult(model, where, True, parity, counted)


def verify_on_board(
    model: Path,
    board: Board,
    *,
    inputs: Path | None = None,
    samples: int = 4,
    seed: int = 0,
    shapes: Sequence[str] = (),
    architecture: str | None = None,
) -> VerifyResult:
    """Compare the outputs on the board with this machine's; arguments and errors as above."""
    facts = board.require_fit(architecture)
    names, files = packed([model])

    def execute(calls: Sequence[InputArrays]) -> list[bytes]:
        sent = {f"call{n}.npz": _npz(call) for n, call in enumerate(calls)}
        wanted = [f"answer{n}.npz" for n in range(len(calls))]
        arguments = ["--save=answer", *(f"--check={name}" for name in sent), "--", names[0]]
        _, returned = board.run_runner(arguments, {**files, **sent}, "check", returns=wanted)
        return [returned[name] for name in wanted]

    where = board.remote.destination
    parity = _compare(model, where, inputs, samples, seed, shapes, execute)
    return VerifyResult(model, where, facts["emulated"] is not None, parity, None)


def verify_for_target(model: Path, target: Target, *, count: bool = True) -> VerifyResult | str:
    """The check that `compress --target` makes by itself: a result, or the reason why none was made."""
    if target.emulated_cpu is None:
        return f"not checked on ARM: {target.name} has no emulated core"
    if find_sandbox() is None:
        return f"not checked on an emulated {target.emulated_cpu}: no arm64 sandbox here (make arm64)"
    return verify_emulated(model, target.emulated_cpu, count=count)


def is_quantised(model: Path) -> bool:
    """Whether the file holds integer kernels, by its operators."""
    import onnx

    kinds = {node.op_type for node in onnx.load(model, load_external_data=False).graph.node}
    return any("Quantize" in kind or "Integer" in kind or kind.startswith("QLinear") for kind in kinds)


def _compare(
    model: Path,
    where: str,
    inputs: Path | None,
    samples: int,
    seed: int,
    shapes: Sequence[str],
    execute: Callable[[Sequence[InputArrays]], list[bytes]],
) -> ParityResult:
    model_files(model)
    calls = _calls(model, inputs, samples, seed, shapes)
    replies = [_arrays(reply) for reply in execute(calls)]
    try:
        if is_quantised(model):
            return _quantised_parity(model, calls, replies)
        turns = iter(replies)
        return check_parity(lambda _: next(turns), model, calls, rtol=FLOAT_TOLERANCE)
    except ParityError as error:
        raise ParityError(f"{where}: {error.message}", tip=error.tip) from None


def reference_session(model: Path) -> Any:
    """The session whose outputs others are compared with; see the module's text.

    Raises:
        RunnerError: onnxruntime cannot load the file.
    """
    if not is_quantised(model):
        return runner.open_session(model, 1)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise runner.RunnerError(f"{model}: onnxruntime cannot load it: {error}") from None


def _quantised_parity(
    model: Path, calls: Sequence[InputArrays], replies: Sequence[InputArrays]
) -> ParityResult:
    """Compare with the unoptimised graph; the tolerance allows for other rounding of halves."""
    import onnxruntime

    session = reference_session(model)
    names = [item.name for item in session.get_inputs()]
    wanted = [runner.run_once(model, session, dict(zip(names, call, strict=True))) for call in calls]
    outputs = [item.name for item in session.get_outputs()]
    samples = sum(len(call[0]) if call[0].ndim else 1 for call in calls)
    runtime = f"onnxruntime {onnxruntime.__version__}, unoptimised"
    expected = [tuple(np.asarray(out) for out in call) for call in wanted]
    try:
        return judged(model.name, outputs, expected, replies, INTEGER_TOLERANCE, samples, runtime)
    except ParityError as error:
        tip = "the integer kernels there saturate or round differently: ship float"
        raise ParityError(error.message, tip=tip) from None


def _calls(
    model: Path, inputs: Path | None, samples: int, seed: int, shapes: Sequence[str]
) -> list[InputArrays]:
    """Inputs of each call in the file's order; several calls, so that outputs can be seen to move."""
    inputs_option = [f"--inputs={inputs}"] if inputs else []
    calls = []
    try:
        session = runner.open_session(model, 1)
        names = [item.name for item in session.get_inputs()]
        for n in range(1 if inputs else samples):
            settings = [*inputs_option, f"--seed={seed + n}", *(f"--shape={s}" for s in shapes)]
            feeds = runner.make_feeds(session, runner.parse([*settings, "--", str(model)]))
            calls.append(tuple(feeds[name] for name in names))
    except runner.RunnerError as error:
        raise DeviceError(str(error), tip=error.tip) from None
    return calls


def _npz(call: InputArrays) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"input_{n}": value for n, value in enumerate(call)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _arrays(reply: bytes) -> InputArrays:
    """The outputs that a board or an emulated core answered with, in order."""
    arrays = read_npz(io.BytesIO(reply), "the device's answer", DeviceError, tip="run `edgeprune doctor`")
    missing = [key for key in (f"output_{n}" for n in range(len(arrays))) if key not in arrays]
    if missing:
        raise DeviceError(f"the device's answer holds {', '.join(sorted(arrays))}, not {missing[0]}")
    return tuple(arrays[f"output_{n}"] for n in range(len(arrays)))
