"""Coverage of the other bounds, simulated: bounded scores, groups, errors without a range, set measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bounds.earlier import bernstein_upper, grouped_upper, normal_upper
from edgeprune.tasks.bounds import relative_rise, set_drop
from edgeprune.tasks.bounds_approximate import mean_half_width
from edgeprune.tasks.bounds_betting import mean_upper
from edgeprune.tasks.bounds_exact import paired_upper

Array = npt.NDArray[np.float64]
Rng = np.random.Generator

SAMPLES = (30, 100, 229, 1000, 3000, 10_000)
GROUPS = (2, 3, 8, 20, 50, 200)
WINDOWS = 50  # samples of one group
ERROR = 0.1
LEVEL = 1 - 2 * ERROR


def repetitions(samples: int) -> int:
    return 1000 if samples <= 3000 else 500


def summary(kind: str, case: str, samples: int, truth: float, hits: dict[str, Any]) -> dict[str, Any]:
    """A row from lists of bounds: coverage of each and the mean margin above the truth, in points."""
    count = len(next(iter(hits.values())))
    row: dict[str, Any] = {"kind": kind, "case": case, "samples": samples, "nominal": 1 - ERROR}
    row |= {"repetitions": count, "loss": truth, "monte_carlo_error": math.sqrt(ERROR * (1 - ERROR) / count)}
    for name, bounds in hits.items():
        tail = f"_{name}" if name else ""
        row[f"coverage{tail}"] = float((np.asarray(bounds) >= truth).mean())
        row[f"margin{tail}"] = 100 * float(np.mean(np.asarray(bounds) - truth))
    return row


def bounded() -> Iterator[dict[str, Any]]:
    """Paired differences in -1..1: betting beside the earlier bound and empirical Bernstein."""
    cases: dict[str, tuple[Callable[[Rng, int], Array], float]] = {
        "1% of samples lose everything": (lambda rng, n: (rng.random(n) < 0.01) * 1.0, 0.01),
        "overlaps shift by 0.01 ± 0.03": (lambda rng, n: rng.uniform(-0.04, 0.06, n), 0.01),
        "10% change, half as much back": (
            lambda rng, n: np.where(rng.random(n) < 0.1, rng.uniform(-0.5, 1.0, n), 0.0),
            0.025,
        ),
    }
    for case, (draw, truth) in cases.items():
        for n in SAMPLES:
            rng = np.random.default_rng(n)
            hits: dict[str, list[float]] = {"": [], "before": [], "bernstein": []}
            for _ in range(repetitions(n)):
                values = draw(rng, n)
                hits[""].append(mean_upper(values, 1.0, ERROR))
                hits["before"].append(float(normal_upper(values.mean(), values.var(), n, ERROR)))
                hits["bernstein"].append(bernstein_upper(values, 2.0, ERROR))
            yield summary("bounded", case, n, truth, hits)


def grouped() -> Iterator[dict[str, Any]]:
    """0/1 scores of people who lose unlike shares: Student's t over groups, betting, the earlier bound."""
    cases: dict[str, tuple[Callable[[Rng, int], Array], float]] = {
        "people lose alike (2%)": (lambda rng, g: np.full(g, 0.02), 0.02),
        "people lose 4 ± 2%": (lambda rng, g: np.clip(rng.normal(0.04, 0.02, g), 0, 0.08), 0.04),
        "skewed: beta(1, 49)": (lambda rng, g: rng.beta(1, 49, g), 0.02),
        "one in ten loses 20%": (lambda rng, g: (rng.random(g) < 0.1) * 0.2, 0.02),
    }
    gain = 0.01
    for case, (draw, lost) in cases.items():
        for count in GROUPS:
            rng = np.random.default_rng(count)
            groups, truth = np.repeat(np.arange(count), WINDOWS), lost - gain
            hits: dict[str, list[float]] = {"": [], "before": [], "betting": []}
            for _ in range(1000):
                u = rng.random(len(groups))
                values = (u < draw(rng, count)[groups]) * 1.0 - (u > 1 - gain)
                by_groups = float(values.mean()) + mean_half_width(values, groups, ERROR)
                # by samples only where it decides: the bound is the larger of both
                high = by_groups
                if high < truth:
                    worse, better = int((values > 0).sum()), int((values < 0).sum())
                    high = max(high, paired_upper(len(values), worse, better, ERROR))
                hits[""].append(high)
                hits["before"].append(grouped_upper(values, groups, ERROR))
                means = values.reshape(count, WINDOWS).mean(axis=1)
                hits["betting"].append(mean_upper(means, 1.0, ERROR))
            yield summary("groups", case, count, truth, hits)


def errors() -> Iterator[dict[str, Any]]:
    """Errors without a range, 10% higher afterwards: percent of the dense mean, and of its root."""
    for root in (False, True):
        for n in SAMPLES[:-1]:
            rng = np.random.default_rng(n)
            truth = math.sqrt(1.1) - 1 if root else 0.1
            high = []
            for _ in range(1000):
                before = rng.gamma(0.5, 2.0, n) if root else rng.gamma(1.0, 1.0, n)
                after = before * rng.gamma(8, 1.1 / 8, n)
                high.append(relative_rise(before, after, level=LEVEL, root=root).high / 100)
            case = "squared errors, chi-squared (RMSE)" if root else "absolute errors, exponential (MAE)"
            yield summary("errors", case, n, truth, {"": high})


def sets() -> Iterator[dict[str, Any]]:
    """Correlation over a set, 0.9 before and 0.85 after: the jack-knife."""
    for n in SAMPLES[:-1]:
        rng = np.random.default_rng(n)
        high = []
        for _ in range(400):
            x, e, f = rng.normal(size=(3, n))
            first = 0.9 * x + math.sqrt(1 - 0.81) * e
            second = 0.85 * x + math.sqrt(1 - 0.85**2) * (0.8 * e + 0.6 * f)

            def lost(kept: npt.NDArray[np.int64], x: Array = x, a: Array = first, b: Array = second) -> float:
                return float(np.corrcoef(x[kept], a[kept])[0, 1] - np.corrcoef(x[kept], b[kept])[0, 1])

            high.append(set_drop(lost, n, level=LEVEL, span=1.0).high)
        yield summary("sets", "correlation 0.90 → 0.85", n, 0.05, {"": high})
