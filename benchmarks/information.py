"""Time the information core against NumPy, scikit-learn and its own goals.

    python benchmarks/information.py            # everything; some minutes
    python benchmarks/information.py --only flagship,ross

One run measures both sides of every ratio in interleaved rounds and gives the
median ratio with a 95% bootstrap interval over rounds, wall time, and the
processor time of this process beside it: on a shared machine they differ. A run
of every section writes benchmarks/results/information.json (machine, versions,
command, rows); the scaling section draws docs/information-*.svg.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgeprune._core as core
import numpy as np
from information_plots import plot

from edgeprune import information

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "information.json"
Row = dict[str, Any]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int, **facts: Any
) -> Row:
    """Time both calls in interleaved rounds after one warm-up; ratios are ours / theirs."""
    ours(), theirs()
    pairs = [(timed(theirs), timed(ours)) for _ in range(rounds)]
    row = {
        "name": name,
        "rounds": rounds,
        "ours_wall_s": float(np.median([o[0] for _, o in pairs])),
        "ours_cpu_s": float(np.median([o[1] for _, o in pairs])),
        "theirs_wall_s": float(np.median([t[0] for t, _ in pairs])),
        "theirs_cpu_s": float(np.median([t[1] for t, _ in pairs])),
        # What either side takes when nobody else has the processors; rounds meet such moments or do not.
        "least_wall_ratio": min(o[0] for _, o in pairs) / min(t[0] for t, _ in pairs),
        **facts,
    }
    for kind, at in (("wall", 0), ("cpu", 1)):
        ratios = np.array([o[at] / t[at] for t, o in pairs])
        draws = np.random.default_rng(0).choice(ratios, (2000, rounds))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        row[f"{kind}_ratio"] = {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}
    return row


def alone(name: str, call: Callable[[], object], rounds: int, **facts: Any) -> Row:
    """Time one call after a warm-up; the median and the least of its rounds."""
    call()
    runs = [timed(call) for _ in range(rounds)]
    return {
        "name": name,
        "rounds": rounds,
        "ours_wall_s": float(np.median([w for w, _ in runs])),
        "ours_cpu_s": float(np.median([c for _, c in runs])),
        "least_wall_s": min(w for w, _ in runs),
        **facts,
    }


def activations(samples: int, channels: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make float32 activations, half of them through a ReLU, some knowing the label; quick to make."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((min(samples, 5000), channels), dtype=np.float32)
    labels = rng.integers(0, classes, samples)
    x = np.empty((samples, channels), np.float32)
    for first in range(0, samples, len(base)):
        part = x[first : first + len(base)]
        np.multiply(np.roll(base, first // 7, axis=1)[: len(part)], 1 + first / samples / 10, out=part)
        part += (labels[first : first + len(part), None] / classes * np.linspace(0, 1, channels)).astype(
            np.float32
        )
    np.maximum(x[:, ::2], 0, out=x[:, ::2])
    return x, labels


def numpy_scores(x: np.ndarray, labels: np.ndarray, classes: int, bins: int) -> np.ndarray:
    """Do the same work as `label_information` with the fastest NumPy that its author could write.

    64 channels at a time: upper 16 bits of each float transposed in pieces that fit a cache, edges by
    np.sort of the same sketch (np.partition of 63 ranks takes ten times as long), a table from upper
    bits to codes filled in runs, one take and one bincount per channel, all else for the 64 together.
    """
    samples, channels = x.shape
    width, piece, codes = 64, 512, bins + 1
    rows = information.sketch_rows(samples, 2048)
    ranks = np.arange(1, bins) * len(rows) // bins
    base = labels.astype(np.int64) * codes
    n_y = np.bincount(labels, minlength=classes)
    f = np.arange(samples + 1, dtype=np.float64)
    f[1:] *= np.log(f[1:])
    constant = f[samples] - f[n_y].sum()
    cells = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    positive, negative = cells[:0x7F80], cells[0xFF7F:0x7FFF:-1]  # ascending
    upper = x.view(np.uint16).reshape(samples, channels, 2)[:, :, 1]
    own = np.empty((width, samples), np.uint16)
    table = np.zeros(65536, np.int64)
    index = np.empty(samples, np.int64)
    counts = np.empty((width, classes * codes), np.int64)
    scores = np.empty(channels)
    for first in range(0, channels, width):
        here = min(width, channels - first)
        for at in range(0, samples, piece):
            own[:here, at : at + piece] = upper[at : at + piece, first : first + here].T
        sketch = np.sort(x[rows, first : first + here].T, axis=1)[:, ranks]
        edges = np.sort(np.pad(sketch, ((0, 0), (0, 1))), axis=1).ravel()  # and zero
        above = np.searchsorted(positive, edges).reshape(here, -1)
        below = np.searchsorted(negative, edges).reshape(here, -1)
        above = np.diff(above, prepend=0, append=len(positive), axis=1)
        below = np.diff(below, prepend=0, append=len(negative), axis=1)
        for c in range(here):
            table[:0x7F80] = np.repeat(np.arange(codes), above[c])
            table[0xFF7F:0x7FFF:-1] = np.repeat(np.arange(codes), below[c])
            np.take(table, own[c], out=index, mode="wrap")
            np.add(index, base, out=index)
            counts[c] = np.bincount(index, minlength=counts.shape[1])
        part = counts[:here].reshape(here, classes, codes)
        n_b = part.sum(axis=1)
        joint = f[part].sum(axis=(1, 2)) - f[n_b].sum(axis=1) + constant
        cells_used = np.count_nonzero(part, axis=(1, 2))
        bias = cells_used - np.count_nonzero(n_b, axis=1) - np.count_nonzero(n_y) + 1
        scores[first : first + here] = joint / samples - bias / (2 * samples)
    return scores


def flagship(rounds: int) -> list[Row]:
    """50,000 x 4,096 float32, K = 10, 64 bins and zero, from activations to scores, against numpy.copyto."""
    samples, channels, classes = 50_000, 4096, 10
    x, labels = activations(samples, channels, classes)
    target = np.zeros_like(x)
    rows = []
    for k, width in ((classes, channels), (1000, channels)):
        y = labels if k == classes else np.random.default_rng(1).integers(0, k, samples)
        wide, copy = x[:, :width], target[:, :width]
        row = compare(
            f"label information, K = {k}, {width} channels, against copyto",
            lambda y=y, k=k, wide=wide: information.label_information(wide, y, bins=64, classes=k, threads=2),
            lambda wide=wide, copy=copy: np.copyto(copy, wide),
            rounds,
            goal="wall ratio at most 2.5" if k == classes else "",
            shape=[samples, width],
        )
        for kind in ("ours_wall", "ours_cpu", "theirs_wall"):
            row[f"{kind}_ns_per_value"] = row[f"{kind}_s"] / wide.size * 1e9
        rows.append(row)
    part = np.ascontiguousarray(x[:, :256])
    ours = information.label_information(part, labels, bins=64, classes=classes)
    difference = float(np.abs(ours - numpy_scores(part, labels, classes, 64)).max())
    for threads in (2, 1):  # NumPy has one
        rows.append(
            compare(
                f"label information against vectorised NumPy, 256 channels, threads = {threads}",
                lambda threads=threads: information.label_information(
                    part, labels, bins=64, classes=classes, threads=threads
                ),
                lambda: numpy_scores(part, labels, classes, 64),
                max(3, rounds // 2),
                goal="wall ratio at most 1/20" if threads == 2 else "",
                shape=list(part.shape),
                largest_difference_nats=difference,
            )
        )
    return rows


def classes(rounds: int) -> list[Row]:
    """Many classes against ten on the same activations: what a class costs by itself."""
    x, ten = activations(50_000, 4096, 10)
    rows = []
    for k in (100, 1000):
        many = np.random.default_rng(1).integers(0, k, len(x))
        rows.append(
            compare(
                f"label information, K = {k} against K = 10",
                lambda k=k, many=many: information.label_information(x, many, bins=64, classes=k, threads=2),
                lambda: information.label_information(x, ten, bins=64, classes=10, threads=2),
                rounds,
                goal="the same cost" if k == 1000 else "",
                shape=list(x.shape),
            )
        )
    return rows


def many(rounds: int) -> list[Row]:
    """What a thousand classes cost other calls than plain label information: K = 1000 beside K = 10."""
    rounds = max(3, rounds // 2)
    samples, channels = 50_000, 32
    x, ten = activations(samples, channels, 10, seed=7)
    thousand = np.random.default_rng(1).integers(0, 1000, samples)
    codes, few = information.quantize(x, 64), information.quantize(x, 7)
    rng = np.random.default_rng(8)
    weights, steps = rng.normal(size=(9, channels)).astype(np.float32), np.full(9, 0.4, np.float32)
    calls: dict[str, Callable[[np.ndarray, int], object]] = {
        "label information with the shuffle": lambda y, k: information.label_information(
            x, y, bins=64, classes=k, correction="shuffle", threads=2
        ),
        "JMI, 8 of 32 channels": lambda y, k: information.jmi_selection(few, y, 8, classes=k, threads=2),
        "edge information": lambda y, k: information.edge_information(
            x, y, weights, steps, classes=k, threads=2
        ),
    }
    rows = [
        compare(
            f"{name}, K = 1000 against K = 10",
            lambda call=call: call(thousand, 1000),
            lambda call=call: call(ten, 10),
            rounds,
            shape=[samples, channels],
        )
        for name, call in calls.items()
    ]
    rows.append(
        compare(
            "the shuffle against Miller-Madow, K = 1000",
            lambda: information.label_information(
                x, thousand, bins=64, classes=1000, correction="shuffle", threads=2
            ),
            lambda: information.label_information(x, thousand, bins=64, classes=1000, threads=2),
            rounds,
            shape=[samples, channels],
        )
    )
    counts = information.joint_counts(codes, thousand, 1000)
    rows.append(
        alone(
            "p-values of 32 channels by 999 permutations, K = 1000",
            lambda: information.p_values(counts, threads=2),
            3,
            shape=[samples, channels],
        )
    )
    return rows


def ross(rounds: int) -> list[Row]:
    """Ross (2014) against the same estimator in scikit-learn."""
    from sklearn.feature_selection import mutual_info_classif

    x, labels = activations(50_000, 8, 10, seed=2)
    x = x[:, 1::2].copy()  # continuous channels
    return [
        compare(
            "Ross against mutual_info_classif, 50,000 x 4",
            lambda: information.ross_information(x, labels, threads=2),
            lambda: mutual_info_classif(x, labels, random_state=0),
            max(3, rounds // 2),
            goal="wall ratio at most 1/40",
        )
    ]


def why_pip_has_no(package: str) -> str:
    """Return the last line in which pip says why it cannot install a package."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else "pip would install it"


def others(rounds: int) -> list[Row]:
    """Other packages' nearest-neighbour estimates of I between two real variables, where they install."""
    rows: list[Row] = []
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2000, 1))
    y = 0.75 * x + np.sqrt(1 - 0.75**2) * rng.normal(size=x.shape)

    def add(package: str, call: Callable[[], float]) -> None:
        rows.append(
            compare(
                f"mixed KSG, 2,000 pairs, k = 3, against {package}",
                lambda: information.mixed_information(x, y, neighbours=3, threads=1),
                call,
                rounds,
                version=importlib.metadata.version(package),
                truth_nats=float(-0.5 * np.log(1 - 0.75**2)),
                ours_nats=float(information.mixed_information(x, y, neighbours=3)[0]),
                theirs_nats=float(call()),
            )
        )

    # This folder has a coverage.py, which numba would take for the package of that name.
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    try:
        import npeet_plus

        add("npeet-plus", lambda: npeet_plus.mi(x, y, k=3, base=np.e))
    except ImportError as error:
        rows.append({"name": "npeet-plus", "note": f"does not import: {error}"})
    try:
        import infomeasure

        add("infomeasure", lambda: infomeasure.mutual_information(x[:, 0], y[:, 0], approach="ksg", k=3))
    except ImportError as error:
        rows.append({"name": "infomeasure", "note": f"does not import: {error}"})
    rows.append({"name": "gcmi", "note": why_pip_has_no("gcmi")})
    return rows


def selection(rounds: int) -> list[Row]:
    """JMI selection, per-edge scores and Gaussian elimination."""
    rounds = max(3, rounds // 2)
    x, labels = activations(50_000, 512, 10, seed=4)
    codes = information.quantize(x, 7)
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(512 * 9, 512)).astype(np.float32)
    steps = np.full(len(weights), 0.4, np.float32)
    edges = information.EdgeCounts(np.abs(x).max(axis=0), 10).update(x, labels)
    rows = [
        alone(
            "JMI: 256 of 512 channels, N = 50,000",
            lambda: information.jmi_selection(codes, labels, 256, classes=10, threads=2),
            rounds,
            goal="under 5 s",
        ),
        alone(
            "edge scores of a 512 x 512 x 3 x 3 layer",
            lambda: edges.scores(weights, steps, threads=2),
            rounds,
            goal="under 1 s",
        ),
        alone(
            "edge scores, capture included",
            lambda: information.edge_information(x, labels, weights, steps, threads=2),
            rounds,
        ),
        alone("covariance of 512 channels, N = 50,000", lambda: information.covariance(x, threads=2), rounds),
    ]
    for size in (512, 2048):
        a = rng.normal(size=(2 * size, size))
        covariance = a.T @ a / len(a) + 0.05 * np.eye(size)
        w = rng.normal(size=(size // 2, size))
        consumer = information.Consumer(covariance, w.T @ w, np.arange(size, dtype=np.int32))
        rows.append(
            alone(
                f"backward elimination of {size} channels",
                lambda consumer=consumer, size=size: information.backward_elimination(
                    [consumer], size, threads=2
                ),
                rounds,
                goal="under 1 s" if size == 512 else "",
            )
        )
    return rows


def scaling(rounds: int) -> list[Row]:
    """How label information grows from 20,000 x 1,024, 64 bins, K = 10, two threads, along each axis."""
    standard = {"N": 20_000, "C": 1024, "B": 64, "K": 10, "threads": 2}
    sweeps: dict[str, list[int]] = {
        "N": [1000, 5000, 20_000, 80_000],
        "C": [64, 256, 1024, 4096],
        "B": [8, 16, 32, 64, 128, 250],
        "K": [2, 10, 100, 1000],
        "threads": [1, 2],
    }
    rows: list[Row] = []
    for axis, points in sweeps.items():
        for point in points:
            at = {**standard, axis: point}
            x, labels = activations(at["N"], at["C"], at["K"], seed=6)
            row = alone(
                f"label information, {axis} = {point}",
                lambda x=x, labels=labels, at=at: information.label_information(
                    x, labels, bins=at["B"], classes=at["K"], threads=at["threads"]
                ),
                max(3, rounds // 2),
                axis=axis,
                point=point,
            )
            row["ns_per_value"] = row["ours_wall_s"] / x.size * 1e9
            row["cpu_ns_per_value"] = row["ours_cpu_s"] / x.size * 1e9
            rows.append(row)
        plot(axis, [r for r in rows if r["axis"] == axis], ROOT / "docs" / f"information-{axis}.svg")
    return rows


def machine() -> dict[str, Any]:
    """Describe what the times were taken on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "system": platform.system(),
    }


SECTIONS: dict[str, Callable[[int], list[Row]]] = {
    "flagship": flagship,
    "classes": classes,
    "many": many,
    "ross": ross,
    "others": others,
    "selection": selection,
    "scaling": scaling,
}


def show(row: Row) -> str:
    """Lay a row out for the terminal."""
    if "note" in row:
        return f"{row['name']:<62} {row['note']}"
    text = f"{row['name']:<62} {row['ours_wall_s']:9.3f} s wall {row['ours_cpu_s']:9.3f} s cpu"
    if "wall_ratio" in row:
        for kind in ("wall", "cpu"):
            r = row[f"{kind}_ratio"]
            text += f"  {kind} ratio {r['value']:.4g} [{r['low']:.4g}, {r['high']:.4g}]"
        text += f"  least/least {row['least_wall_ratio']:.4g}"
    return text + (f"  goal: {row['goal']}" if row.get("goal") else "")


def main() -> None:
    """Run the sections asked for and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma separated")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    record: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/information.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in ("edgeprune", "numpy", "scipy", "scikit-learn")},
        },
        "simd": core.simd_name(),
        "rows": {},
    }
    for name in options.only.split(","):
        before = os.getloadavg()
        rows = SECTIONS[name](options.rounds)
        record["rows"][name] = {
            "load_before": before,
            "load_after": os.getloadavg(),
            "rows": rows,
        }
        for row in rows:
            print(show(row), flush=True)
    if set(options.only.split(",")) != set(SECTIONS):
        print("not recorded: the record is of one run of every section")
        return
    temporary = RESULTS.with_suffix(".tmp")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, RESULTS)


if __name__ == "__main__":
    main()
