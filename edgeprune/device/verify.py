"""Prove that a file computes elsewhere what it computes here: on an emulated core, or on a board.

Guarantee: a VerifyResult is returned only when every output agrees and moves with the input
(onnxfile/parity.py judges); it has no field for a time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgeprune.bench import runner
from edgeprune.bench.files import model_files
from edgeprune.bench.host import RUNNER, read_answer
from edgeprune.device.emulation import core_name, count_instructions, find_sandbox, need_sandbox
from edgeprune.device.remote import Device, packed
from edgeprune.errors import DeviceError, ParityError
from edgeprune.onnxfile.parity import check_parity
from edgeprune.records import Target, VerifyResult

FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 0.05
Call = tuple[np.ndarray, ...]


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

    def execute(calls: Sequence[Call]) -> list[bytes]:
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


def verify_on_device(
    model: Path,
    device: Device,
    *,
    inputs: Path | None = None,
    samples: int = 4,
    seed: int = 0,
    shapes: Sequence[str] = (),
    architecture: str | None = None,
) -> VerifyResult:
    """Compare the outputs on the device with this machine's; arguments and errors as above."""
    facts = device.require_fit(architecture)
    names, files = packed([model])

    def execute(calls: Sequence[Call]) -> list[bytes]:
        sent = {f"call{n}.npz": _npz(call) for n, call in enumerate(calls)}
        wanted = [f"answer{n}.npz" for n in range(len(calls))]
        arguments = ["--save=answer", *(f"--check={name}" for name in sent), "--", names[0]]
        _, found = device.run_runner(arguments, {**files, **sent}, "check", returns=wanted)
        return [found[name] for name in wanted]

    where = device.remote.destination
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
    execute: Callable[[Sequence[Call]], list[bytes]],
) -> Any:
    model_files(model)
    calls = _calls(model, inputs, samples, seed, shapes)
    replies = iter([_arrays(reply) for reply in execute(calls)])
    tolerance = INTEGER_TOLERANCE if is_quantised(model) else FLOAT_TOLERANCE
    try:
        return check_parity(lambda _: next(replies), model, calls, rtol=tolerance)
    except ParityError as error:
        raise ParityError(f"{where}: {error.message}", tip=error.tip) from None


def _calls(model: Path, inputs: Path | None, samples: int, seed: int, shapes: Sequence[str]) -> list[Call]:
    """Inputs of each call in the file's order; several calls, so that outputs can be seen to move."""
    given = [f"--inputs={inputs}"] if inputs else []
    calls = []
    try:
        session = runner.open_session(model, 1)
        names = [item.name for item in session.get_inputs()]
        for n in range(1 if inputs else samples):
            settings = [*given, f"--seed={seed + n}", *(f"--shape={s}" for s in shapes)]
            feeds = runner.make_feeds(session, runner.parse([*settings, "--", str(model)]))
            calls.append(tuple(feeds[name] for name in names))
    except runner.RunnerError as error:
        raise DeviceError(str(error), tip=error.tip) from None
    return calls


def _npz(call: Call) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"input_{n}": value for n, value in enumerate(call)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _arrays(reply: bytes) -> Call:
    with np.load(io.BytesIO(reply), allow_pickle=False) as saved:
        return tuple(saved[f"output_{n}"] for n in range(len(saved.files)))
