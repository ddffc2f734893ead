"""A dataset: samples by index, ready for the model, and their targets.

`Dataset.batch(indices)` gives the model's inputs as arrays: float32 with channels
first for anything measured, int64 for tokens. What was done to get there (scale,
mean, standard deviation, layout, size) is `Dataset.preprocessing`, which ships with
the model so that the device does the same. Reading is random access; a source that
holds images on disk reads only the ones asked for.

Elsewhere: which source a name means (open), who gets which samples (splits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeprune.data.targets import Targets, take
from edgeprune.errors import DataError

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]
Inputs = tuple[npt.NDArray[Any], ...]


class Source(Protocol):
    """Where raw samples come from: `read` gives one fresh array per model input, batch first."""

    def read(self, indices: Indices) -> Inputs: ...


class Dataset:
    """Samples with targets, prepared for one model. Made by `open_data`.

    Attributes:
        name: what the user called it.
        targets: what the source gives per sample, see `data.targets`; class numbers as int64 (samples,);
            None where the source has inputs only.
        labels: int64, shape (samples,), values ≥ 0, where the targets are one class number or class name
            per sample; else None.
        classes: one more than the largest label (or the number of class folders); None without labels.
        class_names: names in label order, where the source has them.
        preprocessing: what `batch` does to a raw sample, as plain JSON values.
        validation_indices, test_indices: the samples of the source's own validation and test parts, where
            it has them.
        groups: int64, shape (samples,): samples of one number belong together (a person, a machine) and
            are never split apart; −1 in parts of which the source does not say. None where it says nothing.
        sha256: of the source's contents (for image folders: names, sizes and the files' beginnings).
    """

    def __init__(
        self,
        *,
        name: str,
        source: Source,
        size: int,
        labels: Labels | None,
        classes: int | None,
        class_names: tuple[str, ...] | None,
        prepare: Sequence[Callable[[npt.NDArray[Any]], npt.NDArray[Any]]],
        preprocessing: dict[str, Any],
        test_indices: Indices | None,
        sha256: str,
        checked: bool,
        groups: Indices | None = None,
        validation_indices: Indices | None = None,
        targets: Targets = None,
    ) -> None:
        self.name = name
        self.targets = labels if targets is None else targets
        self.labels = labels
        self.classes = classes
        self.class_names = class_names
        self.preprocessing = preprocessing
        self.validation_indices = validation_indices
        self.test_indices = test_indices
        self.groups = groups
        self.sha256 = sha256
        self._source = source
        self._size = size
        self._prepare = tuple(prepare)
        self._checked = checked

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        kinds = ", no targets" if self.targets is None else ", with targets"
        kinds = kinds if self.classes is None else f", {self.classes} classes"
        return f"Dataset({self.name!r}, {self._size} samples{kinds})"

    def groups_of(self, indices: Indices) -> Indices | None:
        """The groups of these samples; None where one of them has none."""
        if self.groups is None or (self.groups[indices] < 0).any():
            return None
        return self.groups[indices]

    def batch(self, indices: npt.ArrayLike) -> Inputs:
        """The model's inputs for these samples, in this order, batch first.

        Raises:
            DataError: an index out of range, an unreadable sample, NaN or infinity in one.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= self._size)]
        if outside.size:
            raise DataError(f"{self.name}: asked for sample {outside[0]} of {self._size}")
        raw = self._source.read(wanted)
        ready = tuple(prepare(part) for prepare, part in zip(self._prepare, raw, strict=True))
        if not self._checked:
            for part in ready:
                require_finite(part, self.name, wanted)
        return ready


def iterate(
    dataset: Dataset,
    indices: npt.ArrayLike,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
) -> Iterator[tuple[Inputs, Targets]]:
    """Yield `(inputs, targets)` over `indices`, in order or shuffled by a seed; the last may be short.

    Targets keep their form (`data.targets.take`): class numbers are int64, shape (batch,).
    """
    order = np.array(indices, dtype=np.int64).reshape(-1)
    if batch_size < 1:
        raise DataError(f"batch size {batch_size}: must be at least 1")
    if shuffle_seed is not None:
        np.random.default_rng(shuffle_seed).shuffle(order)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield dataset.batch(part), take(dataset.targets, part)


def check_labels(dataset: Dataset, outputs: int, *, varied: bool = True) -> None:
    """Refuse labels that a model with this many outputs cannot have been trained on.

    Args:
        dataset: may have no labels; then there is nothing to check.
        outputs: the width of the model's output.
        varied: also require at least two classes and at least one sample per class,
            which scoring needs; a set used for evaluation alone may do without.

    Raises:
        DataError: a label out of range (the first is named), one class, fewer samples than classes.
    """
    labels = dataset.labels
    if labels is None:
        return
    beyond = np.flatnonzero(labels >= outputs)
    if beyond.size:
        raise DataError(
            f"{dataset.name}: sample {beyond[0]} has label {labels[beyond[0]]}, but the model has"
            f" {outputs} outputs ({beyond.size} of {len(labels)} labels are out of range)",
            tip=f"labels must lie in 0..{outputs - 1}",
        )
    if not varied:
        return
    present = np.unique(labels)
    if present.size < 2:
        raise DataError(
            f"{dataset.name}: all {len(labels)} samples have label {present[0]}; scoring needs at least"
            " two classes",
            tip="give data of every class",
        )
    if dataset.classes is not None and len(dataset) < dataset.classes:
        raise DataError(
            f"{dataset.name}: {len(dataset)} samples for {dataset.classes} classes",
            tip="give at least one sample per class; a few dozen per class score well",
        )


def require_finite(values: npt.NDArray[Any], name: str, indices: Indices | None = None) -> None:
    """Raise DataError that names the first sample with NaN or infinity; integers pass."""
    if values.dtype.kind not in "fc":
        return
    step = max(1, (1 << 22) // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, len(values), step):
        part = values[start : start + step]
        if np.isfinite(part).all():
            continue
        bad = np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1))
        first = start + int(bad[0])
        row = values[first].ravel()
        kind = "NaN" if np.isnan(row).any() else "infinity"
        sample = first if indices is None else int(indices[first])
        raise DataError(
            f"{name}: sample {sample} holds {kind}", tip="remove or repair such samples before compressing"
        )
