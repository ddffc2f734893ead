"""Nearest-neighbour estimates beside other packages, and selection, edges and elimination by themselves."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.information.timing import Row, activations, alone, compare
from edgeprune import information


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


def why_pip_has_no(package: str) -> str:
    """Return the last line in which pip says why it cannot install a package."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else "pip would install it"
