"""Free the batch of a program that was exported for one batch size.

`torch.export.export(model, (torch.randn(1, …),))` writes the batch into every view. Where
it stands as a leading size it can be left to inference (−1) or read from the input.
Guarantee: the freed trace was exported again with a free batch and gave the outputs of the
given one on five different batches; where either fails, None, and the given one stays.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from edgeprune.errors import TraceError
from edgeprune.graph.trace import Trace, reexport, run, trace

aten = torch.ops.aten
VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
CHUNKS, TOLERANCE = 5, 1e-4


def free_batch(fixed: Trace) -> Trace | None:
    """The same network with a free batch, proven; None where that fails or an input has no batch."""
    sizes = {len(x) for x in fixed.inputs if x.dim()}
    if len(sizes) != 1 or any(fixed.dynamic) or not all(x.dim() for x in fixed.inputs):
        return None
    batch = sizes.pop()
    graph = fixed.copy()
    _rewrite(graph, batch)
    chunks = [fixed.inputs, *(_different(fixed.inputs, seed) for seed in range(1, CHUNKS))]
    together = tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))
    try:
        with _silent():
            freed = trace(reexport(graph, together, (True,) * len(together)), interface=fixed.interface)
        with torch.no_grad():
            wanted = [run(fixed.graph, inputs) for inputs in chunks]
            actual = run(freed.graph, together)
    except (TraceError, RuntimeError, ValueError):
        return None
    if not all(freed.dynamic) or any(out.dim() == 0 for out in actual):
        return None
    expected = [torch.cat(parts) for parts in zip(*wanted, strict=True)]
    return freed if all(map(_same, actual, expected)) else None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep torch from logging a failed attempt as an error: failing is one of the two answers."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _rewrite(graph: fx.GraphModule, batch: int) -> None:
    source = next(n for n in graph.graph.nodes if n.op == "placeholder")
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in VIEWS:
            shape = [int(n) for n in node.meta["val"].shape]  # an inferred size is known, and frees the −1
            if shape and shape[0] and shape[0] % batch == 0:
                node.args = (node.args[0], [-1, *shape[1:]])
        elif node.target is aten.expand.default:
            shape = list(node.args[1])
            if shape and shape[0] == batch:
                before = node.args[0].meta["val"].shape
                grows = len(shape) > len(before) or before[0] != batch
                with graph.graph.inserting_before(node):
                    size: Any = graph.graph.call_function(aten.sym_size.int, (source, 0)) if grows else -1
                node.args = (node.args[0], [size, *shape[1:]])
    graph.recompile()


def _different(inputs: tuple[torch.Tensor, ...], seed: int) -> tuple[torch.Tensor, ...]:
    """Inputs of the same shapes with other values: noise, or the integers in another order."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for x in inputs:
        if x.is_floating_point():
            samples.append(torch.randn(x.shape, generator=generator, dtype=x.dtype))
        else:
            order = torch.randperm(x.numel(), generator=generator)
            samples.append(x.reshape(-1)[order].reshape(x.shape))
    return tuple(samples)


def _same(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    if not actual.is_floating_point():
        return bool((actual == expected).all())
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return bool(torch.isfinite(actual).all()) and float((actual - expected).abs().max()) <= TOLERANCE * scale
