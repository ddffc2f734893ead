"""Check what a caller hands over before any C++ sees it.

Gives arrays of known type and shape, without copying activations. Every
refusal is a DataError that names the argument and the first offending index.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information._native import core

FloatArray = npt.NDArray[np.float64]
MAX_SAMPLES = 2**32 - 1  # counts are uint32
MAX_INT64 = 2**63 - 1
MAX_CLASSES = 2**24 - 1  # times 256 codes: cells are numbered in 32 bits
MAX_CHANNELS = 2**16  # of a covariance: it takes 32 GB
MAX_THREADS = 1024  # more is a mistake, and each has its own scratch memory
_FLOATS = {"float16", "float32", "float64", "bfloat16"}


def integer_in_range(value: Any, name: str, low: int, high: int | None = None, *, tip: str = "") -> int:
    """Return `value` as an int of at least `low` and at most `high`.

    Raises:
        DataError: no integer, or out of range.
    """
    integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integral or value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"{low}..{high}"
        kind = "" if integral else "a whole number, "
        raise DataError(f"{name} is {describe_value(value)}, wanted {kind}{wanted}", tip=tip)
    return int(value)


def thread_count(threads: Any) -> int:
    """Return how many threads were asked for.

    Raises:
        DataError: no integer, negative, or more than any machine has.
    """
    return integer_in_range(threads, "threads", 0, MAX_THREADS, tip="0 takes all processors")


def finite(value: Any, name: str) -> float:
    """Return `value` as a finite float.

    Raises:
        DataError: no number, NaN or infinity.
    """
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not abs(value) <= sys.float_info.max:
        raise DataError(f"{name} is {describe_value(value)}, wanted a finite number")
    return float(value)


def real_numbers(value: Any, name: str, dtype: type = np.float64) -> npt.NDArray[Any]:
    """Return real numbers as a contiguous array of `dtype`; what float32 cannot hold becomes infinite.

    Raises:
        DataError: anything else than real numbers.
    """
    array = array_of(value, name)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{name} has type {array.dtype} and shape {array.shape}, wanted real numbers")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)


def array_of(value: Any, name: str) -> npt.NDArray[Any]:
    """Return what NumPy makes of a value, a list of values or a torch tensor.

    Raises:
        DataError: NumPy makes nothing of it, as of rows of unequal lengths; or an entry is masked.
    """
    try:
        if is_tensor(value):
            value = value.detach().cpu().resolve_neg().numpy()
        refuse_masked(value, name)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} is {describe_value(value)} that makes no array: {error}") from error


def is_tensor(value: Any) -> bool:
    """Return whether a value is torch's, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch"


def refuse_masked(value: Any, name: str) -> None:
    """Refuse a masked array that hides anything: a mask is no number, and dropping it would make one of it.

    Raises:
        DataError: an entry is masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        mask = np.ma.getmaskarray(value)
        at = np.unravel_index(int(np.argmax(mask)), mask.shape)
        raise DataError(f"{name}[{', '.join(map(str, at))}] is masked", tip="fill it, or remove its sample")


def describe_value(value: Any) -> str:
    """Return a number, a text or None as it is, anything else by its type."""
    if isinstance(value, np.generic):
        return str(value)
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    return f"a {type(value).__name__}"


def activations(x: Any, name: str = "x") -> tuple[npt.NDArray[Any], str]:
    """Return `x` as a two-dimensional array with the name of its element type; never a copy of a CPU array.

    Takes NumPy arrays of any strides and torch tensors. bfloat16 travels as its 16 bits, so what this
    returns is not to be validated again.

    Raises:
        DataError: no array, not floats, not two-dimensional, an entry that is masked, or more samples
            than can be counted.
    """
    dtype = str(getattr(x, "dtype", "")).removeprefix("torch.")
    if is_tensor(x) and dtype in _FLOATS:
        try:
            x = x.detach().cpu().resolve_neg()
            x = (x.view(sys.modules["torch"].int16) if dtype == "bfloat16" else x).numpy()
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{name} is a torch tensor that makes no array: {error}") from error
    refuse_masked(x, name)
    if not isinstance(x, np.ndarray) and not is_tensor(x):
        raise DataError(
            f"{name} is a {type(x).__name__}, not an array",
            tip="pass a NumPy array or a torch tensor of floats",
        )
    if dtype not in _FLOATS or not x.dtype.isnative:
        raise DataError(
            f"{name} has type {dtype}, wanted float16, bfloat16, float32 or float64",
            tip=f"convert it: {name}.astype('float32')",
        )
    if x.ndim != 2:
        raise DataError(
            f"{name} has shape {x.shape}, wanted (samples, channels)",
            tip="reduce positions first; a single channel is x.reshape(-1, 1)",
        )
    if x.shape[0] > MAX_SAMPLES:
        raise DataError(f"{name} has {x.shape[0]} samples, at most {MAX_SAMPLES} can be counted")
    return x, dtype


def not_empty(x: npt.NDArray[Any], name: str = "x") -> None:
    """Refuse an array without samples or without channels.

    Raises:
        DataError: it is one.
    """
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise DataError(f"{name} is empty: shape {x.shape}", tip="pass at least one sample and one channel")


def refuse_non_finite(x: npt.NDArray[Any], dtype: str, name: str = "x") -> NoReturn:
    """Raise for the first NaN or infinity of `x`; called once the core has met one.

    Raises:
        DataError: always.
    """
    at = core.find_non_finite(x, dtype)
    if at is None:
        raise DataError(f"{name} was written to while it was read", tip="hand over a copy")
    sample, channel, value = at
    raise DataError(
        f"{name}[{sample}, {channel}] is {value} as float32",
        tip="remove the sample, or clip the activations before scoring",
    )


def class_labels(labels: Any, samples: int, classes: int, name: str = "labels") -> npt.NDArray[np.int32]:
    """Return labels as int32 of shape (samples,), each in 0..classes-1; always a copy.

    The core indexes memory by labels without holding the interpreter's lock: what was checked must be
    what is used, whoever writes to the caller's array meanwhile.

    Raises:
        DataError: wrong type, shape or length, or a label out of range.
    """
    classes = integer_in_range(classes, "classes", 1, MAX_CLASSES)
    array = array_of(labels, name).copy()
    if array.ndim != 1:
        raise DataError(
            f"{name} has shape {array.shape}, wanted ({samples},)",
            tip="see soft_joint_counts for probabilities, multilabel_information for several labels",
        )
    if array.dtype.kind not in "iub":
        raise DataError(
            f"{name} has type {array.dtype}, wanted integers",
            tip="regression targets become labels with information.bin_targets",
        )
    if array.shape[0] != samples:
        raise DataError(f"{name} has {array.shape[0]} entries for {samples} samples")
    if array.size and (array.min() < 0 or array.max() >= classes):
        at = int(np.argmax((array < 0) | (array >= classes)))
        raise DataError(f"{name}[{at}] is {array[at]}, outside 0..{classes - 1}")
    return array.astype(np.int32, copy=False)


def labels_and_classes(labels: Any, samples: int, classes: int | None) -> tuple[npt.NDArray[np.int32], int]:
    """Return labels as `class_labels` does and how many classes they have: the largest plus one if left out.

    Where that is far more than there are samples, the labels that occur are numbered anew: information
    does not depend on their names, and one stray label must not cost a table of millions of classes.

    Raises:
        DataError: as `class_labels`.
    """
    if classes is not None:
        return class_labels(labels, samples, classes), int(classes)
    checked = class_labels(labels, samples, MAX_CLASSES)
    most = int(checked.max()) + 1 if checked.size else 1
    if most <= max(samples, 2**16):
        return checked, most
    used, numbers = np.unique(checked, return_inverse=True)
    return numbers.astype(np.int32), len(used)


def zeros(shape: tuple[int, ...], dtype: type, name: str, value: int) -> npt.NDArray[Any]:
    """Return zeros whose number the argument `name` decides.

    Raises:
        DataError: they do not fit into memory.
    """
    try:
        return np.zeros(shape, dtype)
    except (MemoryError, ValueError) as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize / 1e9
        raise DataError(
            f"{name} is {value}: an array of shape {shape} takes {size:.1f} GB",
            tip="take fewer channels at a time",
        ) from error


def zero_counts(channels: int, classes: int, bins: int) -> npt.NDArray[np.uint32]:
    """Return a table of counts, shape (channels, classes, bins).

    Raises:
        DataError: it does not fit into memory.
    """
    return zeros((channels, classes, bins), np.uint32, "classes", classes)


def joint_table(counts: Any, name: str = "counts") -> npt.NDArray[np.uint32]:
    """Return counts of shape (channels, bins, classes) as the core's contiguous (channels, classes, bins).

    Raises:
        DataError: wrong type or shape, no bins or no classes.
    """
    array = array_of(counts, name)
    if array.dtype != np.uint32 or array.ndim != 3:
        raise DataError(
            f"{name} has type {array.dtype} and shape {array.shape}, wanted uint32 (channels, bins, classes)",
            tip="make them with information.joint_counts",
        )
    if 0 in array.shape[1:]:
        raise DataError(f"{name} has shape {array.shape}: no bins or no classes")
    return np.ascontiguousarray(array.transpose(0, 2, 1))
