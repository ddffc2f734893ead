"""Data: from a name or arrays to batches that the model takes.

    dataset = open_data("fashion.npz", input_shapes=[(1, 28, 28)])
    parts = split(dataset, seed=0)
    for inputs, labels in iterate(dataset, parts.calibration, 256): ...

Sources: `.npz`, an idx folder (the layout of MNIST and Fashion-MNIST), class folders
with images, `package.module:function`, arrays and tensors. Bad data is a `DataError`
that names the file or the sample. torch is imported only where a source needs it.
"""

from __future__ import annotations

from edgeprune.data.dataset import Dataset, check_labels, iterate
from edgeprune.data.opening import open_data
from edgeprune.data.splits import split

__all__ = [
    "Dataset",
    "check_labels",
    "iterate",
    "open_data",
    "split",
]
