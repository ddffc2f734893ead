"""Run a Trace over data: outputs as arrays, in batches, without gradients."""

from __future__ import annotations

import copy as copying
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgeprune.data import Dataset, iterate
from edgeprune.graph.trace import run

Arrays = tuple[npt.NDArray[np.generic], ...]
STRIDED = (torch.ops.aten.as_strided.default,)


def tensors(inputs: Arrays) -> tuple[torch.Tensor, ...]:
    """A batch of arrays as tensors."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)


def batches(
    dataset: Dataset, indices: npt.NDArray[np.int64], batch_size: int
) -> Iterator[tuple[tuple[torch.Tensor, ...], npt.NDArray[np.int64] | None]]:
    """Batches of input tensors with their labels, in order."""
    for inputs, labels in iterate(dataset, indices, batch_size):
        yield tensors(inputs), labels


def outputs(
    graph: fx.GraphModule,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    batch_size: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Arrays:
    """All outputs of the graph for some samples, samples first; one array per output."""
    parts: list[Arrays] = []
    done = 0
    fast = to_channels_last(graph)
    with torch.no_grad():
        for inputs, _ in batches(dataset, indices, batch_size):
            size = len(inputs[0])
            parts.append(tuple(samples_first(x, size).numpy() for x in run(fast, inputs)))
            done += size
            if progress:
                progress(done, len(indices))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def samples_first(x: torch.Tensor, samples: int) -> torch.Tensor:
    """An output with its samples in dimension 0; floats as float32.

    Sequence models may put samples second. What holds no samples, such as a table of anchors, is the same
    for each of them.
    """
    x = x.float() if x.is_floating_point() else x
    if x.dim() and len(x) == samples:
        return x
    if x.dim() > 1 and x.shape[1] == samples:
        return x.transpose(0, 1)
    return x.expand(samples, *x.shape)


def to_channels_last(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy that computes the same with channels last, which convolutions on a CPU prefer (about 1.4×).

    Results differ from the original's by rounding only. A view needs strides that this
    layout does not have, so the copy reshapes instead; a graph that fixes strides is copied as it is.
    """
    quick = copying.deepcopy(graph)
    if any(node.target in STRIDED for node in quick.graph.nodes):
        return quick
    for node in quick.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    for tensor in (*quick.parameters(), *quick.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    quick.recompile()
    return quick


def reference(
    graph: fx.GraphModule,
) -> Callable[[tuple[npt.NDArray[np.generic], ...]], tuple[npt.NDArray[np.generic], ...]]:
    """The graph as a function on arrays, for parity."""

    def call(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            return tuple(x.numpy() for x in run(graph, tensors(inputs)))

    return call
