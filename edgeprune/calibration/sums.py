"""Running sums of one layer: moments of what it reads and puts out, and of the loss's slope there.

Second moments cost channels² per position, more than the layer itself where it has many channels, so they are
taken over a random part of the positions: all of them in small networks, at least ROWS_PER_CHANNEL per
channel and POSITIONS per sample otherwise. Positions of one sample resemble each other; their number is
not what limits the error. Values per sample are means over all positions.
Products run in the network's own precision on rows less a fixed offset, in blocks whose sums are float64:
without the offset, the variance of a channel with a large mean would drown in rounding.

Guarantee: memory does not grow with the number of samples, values per sample apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.calibration.layers import FULL_COVARIANCE, ActivationMoments, LayerStatistics
from edgeprune.calibration.patches import patch_rows
from edgeprune.calibration.samples import SampleAxis
from edgeprune.coupling.components import Layer
from edgeprune.graph.module import attribute

PATCH_FEATURES = 1536  # inputs × taps; the elimination over more takes minutes
PATCH_ROWS = 16_384  # positions looked at per layer
POSITIONS = 64  # per sample
ROWS_PER_CHANNEL = 32  # over all samples
BLOCK = 4096  # rows of one product


class RowSums:
    """Sums of rows x and of xxᵀ, or of x² for more than `widest` columns; float64."""

    def __init__(self, widest: int | None = None) -> None:
        self.widest = FULL_COVARIANCE if widest is None else widest
        self.n = 0
        self.offset: torch.Tensor | None = None
        self.first: Any = 0.0
        self.second: Any = 0.0

    def add(self, rows: torch.Tensor) -> None:
        """More rows, shape (n, columns)."""
        if self.offset is None:
            self.offset = rows.mean(0)
        self.n += len(rows)
        for block in (rows - self.offset).split(BLOCK):
            self.first = self.first + block.double().sum(0)
            full = block.shape[1] <= self.widest
            self.second = self.second + (block.T @ block if full else block.square().sum(0)).double()

    def means(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """E[x] and E[xxᵀ], or E[x²]."""
        assert self.offset is not None
        offset = self.offset.double()
        first, second = self.first / self.n, self.second / self.n
        if second.dim() == 1:
            return (first + offset).numpy(), (second + 2 * first * offset + offset**2).numpy()
        across = torch.outer(first, offset)
        second = (second + second.T) / 2 + across + across.T + torch.outer(offset, offset)
        return (first + offset).numpy(), second.numpy()


class LayerSums:
    """Running sums of one layer over batches.

    Args:
        samples: of all batches together. axis: where they are in what the layer reads.
    """

    def __init__(self, graph: fx.GraphModule, layer: Layer, samples: int, axis: SampleAxis | None) -> None:
        self.layer = layer
        self.axis = axis
        self.weight = attribute(graph, str(layer.weight))
        self.node = next(n for n in graph.graph.nodes if n.name == layer.node)
        self.samples = max(1, samples)
        self.generator = torch.Generator().manual_seed(0)
        self.n = self.positions = 0
        self.inputs, self.outputs, self.patches = RowSums(), RowSums(0), RowSums()
        self.reduced: list[npt.NDArray[np.float32]] = []
        self.slopes: Any = 0.0
        self.taylor: Any = 0.0

    def add(self, read: torch.Tensor, put_out: torch.Tensor, top: Any, bottom: Any, samples: int) -> None:
        """One batch: what the layer read and put out, and the slopes of the loss there, None for zero."""
        layer = self.layer
        self.n += samples
        self.positions += read.numel() // read.shape[layer.channel_dim]
        x, y = _rows(read, layer.channel_dim), _rows(put_out, layer.out_channel_dim)
        self.inputs.add(x[self._chosen(len(x), x.shape[1], samples)])
        at = self._chosen(len(y), y.shape[1], samples)
        self.outputs.add(y[at])
        if self.axis is not None:
            self.reduced.append(self.axis.split(read, layer.channel_dim).mean(1).float().numpy())
        if top is not None:
            g = _rows(top, layer.out_channel_dim)[at]
            self.slopes = self.slopes + _second(g) * (len(y) / len(at))
        if bottom is not None and self.axis is not None:
            product = self.axis.split(bottom * read, layer.channel_dim)
            self.taylor = self.taylor + product.sum(1).abs().double().sum(0)
        self._add_patches(read, len(y), samples)

    def _chosen(self, positions: int, channels: int, samples: int) -> torch.Tensor:
        """Positions to look at in a batch, ascending."""
        per_sample = max(POSITIONS, -(-ROWS_PER_CHANNEL * channels // self.samples))
        count = per_sample * samples
        if count >= positions:
            return torch.arange(positions)
        return torch.randint(positions, (count,), generator=self.generator).sort().values

    def _add_patches(self, x: torch.Tensor, positions: int, samples: int) -> None:
        layer, weight = self.layer, self.weight
        features = weight.numel() // weight.shape[layer.out_dim]
        if features == weight.shape[layer.in_dim] or features > PATCH_FEATURES or layer.in_dim == 0:
            return
        share = min(positions, -(-PATCH_ROWS * samples // self.samples))
        chosen = torch.randperm(positions, generator=self.generator)[:share]
        self.patches.add(patch_rows(self.node, layer, x, weight)(chosen))

    def result(self) -> LayerStatistics:
        """The statistics of all batches so far."""
        mean, second = self.inputs.means()
        known = self.axis is not None
        if known:  # over all positions
            exact = sum(part.sum(0, dtype=np.float64) for part in self.reduced) / self.n
            moved = exact**2 - mean**2 if second.ndim == 1 else np.outer(exact, exact) - np.outer(mean, mean)
            mean, second = exact, second + moved
        out, out2 = self.outputs.means()
        variance = out2 - out**2
        taylor = self.taylor.numpy() if isinstance(self.taylor, torch.Tensor) else np.zeros_like(mean)
        slopes = self.slopes.numpy() if isinstance(self.slopes, torch.Tensor) else np.zeros_like(out2)
        return LayerStatistics(
            mean,
            second,
            np.concatenate(self.reduced) if known else None,
            taylor / self.n if known else None,
            slopes / self.n,
            np.sqrt(np.maximum(variance, 0.0)),
            ActivationMoments(*self.patches.means(), self.patches.n) if self.patches.n else None,
            self.axis,
            self.n,
            self.positions,
        )


def _rows(value: torch.Tensor, channel_dim: int) -> torch.Tensor:
    """Shape (positions, channels); a view where channels are last in memory."""
    return value.movedim(channel_dim, -1).flatten(0, -2)


def _second(rows: torch.Tensor) -> torch.Tensor:
    """Sum of xxᵀ, or of x² for more than FULL_COVARIANCE columns; float64."""
    total: Any = 0.0
    for block in rows.split(BLOCK):
        full = block.shape[1] <= FULL_COVARIANCE
        total = total + (block.T @ block if full else block.square().sum(0)).double()
    return (total + total.T) / 2 if rows.shape[1] <= FULL_COVARIANCE else torch.as_tensor(total)
