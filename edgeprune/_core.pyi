"""Signatures of the compiled core, for type checkers and readers; a test compares them with the module.

The core trusts its caller: edgeprune.information validates first. An array must have exactly the type named
here, and C order unless it is `x` or codes of (samples, channels). The core refuses others; it never copies.

    x           float32, float64, float16, or the 16 bits of bfloat16; shape (samples, channels), any strides
    dtype       "float32", "float64", "float16" or "bfloat16": how to read `x`
    labels      shape (samples,), values in 0..classes-1
    thresholds  shape (channels, bins - 1), ascending along a row; find_edges gives (channels, bins)
    counts      shape (channels, classes, bins); the add_ functions add to it in place
    threads     0 takes as many as there are processors

Where `x` holds NaN or an infinity, None is returned; add_ functions return False and leave counts alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

edge_steps: int
most_permuted: int

# Instruction sets, threads and validation.
def simd_name() -> str: ...
def simd_available() -> list[str]: ...
def simd_select(name: str, /) -> None: ...
def available_threads() -> int: ...
def find_non_finite(x: NDArray[Any], dtype: str, /) -> tuple[int, int, float] | None: ...

# Edges, codes and joint counts.
def find_edges(
    x: NDArray[Any], dtype: str, rows: NDArray[np.uint32], bins: int, threads: int
) -> NDArray[np.float32] | None: ...
def encode(
    x: NDArray[Any], dtype: str, thresholds: NDArray[np.float32], threads: int
) -> NDArray[np.uint8] | None: ...
def add_counts(
    x: NDArray[Any],
    dtype: str,
    thresholds: NDArray[np.float32],
    labels: NDArray[np.int32],
    classes: int,
    counts: NDArray[np.uint32],
    threads: int,
) -> bool: ...
def add_code_counts(
    codes: NDArray[np.uint8],
    bins: int,
    labels: NDArray[np.int32],
    classes: int,
    counts: NDArray[np.uint32],
    threads: int,
) -> None: ...
def add_soft_counts(
    codes: NDArray[np.uint8],
    bins: int,
    weights: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    threads: int,
) -> None: ...

# Information from joint counts. A row of statistics: samples, information, entropy, class entropy, bins,
# classes, cells, smallest expected count.
def table_statistics(counts: NDArray[np.uint32], threads: int) -> NDArray[np.float64]: ...
def label_statistics(
    x: NDArray[Any],
    dtype: str,
    thresholds: NDArray[np.float32],
    labels: NDArray[np.int32],
    classes: int,
    shuffle: bool,
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None: ...
def shuffled_information(counts: NDArray[np.uint32], threads: int) -> NDArray[np.float64]: ...
def permutation_p_values(
    counts: NDArray[np.uint32], rounds: int, seed: int, threads: int
) -> NDArray[np.float64]: ...

# Information per connection; `ranges` has one value per channel.
def find_ranges(x: NDArray[Any], dtype: str, threads: int) -> NDArray[np.float32] | None: ...
def add_fine_counts(
    x: NDArray[Any],
    dtype: str,
    ranges: NDArray[np.float32],
    labels: NDArray[np.int32],
    classes: int,
    counts: NDArray[np.uint32],
    threads: int,
) -> bool: ...
def edge_tables(
    counts: NDArray[np.uint32], threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def edge_scores(
    ranges: NDArray[np.float32],
    information: NDArray[np.float64],
    entropy: NDArray[np.float64],
    weights: NDArray[np.float32],
    steps: NDArray[np.float32],
    theta: float,
    threads: int,
) -> NDArray[np.float64]: ...

# Covariance and backward elimination: sums and products; order, score and initial score.
def block_moments(
    x: NDArray[Any], dtype: str, first: int, count: int, shift: NDArray[np.float64], threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None: ...
def backward_elimination(
    covariances: Sequence[NDArray[np.float64]],
    energies: Sequence[NDArray[np.float64]],
    unit_of: Sequence[NDArray[np.int32]],
    units: int,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]: ...

# Selection by joint information; codes are (channels, samples) here.
def jmi_selection(
    sources: list[NDArray[np.uint8]],
    bins: int,
    labels: NDArray[np.int32],
    classes: int,
    choose: int,
    share: float,
    first: NDArray[np.float64],
    later: NDArray[np.float64],
    candidates: NDArray[np.bool],
    correct: bool,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def joint_information(
    codes: NDArray[np.uint8],
    bins: int,
    labels: NDArray[np.int32],
    classes: int,
    other: int,
    correct: bool,
    threads: int,
) -> NDArray[np.float64]: ...

# Estimators that need all samples at once; x and y are (channels, samples).
def ross_information(
    x: NDArray[np.float64], labels: NDArray[np.int32], classes: int, neighbours: int, threads: int
) -> NDArray[np.float64]: ...
def mixed_information(
    x: NDArray[np.float64], y: NDArray[np.float64], neighbours: int, threads: int
) -> NDArray[np.float64]: ...
def normal_scores(
    x: NDArray[np.float64], offset: float, spread: bool, threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
