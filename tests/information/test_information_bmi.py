"""The nine 1 x 1 tasks of "Beyond Normal" (Czyz et al., NeurIPS 2023).

Its package, benchmark-mi 0.1.3, needs numpy < 2 and jax < 0.5, which cannot live beside this project's
numpy, so the samplers and truths are written out here from its task definitions.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from edgeprune import information

RHO = 0.75
NORMAL = -0.5 * np.log(1 - RHO**2)


def binormal(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    g = rng.normal(size=(n, 2))
    return g[:, 0], RHO * g[:, 0] + np.sqrt(1 - RHO**2) * g[:, 1]


def uniform(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = binormal(rng, n)
    return stats.norm.cdf(x), stats.norm.cdf(y)


def additive(epsilon: float):
    def sample(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.random(n)
        return x, x + rng.uniform(-epsilon, epsilon, n)

    return sample


def bimodal(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    def invert(cdf, u: np.ndarray) -> np.ndarray:
        grid = np.linspace(-12, 16, 40_001)
        return np.interp(u, cdf(grid), grid)  # any increasing map leaves the truth alone

    x, y = uniform(rng, n)
    return (
        invert(lambda z: 0.3 * stats.norm.cdf(z) + 0.7 * stats.norm.cdf(z - 5), x),
        invert(lambda z: 0.5 * stats.norm.cdf(z + 1) + 0.5 * stats.norm.cdf(z - 3), y),
    )


def wiggly(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = binormal(rng, n)
    return (
        x + 0.4 * np.sin(x) + 0.2 * np.sin(1.7 * x + 1) + 0.03 * np.sin(3.3 * x - 2.5),
        y - 0.4 * np.sin(0.4 * y) + 0.17 * np.sin(1.3 * y + 3.5) + 0.02 * np.sin(4.3 * y - 2.5),
    )


def half_cube(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = binormal(rng, n)
    return x * np.sqrt(np.abs(x)), y * np.sqrt(np.abs(y))


def student(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    g = rng.normal(size=(n, 2)) / np.sqrt(rng.chisquare(1, size=(n, 1)))
    return g[:, 0], g[:, 1]


def asinh_student(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = student(rng, n)
    return np.arcsinh(x), np.arcsinh(y)


def student_entropy(k: int, dof: int = 1) -> float:
    half = 0.5 * (dof + k)
    log_term = -special.gammaln(half) + special.gammaln(0.5 * dof) + 0.5 * k * np.log(dof * np.pi)
    return float(log_term + half * (special.digamma(half) - special.digamma(0.5 * dof)))


STUDENT = 2 * student_entropy(1) - student_entropy(2)
TASKS = {
    "normal": (binormal, NORMAL),
    "uniform": (uniform, NORMAL),
    "additive 0.10": (additive(0.10), 0.10 - np.log(0.20)),
    "additive 0.75": (additive(0.75), 1 / 3),
    "bimodal": (bimodal, NORMAL),
    "wiggly": (wiggly, NORMAL),
    "half-cube": (half_cube, NORMAL),
    "student": (student, STUDENT),
    "asinh student": (asinh_student, STUDENT),
}


@pytest.mark.parametrize("task", TASKS)
def test_beyond_normal_one_by_one(task: str):
    """Mixed KSG at 10,000 samples and counting at 200,000 come within a few hundredths of the truth."""
    sample, truth = TASKS[task]
    x, y = sample(np.random.default_rng(0), 10_000)
    near = information.mixed_information(x[:, None], y[:, None])[0]
    # Raw Cauchy tails and near-deterministic noise are where every nearest-neighbour estimate is weak.
    assert near == pytest.approx(truth, abs={"student": 0.08, "additive 0.10": 0.05}.get(task, 0.03))
    x, y = sample(np.random.default_rng(1), 200_000)
    bins = 128 if task == "additive 0.10" else 64
    codes = information.quantize(x[:, None], bins)
    counted = information.mutual_information(codes, information.bin_targets(y, bins))[0]
    assert counted == pytest.approx(truth, abs=0.06 if task == "additive 0.10" else 0.035)
