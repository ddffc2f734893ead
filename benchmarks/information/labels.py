"""Label information: against numpy.copyto and vectorised NumPy, with many classes, and how it scales."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.information.plots import plot
from benchmarks.information.timing import Row, activations, alone, compare
from benchmarks.recording import ROOT
from edgeprune import information


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
    """Many classes against ten on the same activations: the cost of a class."""
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


def numpy_scores(x: np.ndarray, labels: np.ndarray, classes: int, bins: int) -> np.ndarray:
    """The same work as `label_information` in the fastest NumPy that its author could write.

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
