"""Turn activations into small codes on frozen edges.

    activations ─ find_edges ─▶ Edges ─ encode ─▶ Codes

A channel's edges are increasing float32 thresholds and a value's code is the
number of thresholds that are not above it, compared exactly. Zero (|x| < 2^-133)
has a code of its own, because ReLU puts an atom there.

Guarantee: the edges depend on the set of sketched values alone, not on their
order, threads, instruction set, or on whether the caller's thread flushes
subnormal numbers; the same edges give the same codes anywhere.
Values of other types are compared as float32 (float64 rounds to nearest).
Elsewhere: counting codes against labels (counts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import validate
from edgeprune.information._native import core

MAX_BINS = 255
SKETCH = 4096  # samples that quantile edges are taken from
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Edges:
    """Frozen edges: thresholds float32, shape (channels, bins - 1), each row increasing, padded with +inf.

    Raises:
        DataError: wrong type or shape, NaN, or a row that falls.
    """

    thresholds: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        thresholds = validate.real_numbers(self.thresholds, "thresholds", np.float32)
        if thresholds.ndim != 2 or not 1 <= thresholds.shape[1] <= MAX_BINS:
            raise DataError(f"thresholds have shape {thresholds.shape}, wanted (channels, 1..{MAX_BINS})")
        wrong = np.isnan(thresholds)
        wrong[:, 1:] |= thresholds[:, 1:] < thresholds[:, :-1]
        if wrong.any():
            channel, at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            raise DataError(
                f"thresholds[{channel}, {at}] is {thresholds[channel, at]}, below the one before it"
            )
        thresholds = thresholds.copy()
        bits = thresholds.view(np.uint32)
        bits[bits == 0x80000000] = 0  # -0 is the same threshold as 0, and must be the same bytes
        thresholds.flags.writeable = False
        object.__setattr__(self, "thresholds", thresholds)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.thresholds.shape[0])

    @property
    def bins(self) -> int:
        """Number of codes, zero's own included; codes are 0..bins-1."""
        return int(self.thresholds.shape[1]) + 1

    def __eq__(self, other: object) -> bool:
        # By bits: a thread that takes subnormal numbers for zero would find zero's thresholds equal.
        return (
            isinstance(other, Edges)
            and self.thresholds.shape == other.thresholds.shape
            and self.thresholds.tobytes() == other.thresholds.tobytes()
        )

    def __hash__(self) -> int:
        return hash(self.thresholds.tobytes())


@dataclass(frozen=True)
class Codes:
    """Codes of activations.

    codes: uint8, shape (samples, channels); each channel lies together in memory.
    bins: number of codes, zero's own included.
    edges: what made them.

    Raises:
        DataError: wrong type or shape, or a code that is not below bins.
    """

    codes: npt.NDArray[np.uint8]
    bins: int
    edges: Edges | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.codes, np.ndarray):
            raise DataError(f"codes is {validate.describe_value(self.codes)}, wanted an array")
        if self.codes.dtype != np.uint8 or self.codes.ndim != 2:
            raise DataError(
                f"codes have type {self.codes.dtype} and shape {self.codes.shape}, "
                "wanted uint8 (samples, channels)"
            )
        if self.codes.shape[0] > validate.MAX_SAMPLES:
            raise DataError(
                f"codes have {self.codes.shape[0]} samples, at most {validate.MAX_SAMPLES} can be counted"
            )
        object.__setattr__(self, "bins", validate.integer_in_range(self.bins, "bins", 1, 256))
        if self.edges is not None:
            require_edges(self.edges)
        wrong = self.codes >= self.bins if self.bins < 256 else np.zeros((0, 0), bool)
        if wrong.any():
            sample, channel = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            raise DataError(
                f"codes[{sample}, {channel}] is {self.codes[sample, channel]}, not below bins={self.bins}"
            )


def sketch_rows(samples: int, sketch: int = SKETCH) -> npt.NDArray[np.uint32]:
    """Return the sample indices that edges are taken from: fixed, ascending; all of them if few.

    `samples` is cut into `sketch` runs of equal length and one sample is taken from each, at a place
    that a hash of the run's number decides (splitmix64). Even steps would follow any period in the
    order of the samples, such as labels that come in turn, and see few of the classes.

    Raises:
        DataError: samples is negative or too large, sketch is below 2.
    """
    samples = validate.integer_in_range(samples, "samples", 0, validate.MAX_SAMPLES)
    sketch = validate.integer_in_range(sketch, "sketch", 2)
    if samples <= sketch:
        return np.arange(samples, dtype=np.uint32)
    run = np.arange(sketch + 1, dtype=np.uint64)
    bounds = run * np.uint64(samples) // np.uint64(sketch)
    z = run[:-1] * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as all that follows
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (bounds[:-1] + z % np.diff(bounds)).astype(np.uint32)


def find_edges(x: Any, bins: int = 32, *, sketch: int = SKETCH, threads: int = 0) -> Edges:
    """Find quantile edges for every channel: `bins` cells of equal mass in all, and zero.

    Negative and positive values share the cells by their mass, at least one
    each, so `bins` + 1 codes result. Quantiles are taken over at most `sketch`
    samples (`sketch_rows`), on the grid of float32's sign, exponent and leading
    seven mantissa bits, or exactly where one cell of that grid holds more than a
    bin (than three, if it holds fewer than 32 of these samples).

    Args:
        x: floats, shape (samples, channels), any strides.
        bins: 2..255.
        sketch: samples looked at, at least 2.
        threads: 0 for all processors.

    Raises:
        DataError: wrong type or shape, no samples, NaN or infinity in a sketched sample,
            bins or sketch out of range.
    """
    return edges_of(*validate.activations(x), bins, sketch, threads)


def edges_of(x: npt.NDArray[Any], dtype: str, bins: int, sketch: int, threads: int) -> Edges:
    """Find the edges of activations that are validated already.

    Raises:
        DataError: as `find_edges`.
    """
    validate.not_empty(x)
    bins, threads = validate.integer_in_range(bins, "bins", 2, MAX_BINS), validate.thread_count(threads)
    thresholds = core.find_edges(x, dtype, sketch_rows(x.shape[0], sketch), bins, threads)
    if thresholds is None:
        validate.refuse_non_finite(x, dtype)
    return Edges(thresholds)


def fixed_edges(low: Any, high: Any, bins: int = 32, *, zero_atom: bool = True) -> Edges:
    """Cut [low, high] of each channel into `bins` cells of equal width; the outer cells reach to infinity.

    Args:
        low, high: float64, shape (channels,), low < high.
        bins: 2..255; 2..253 with the atom.
        zero_atom: give zero a code of its own: two more thresholds.

    Raises:
        DataError: no numbers, lengths differ, or a range is empty or not within float32.
    """
    low, high = (
        np.atleast_1d(validate.real_numbers(end, name)) for end, name in ((low, "low"), (high, "high"))
    )
    if low.ndim != 1 or low.shape != high.shape:
        raise DataError(f"low has shape {low.shape}, high has {high.shape}; wanted two of (channels,)")
    wrong = ~((low >= -LARGEST) & (low < high) & (high <= LARGEST))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"the range of channel {at} is [{low[at]}, {high[at]}]", tip="low must be below high, in float32"
        )
    bins = validate.integer_in_range(bins, "bins", 2, MAX_BINS - 2 if zero_atom else MAX_BINS)
    inner = low[:, None] + (high - low)[:, None] * (np.arange(1, bins) / bins)
    thresholds = inner.astype(np.float32)
    if zero_atom:
        atom = np.array([0x8000FFFF, 0x00010000], np.uint32).view(np.float32)  # as the core's quantile edges
        thresholds = np.hstack([thresholds, np.broadcast_to(atom, (len(low), 2))])
    # As ordered integers: a thread that takes subnormal numbers for zero cannot tell the atom's from it.
    bits = thresholds.view(np.int32)
    ordered = np.sort(np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits), axis=1)
    return Edges(np.where(ordered < 0, ordered ^ np.int32(0x7FFFFFFF), ordered).view(np.float32))


def encode(x: Any, edges: Edges, *, threads: int = 0) -> Codes:
    """Give each value the number of its channel's thresholds that are not above it.

    Args:
        x: floats, shape (samples, channels), any strides; zero samples are fine.

    Raises:
        DataError: wrong type or shape, other channels than the edges, NaN or infinity.
    """
    x, dtype = validate.activations(x)
    return _encode(x, dtype, require_edges(edges), threads)


def _encode(x: npt.NDArray[Any], dtype: str, edges: Edges, threads: int) -> Codes:
    threads = validate.thread_count(threads)
    if x.shape[1] != edges.channels:
        raise DataError(f"x has {x.shape[1]} channels, the edges have {edges.channels}")
    codes = core.encode(x, dtype, edges.thresholds, threads)
    if codes is None:
        validate.refuse_non_finite(x, dtype)
    return Codes(codes.T, edges.bins, edges)


def quantize(
    x: Any, bins: int = 32, *, edges: Edges | None = None, sketch: int = SKETCH, threads: int = 0
) -> Codes:
    """Code activations on quantile edges of their own, or on `edges` when given (`find_edges`, `encode`).

    Raises:
        DataError: as `find_edges` and `encode`.
    """
    x, dtype = validate.activations(x)
    if edges is None:
        edges = edges_of(x, dtype, bins, sketch, threads)
    return _encode(x, dtype, require_edges(edges), threads)


def require_edges(edges: Any) -> Edges:
    """Return `edges`.

    Raises:
        DataError: they are something else.
    """
    if not isinstance(edges, Edges):
        raise DataError(
            f"edges is {validate.describe_value(edges)}, wanted Edges",
            tip="make them with information.find_edges",
        )
    return edges


def require_codes(codes: Any) -> Codes:
    """Return `codes`.

    Raises:
        DataError: they are something else.
    """
    if not isinstance(codes, Codes):
        raise DataError(
            f"codes is {validate.describe_value(codes)}, wanted Codes",
            tip="make them with information.quantize",
        )
    return codes
