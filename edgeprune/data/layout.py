"""Bring raw samples into the shape, type and range that a model takes.

One rule per kind of array, decided once from the sample's shape and the model's:
uint8 is scaled by 1/255, other integers are tokens and stay as they are, floats are
taken as they come. Channels go first, grey images get a channel, a model that takes
flat vectors gets them. What cannot be brought into shape this way is an error that
names both shapes; nothing is cropped, padded or resized here (image folders resize).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError

Prepare = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
Statistic = float | Sequence[float] | None


def fit_layout(
    sample_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    wanted: Sequence[int] | None,
    *,
    name: str,
    mean: Statistic = None,
    std: Statistic = None,
) -> tuple[Prepare, dict[str, Any]]:
    """Decide how raw batches of one input become model inputs.

    Args:
        sample_shape: one raw sample, without batch.
        dtype: of the raw array.
        wanted: the model's input shape without batch; −1 where any size will do; None if unknown.
        mean, std: in the range after scaling, a number or one per channel; for measured inputs only.

    Returns:
        the function over a raw batch, and its description (scale, mean, std, layout, size, dtype).

    Raises:
        DataError: the shapes do not agree, the type is not numeric, mean or std do not fit.
    """
    if dtype.kind not in "buif":
        raise DataError(f"{name}: holds {dtype} values, not numbers")
    arrange, shape, how = _arrangement(sample_shape, dtype, wanted, name)
    if dtype.kind in "iu" and dtype != np.uint8:
        return lambda raw: arrange(raw).astype(np.int64, copy=False), {
            "dtype": "int64",
            "scale": None,
            "mean": None,
            "std": None,
            "layout": "tokens",
            "size": list(shape),
        }
    scale = 1.0 / 255.0 if dtype == np.uint8 else 1.0
    mean_list, std_list = _statistics(mean, std, shape, name)
    column = (-1,) + (1,) * (len(shape) - 1)
    shift = None if mean_list is None else np.asarray(mean_list, np.float32).reshape(column)
    spread = None if std_list is None else np.asarray(std_list, np.float32).reshape(column)

    def prepare(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values = np.ascontiguousarray(arrange(raw), dtype=np.float32)  # raw is fresh, so this may alias it
        if scale != 1.0:
            values *= np.float32(scale)
        if shift is not None:
            values -= shift
        if spread is not None:
            values /= spread
        return values

    return prepare, {
        "dtype": "float32",
        "scale": scale,
        "mean": mean_list,
        "std": std_list,
        "layout": "NCHW" if len(shape) == 3 else "N" + "D" * len(shape),
        "size": list(shape),
        "raw": how,
    }


def _arrangement(
    have: tuple[int, ...], dtype: np.dtype[Any], wanted: Sequence[int] | None, name: str
) -> tuple[Prepare, tuple[int, ...], str]:
    """The re-ordering of axes, the shape it gives, and its name."""
    same: Prepare = lambda raw: raw  # noqa: E731
    channel: Prepare = lambda raw: raw[:, None]  # noqa: E731
    first: Prepare = lambda raw: np.moveaxis(raw, -1, 1)  # noqa: E731
    if wanted is None:
        if dtype != np.uint8:
            return same, have, "as is"
        if len(have) == 2:
            return channel, (1, *have), "grey, channel added"
        if len(have) == 3 and have[-1] in (1, 3, 4) and have[0] not in (1, 3, 4):
            return first, (have[-1], *have[:-1]), "channels last"
        return same, have, "as is"
    want = tuple(int(size) for size in wanted)
    if _agree(have, want):
        return same, have, "as is"
    if len(have) == len(want) - 1 and _agree((1, *have), want):
        return channel, (1, *have), "grey, channel added"
    if len(have) == 2 and len(want) == 3 and _agree((3, *have), want):
        return lambda raw: np.repeat(raw[:, None], 3, axis=1), (3, *have), "grey, repeated to three channels"
    if len(have) == 3 and len(want) == 3 and _agree((have[-1], *have[:-1]), want):
        return first, (have[-1], *have[:-1]), "channels last"
    if len(have) == len(want) + 1 and 1 in (have[0], have[-1]):
        without = have[1:] if have[0] == 1 else have[:-1]
        if _agree(without, want):
            return lambda raw: raw.reshape(len(raw), *without), without, "single channel dropped"
    if len(want) == 1 and len(have) > 1 and _agree((int(np.prod(have)),), want):
        flat = (int(np.prod(have)),)
        return lambda raw: raw.reshape(len(raw), -1), flat, "flattened"
    raise DataError(
        f"{name}: one sample has shape {_show(have)}, the model takes {_show(want)}",
        tip="give data of the model's shape (channels first or last), or export the model for this shape",
    )


def _agree(have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(have) == len(want) and all(w in (-1, h) for h, w in zip(have, want, strict=True))


def _show(shape: tuple[int, ...]) -> str:
    return "×".join("any" if size == -1 else str(size) for size in shape) or "()"


def _statistics(
    mean: Statistic, std: Statistic, shape: tuple[int, ...], name: str
) -> tuple[list[float] | None, list[float] | None]:
    channels = shape[0] if shape else 1
    statistics: list[list[float] | None] = []
    for label, value in (("mean", mean), ("std", std)):
        if value is None:
            statistics.append(None)
            continue
        numbers = [float(v) for v in np.asarray(value, dtype=np.float64).reshape(-1)]
        if len(numbers) not in (1, channels):
            raise DataError(
                f"{name}: {len(numbers)} values for {label}, but the model's input has {channels} channels",
                tip=f"give one value, or {channels}",
            )
        if not np.isfinite(numbers).all() or (label == "std" and min(numbers) <= 0):
            raise DataError(f"{name}: {label} {numbers} is not usable; std must be above zero")
        statistics.append(numbers)
    return statistics[0], statistics[1]
