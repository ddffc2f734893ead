"""Instructions per inference on emulated ARM cores, and parity with this machine, of a list of ONNX files.

    python -m benchmarks.devices.arm64 RUN_FOLDER ...             dense, pruned and INT8 of each run
    python -m benchmarks.devices.arm64 A.onnx B.onnx ...          one group; ratios are to the first

Counts are (110 runs - 10 runs) / 100 on one thread of the real aarch64 onnxruntime under QEMU. They rank
files and kernels; they are not time, and no time is printed. Where a run folder holds no INT8 file, one is
created by static quantisation on the recorded inputs. It is used for its kernels only; its accuracy is not
measured. Needs the arm64 sandbox (make arm64).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import record, table
from edgeprune.deploy.emulation import CPUS, need_sandbox
from edgeprune.deploy.verify import verify_emulated
from edgeprune.errors import EdgepruneError, ParityError


def main() -> int:
    """Measure every file on every core, print the table, write benchmarks/results/arm64.json."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.devices.arm64", description="emulated ARM instructions and parity"
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN_FOLDER|MODEL.onnx")
    parser.add_argument("--cpu", action="append", choices=CPUS, help="only these cores; repeatable")
    parser.add_argument("--name", default="arm64", help="name of the result file")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            need_sandbox()
            for group, files in groups(args.paths, Path(scratch)):
                rows += measure(group, files, args.cpu or list(CPUS))
        except EdgepruneError as error:
            print(f"arm64: {error}", file=sys.stderr)
            return error.exit_code
    shown = [{**row, **{k: f"{row[k]:.3f}" for k in ("M instructions", "share of first")}} for row in rows]
    columns = ["model", "file", "core", "M instructions", "share of first", "max |difference|", "top-1"]
    print(table(shown, columns))
    print(f"emulated instructions an inference, batch 1, one thread; {record(args.name, rows)}")
    return 0 if all(row["agrees"] for row in rows) else 1


def groups(paths: list[Path], scratch: Path) -> list[tuple[str, list[tuple[str, Path, Path | None]]]]:
    """Name, then (label, file, recorded inputs) with the one to compare with first."""
    found = []
    plain: list[tuple[str, Path, Path | None]] = [(p.stem, p, None) for p in paths if not p.is_dir()]
    if plain:
        found.append(("files", plain))
    for folder in (p for p in paths if p.is_dir()):
        golden = folder / "golden.npz"
        plain_file, ready = folder / "model-float.onnx", [folder / "model.onnx"]
        if not plain_file.exists():  # the run shipped a float file; its 8-bit form, if any, is in the front
            plain_file, ready = folder / "model.onnx", sorted((folder / "front").glob("shipped-int8.onnx"))
        files: list[tuple[str, Path, Path | None]] = [
            ("dense", folder / "dense.onnx", golden),
            ("pruned", plain_file, golden),
        ]
        files.append(("INT8", ready[0] if ready else quantised(plain_file, golden, scratch), golden))
        found.append((folder.name, files))
    return found


def quantised(model: Path, golden: Path, scratch: Path) -> Path:
    """Static QDQ quantisation on the recorded inputs: signed bytes, weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Recorded(CalibrationDataReader):  # type: ignore[misc]  # untyped base class
        def __init__(self) -> None:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
            with np.load(golden) as arrays:
                feeds = {i.name: arrays[f"input_{n}"] for n, i in enumerate(session.get_inputs())}
            self.turns = iter([feeds])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.turns, None)

    folder = Path(tempfile.mkdtemp(dir=scratch))
    logging.disable(logging.WARNING)  # advice of the quantiser that is followed here
    try:
        quant_pre_process(str(model), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
        quantize_static(
            str(folder / "prepared.onnx"),
            str(folder / "int8.onnx"),
            Recorded(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    return folder / "int8.onnx"


def measure(group: str, files: list[tuple[str, Path, Path | None]], cpus: list[str]) -> list[dict[str, Any]]:
    """One row per file and core; a file that does not agree is a row that says so."""
    rows = []
    for cpu in cpus:
        first = None
        for label, file, golden in files:
            inputs = golden if golden is not None and golden.is_file() else None
            row: dict[str, Any] = {"model": group, "file": label, "core": cpu, "bytes": file.stat().st_size}
            try:
                result = verify_emulated(file, cpu, inputs=inputs)
            except ParityError as error:
                print(f"{group} {label}: {error}", file=sys.stderr)
                nothing = float("nan")
                rows.append(row | {"agrees": False, "M instructions": nothing, "share of first": nothing})
                continue
            assert result.instructions is not None
            each = result.instructions.per_inference
            first = each if first is None else first
            parity = result.parity
            row |= {"agrees": True, "M instructions": each / 1e6, "share of first": each / first}
            row |= {"max |difference|": f"{parity.max_abs:.2g}", "allowed": parity.atol}
            rows.append(row | {"top-1": parity.top1_agreement, "totals": list(result.instructions.totals)})
            print(f"{group} {label} on {cpu}: {each / 1e6:.3f} M", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
