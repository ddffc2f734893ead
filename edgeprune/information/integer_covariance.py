"""Covariance of INT8 codes, in exact integers.

    total = IntegerCovariance(channels)
    for codes in batches: total.update(codes)
    total.merge(other).moments(scale)

Guarantee: sums and sums of products are int64 and exact, so the state is
bit-identical for any order and split of the samples and any number of ranks and
threads; a sum that 64 bits cannot hold is an error before anything is added; any
thread may call any method at any time.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.information import files, validate
from edgeprune.information._native import core
from edgeprune.information.covariance import Moments


class IntegerCovariance:
    """Exact sums of INT8 codes and of their products; order, split and merging cannot matter.

    sums: int64, shape (channels,). products: int64, shape (channels, channels).

    Raises:
        DataError: no channels, or more than memory holds.
    """

    def __init__(self, channels: int) -> None:
        self.channels = validate.integer_in_range(channels, "channels", 1, validate.MAX_CHANNELS)
        self.samples = 0
        self.sums = np.zeros(channels, np.int64)
        self.products = validate.zeros((channels, channels), np.int64, "channels", channels)
        self._lock = threading.Lock()

    def update(self, codes: Any, *, threads: int = 0) -> IntegerCovariance:
        """Add codes, int8 or uint8, shape (samples, channels).

        Raises:
            DataError: wrong type or shape, or a sum that 64 bits cannot hold; nothing is then added.
        """
        codes, threads = validate.array_of(codes, "codes"), validate.thread_count(threads)
        if codes.dtype not in (np.int8, np.uint8) or codes.ndim != 2 or codes.shape[1] != self.channels:
            raise DataError(
                f"codes have type {codes.dtype} and shape {codes.shape}, "
                f"wanted int8 or uint8 (samples, {self.channels})"
            )
        batch = IntegerCovariance(self.channels)
        batch.samples = len(codes)
        zero = np.zeros(self.channels)
        for first in range(0, len(codes), 4096):
            part = np.ascontiguousarray(codes[first : first + 4096], dtype=np.float32)
            # Products of two bytes and sums of 4096 of them are whole numbers far below 2^53: exact.
            moments = core.block_moments(part, "float32", 0, len(part), zero, threads)
            assert moments is not None  # bytes are finite
            sums, products = moments
            batch.sums += sums.astype(np.int64)
            batch.products += products.astype(np.int64)
        return self.merge(batch)

    def merge(self, other: IntegerCovariance) -> IntegerCovariance:
        """Add another accumulator's sums.

        Raises:
            DataError: it has other channels, or a sum that 64 bits cannot hold; nothing is then added.
        """
        if not isinstance(other, IntegerCovariance) or other.channels != self.channels:
            raise DataError(f"other is not an IntegerCovariance of {self.channels} channels")
        samples, sums, products = other._snapshot()  # no two locks are ever held together
        with self._lock:
            # Of whole numbers the sums of squares are the largest: |sum x|, |sum x y| stay below one of them.
            full = validate.MAX_INT64 - self.products.diagonal() < products.diagonal()
            if full.any() or self.samples + samples > validate.MAX_INT64:
                where = f"the squares of channel {int(np.argmax(full))}" if full.any() else "the samples"
                raise DataError(
                    f"{self.samples} samples added, {samples} would follow: {where} would pass 2^63 - 1",
                    tip="start a second accumulator",
                )
            self.samples += samples
            self.sums += sums
            self.products += products
        return self

    def _snapshot(self) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Samples and copies of the sums, of one moment."""
        with self._lock:
            return self.samples, self.sums.copy(), self.products.copy()

    def moments(self, scale: Any = 1.0) -> Moments:
        """Give mean and covariance of codes times `scale`, a number or float64 (channels,).

        Raises:
            DataError: no samples, or a scale that is not finite or of another shape.
        """
        samples, totals, squares = self._snapshot()
        if samples == 0:
            raise DataError("no samples were added")
        step = validate.real_numbers(scale, "scale")
        if step.shape not in ((), (self.channels,)) or not np.isfinite(step).all():
            raise DataError(f"scale has shape {step.shape}, wanted a finite number or ({self.channels},)")
        step = np.broadcast_to(step, totals.shape)
        mean = totals / samples
        # samples * products - sums * sums may take 126 bits: Python's integers, a row at a time, where
        # 64 do not hold its largest term. Both are rounded once, so they agree to the last bit.
        fits = samples * int(squares.diagonal().max()) <= validate.MAX_INT64
        sums = totals.astype(np.int64 if fits else object)
        covariance = np.empty(squares.shape)
        for row, total, products in zip(covariance, sums, squares, strict=True):
            numerator = samples * products.astype(sums.dtype) - total * sums
            row[:] = numerator.astype(np.float64) / float(samples) ** 2
        return Moments(samples, mean * step, covariance * np.outer(step, step))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one npz file; the same state gives the same bytes.

        Raises:
            OutputError: the file cannot be written.
        """
        samples, sums, products = self._snapshot()
        arrays: files.Arrays = {"samples": np.array(samples, np.int64), "sums": sums, "products": products}
        files.write(path, "integer-covariance", arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IntegerCovariance:
        """Read what `save` wrote.

        Raises:
            DataError: missing, damaged, inconsistent, or of another kind.
        """
        wanted = {"samples": (np.int64, 0), "sums": (np.int64, 1), "products": (np.int64, 2)}
        arrays = files.expect(files.read(path, "integer-covariance"), wanted, path)
        out = cls(len(arrays["sums"]))
        sums, products, samples = arrays["sums"], arrays["products"], int(arrays["samples"])
        squares = products.diagonal()
        # |x| <= x^2 <= 255^2 for every code, and |x y| is at most the larger square.
        good = (
            products.shape == out.products.shape
            and np.array_equal(products, products.T)
            and bool(((squares >= 0) & (-(-squares // 255**2) <= samples)).all())
            and _within(sums, squares)
            and _within(products, np.maximum.outer(squares, squares))
        )
        if not good:
            raise DataError(f"{os.fspath(path)} is not the state of {samples} samples")
        out.samples, out.sums, out.products = samples, sums, products
        return out


def _within(values: npt.NDArray[np.int64], bound: npt.NDArray[np.int64]) -> bool:
    return bool(((values <= bound) & (values >= -bound)).all())
