"""Running sums of one layer: moments of what it reads and puts out, and of the loss's slope there.

Second moments cost channels² per position, more than the layer itself where it has many channels, so they are
taken over a random part of the positions: all of them in small networks, at least ROWS_PER_CHANNEL per
channel and POSITIONS per sample otherwise. Positions of one sample resemble each other; their number is
not what limits the error. Values per sample are means over all positions.
Products run in the network's own precision on rows less a fixed offset, in blocks whose sums are float64:
without the offset, the variance of a channel with a large mean would drown in rounding.

Guarantee: memory does not grow with the number of samples, values per sample apart.
Elsewhere: how shards are added, and the statistics that come of it (totals).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.calibration.layers import FULL_COVARIANCE
from edgeprune.calibration.patches import patch_rows
from edgeprune.calibration.samples import SampleAxis
from edgeprune.calibration.totals import LayerTotals, MomentTotals
from edgeprune.coupling.components import Layer
from edgeprune.graph.compute import float64
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
            self.first = self.first + float64(block).sum(0)
            full = block.shape[1] <= self.widest
            self.second = self.second + float64(block.T @ block if full else block.square().sum(0))

    def totals(self) -> MomentTotals | None:
        """The sums so far, on the CPU; None before the first row."""
        if self.offset is None:
            return None
        return MomentTotals(
            self.n, self.offset.cpu().double().numpy(), self.first.cpu().numpy(), self.second.cpu().numpy()
        )


class LayerSums:
    """Running sums of one layer over the batches of a shard.

    Args:
        samples: of all shards together. axis: where they are in what the layer reads. seed: of the positions.
    """

    def __init__(
        self, graph: fx.GraphModule, layer: Layer, samples: int, axis: SampleAxis | None, seed: int = 0
    ) -> None:
        self.layer = layer
        self.axis = axis
        self.weight = attribute(graph, str(layer.weight))
        self.node = next(n for n in graph.graph.nodes if n.name == layer.node)
        self.samples = max(1, samples)
        self.generator = torch.Generator().manual_seed(seed)
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
        self.inputs.add(x[self._chosen(x, samples)])
        at = self._chosen(y, samples)
        self.outputs.add(y[at])
        if self.axis is not None:
            self.reduced.append(self.axis.split(read, layer.channel_dim).mean(1).float().cpu().numpy())
        if top is not None:
            g = _rows(top, layer.out_channel_dim)[at]
            self.slopes = self.slopes + _second(g) * (len(y) / len(at))
        if bottom is not None and self.axis is not None:
            product = self.axis.split(bottom * read, layer.channel_dim)
            self.taylor = self.taylor + float64(product.sum(1).abs()).sum(0)
        self._add_patches(read, len(y), samples)

    def _chosen(self, rows: torch.Tensor, samples: int) -> torch.Tensor:
        """Positions to look at in a batch, ascending, on the device of its rows (positions, channels)."""
        positions, channels = rows.shape
        per_sample = max(POSITIONS, -(-ROWS_PER_CHANNEL * channels // self.samples))
        count = per_sample * samples
        if count >= positions:
            return torch.arange(positions, device=rows.device)
        drawn = torch.randint(positions, (count,), generator=self.generator).sort().values
        return drawn.to(rows.device)

    def _add_patches(self, x: torch.Tensor, positions: int, samples: int) -> None:
        layer, weight = self.layer, self.weight
        features = weight.numel() // weight.shape[layer.out_dim]
        if features == weight.shape[layer.in_dim] or features > PATCH_FEATURES or layer.in_dim == 0:
            return
        share = min(positions, -(-PATCH_ROWS * samples // self.samples))
        chosen = torch.randperm(positions, generator=self.generator)[:share]
        self.patches.add(patch_rows(self.node, layer, x, weight)(chosen.to(x.device)))

    def totals(self) -> LayerTotals:
        """The sums of all batches so far, on the CPU."""
        inputs, outputs = self.inputs.totals(), self.outputs.totals()
        assert inputs is not None and outputs is not None
        return LayerTotals(
            self.n,
            self.positions,
            inputs,
            outputs,
            self.patches.totals(),
            np.concatenate(self.reduced) if self.axis is not None else None,
            self.slopes.cpu().numpy() if isinstance(self.slopes, torch.Tensor) else 0.0,
            self.taylor.cpu().numpy() if isinstance(self.taylor, torch.Tensor) else 0.0,
            self.axis,
        )


def _rows(value: torch.Tensor, channel_dim: int) -> torch.Tensor:
    """Shape (positions, channels); a view where channels are last in memory."""
    return value.movedim(channel_dim, -1).flatten(0, -2)


def _second(rows: torch.Tensor) -> torch.Tensor:
    """Sum of xxᵀ, or of x² for more than FULL_COVARIANCE columns; float64."""
    total: Any = 0.0
    for block in rows.split(BLOCK):
        full = block.shape[1] <= FULL_COVARIANCE
        total = total + float64(block.T @ block if full else block.square().sum(0))
    return (total + total.T) / 2 if rows.shape[1] <= FULL_COVARIANCE else torch.as_tensor(total)
