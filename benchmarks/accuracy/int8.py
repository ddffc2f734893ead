"""Dense and pruned files in float and in 8 bits: accuracy, time ratios from one interleaved run, file sizes.

    python -m benchmarks.accuracy.int8            the trained networks; compresses those without a run folder
    python -m benchmarks.accuracy.int8 --net fashion_resnet --runs FOLDER
    python -m benchmarks.accuracy.int8 --table    what is measured

A run folder NET-edgeprune below --runs is used as it is; otherwise `edgeprune compress` creates one. Both
files of the run are quantised as by `edgeprune quantise`, with decisions on the validation part; accuracy
is of the test part. Where 8 bits are not faster, the causes list the operators. Writes results/int8.json.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import RESULTS, ROOT, read_result, record, table
from edgeprune.data import open_data, split
from edgeprune.errors import EdgepruneError
from edgeprune.export.quantisation import quantise
from edgeprune.export.quantisation_policy import int8_settings
from edgeprune.measure.host import run_bench
from edgeprune.measure.operators import HostTimer
from edgeprune.measure.request import BenchRequest
from edgeprune.measure.why import why
from edgeprune.records import QuantiseResult, to_json
from edgeprune.session.exporting import file_outputs
from edgeprune.session.progress import Progress
from edgeprune.targets import load_target
from edgeprune.tasks.bounds import paired_drop, share_interval
from edgeprune.tasks.classification import accuracy

FASHION = "/usr/share/datasets/fashion-mnist"
NETS = {  # data, input shape, factory
    "fashion_resnet": (FASHION, "1,28,28", "examples.nets:fashion_resnet"),
    "fashion_plain": (FASHION, "1,28,28", "examples.nets:fashion_plain"),
    "fashion_dw": (FASHION, "1,28,28", "examples.nets:fashion_dw"),
    "wearable_cnn": ("examples.wearable:data", "128,6", "examples.sequence_nets:wearable_cnn"),
    "debian_text": ("examples.debian_text:data", "int64:20", "examples.sequence_nets:debian_text"),
}
BULK = ("why", "quantised")  # of a network's details
GOAL_RATIO, GOAL_POINTS = 1 / 3, 1.0


def main() -> int:
    """Measure every network, print the table and whether the goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.int8", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--net", action="append", choices=sorted(NETS), help="repeatable")
    parser.add_argument("--runs", type=Path, default=ROOT, help="where NET-edgeprune folders are or go")
    parser.add_argument("--macs", default="3x", help="of runs made here")
    parser.add_argument("--max-drop", type=float, default=0.5, help="points that 8 bits may cost, validation")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    given = parser.parse_args()
    if given.table:
        show(*others(set()))
        return 0
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for net in given.net or NETS:
        if not (ROOT / f"examples/checkpoints/{net}.safetensors").exists():
            print(f"{net}: no trained checkpoint", file=sys.stderr)
            continue
        try:
            found, more = measure(net, run_folder(net, given), given)
        except EdgepruneError as error:
            print(f"{net}: {error}", file=sys.stderr)
            rows.append({"network": net, "file": str(error), "met": False})
            continue
        rows += found
        details[net] = more
        earlier, earlier_details = others(set(details))
        write(earlier + rows, earlier_details | details)  # a killed run keeps what it has
    show(rows, details)
    return 0


def write(rows: list[dict[str, Any]], details: dict[str, Any]) -> None:
    """The rows with verdict, causes and warnings of each network; layers and operators in the cells."""
    short = {net: {k: v for k, v in more.items() if k not in BULK} for net, more in details.items()}
    full = {net: {k: more[k] for k in BULK if k in more} for net, more in details.items()}
    record("int8", rows, details=short, cells=full)


def show(rows: list[dict[str, Any]], details: dict[str, Any]) -> None:
    """Print the table, and per network whether the goal is met and what holds it up."""
    columns = ["network", "file", "accuracy", "points lost", "time of dense float", "kB", "layers in 8 bits"]
    print(table(rows, columns))
    for net, more in details.items():
        print(f"{net}: {more['verdict']}")
        for cause in more["causes"]:
            print(f"  {cause}")


def others(measured: set[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Earlier results of networks that were not measured now; each network's four files are of one run."""
    try:
        found = read_result(RESULTS / "int8.json")
    except FileNotFoundError:
        return [], {}
    details = {
        name: more | found["cells"].get(name, {})
        for name, more in found["details"].items()
        if name not in measured
    }
    return [row for row in found["rows"] if row["network"] in details], details


def run_folder(net: str, given: argparse.Namespace) -> Path:
    """A finished run of the network."""
    named = "fashion" if net == "fashion_resnet" and (given.runs / "fashion-edgeprune").is_dir() else net
    folder = Path(given.runs) / f"{named}-edgeprune"
    if not (folder / "report.json").exists():
        data, shape, factory = NETS[net]
        command = [
            sys.executable, "-m", "edgeprune", "compress", f"examples/checkpoints/{net}.safetensors",
            "--model", factory, "--input-shape", shape, "--data", data, "--macs", given.macs,
            "--rounds", "1", "--epochs", "6", "--int8", "off", "--front", "0", "--output", str(folder),
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return folder


def measure(net: str, folder: Path, given: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Four files: rows of the table, and what was quantised, timed and found."""
    data, shape, _ = NETS[net]
    sizes = tuple(int(n) for n in shape.rpartition(":")[2].split(","))
    dataset = open_data(data, input_shapes=[sizes])
    parts = split(dataset, seed=0)
    assert dataset.labels is not None

    def scores(path: Path, indices: Any) -> Any:
        return accuracy(file_outputs(path, dataset, indices, Progress())[0], dataset.labels[indices])

    kept = folder / "model-float.onnx"
    floats = {"dense": folder / "dense.onnx", "pruned": kept if kept.exists() else folder / "model.onnx"}
    made: dict[str, QuantiseResult] = {}
    for name, path in floats.items():
        made[name] = quantise(
            path,
            (dataset.batch(part) for part in np.array_split(parts.calibration, 16)),
            folder / f"{name}-int8.onnx",
            evaluate=lambda file: 100.0 * float(scores(file, parts.validation).mean()),
            max_drop=given.max_drop,
            timer=HostTimer(seconds=3.0),
            **int8_settings(load_target("host")),
        )
    files = {
        "dense float": floats["dense"],
        "pruned float": floats["pruned"],
        "dense int8": folder / "dense-int8.onnx",
        "pruned int8": folder / "pruned-int8.onnx",
    }
    bench = run_bench(BenchRequest(tuple(files.values()), seconds=given.seconds))
    ratios = [None, *(row.ratio for row in bench.ratios)]
    base = scores(files["dense float"], parts.test)
    rows = []
    for (name, path), ratio in zip(files.items(), ratios, strict=True):
        values = scores(path, parts.test)
        share, drop = share_interval(values), paired_drop(base, values)
        quantised = made.get(name.removesuffix(" int8"))
        count = (
            f"{sum(x.quantised for x in quantised.layers)} of {len(quantised.layers)}" if quantised else ""
        )
        rows.append(
            {
                "network": net,
                "file": name,
                "accuracy": f"{share.value:.2%} [{share.low:.2%}, {share.high:.2%}]",
                "points lost": "" if ratio is None else f"{drop.value:.2f} [{drop.low:.2f}, {drop.high:.2f}]",
                "time of dense float": ""
                if ratio is None
                else f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
                "kB": f"{path.stat().st_size / 1000:.0f}",
                "layers in 8 bits": count,
                "values": {"accuracy": to_json(share), "drop": to_json(drop), "ratio": to_json(ratio)},
            }
        )
    last = ratios[-1]
    assert last is not None
    lost = paired_drop(base, scores(files["pruned int8"], parts.test)).value
    met = last.value <= GOAL_RATIO and lost <= GOAL_POINTS
    rows[-1]["met"] = met
    explained = why(BenchRequest((files["pruned float"], files["pruned int8"]), seconds=3.0))
    verdict = (
        f"pruned in 8 bits is {1 / last.value:.2f} [{1 / last.high:.2f}, {1 / last.low:.2f}] times as fast as"
        f" dense in float at {lost:.2f} points lost: 3 times at 1 point is {'met' if met else 'missed'}"
    )
    return rows, {
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "verdict": verdict,
        "causes": list(explained.causes),
        "why": to_json(explained.layers),
        "quantised": to_json(made),
        "warnings": list(bench.warnings),
        "same": to_json(bench.same),
    }


if __name__ == "__main__":
    sys.exit(main())
