"""Cut components and win back in closed form what the dense network computed; no labels, no training.

    smaller, fits = recover_closed_form(trace, couplings, removed, calibration_batches)

The dense and the pruned graph run side by side, operator by operator, over the calibration images. Each
affected layer is refitted so that its outputs match the dense outputs given the pruned inputs that it
really gets: W' = W_K + E[r·pᵀ]·(E[p·pᵀ] + λI)⁻¹ with r the dense output minus the pruned one and p the
input patch. Grouped and depthwise convolutions have one regression per group, squeeze-and-excitation
layers are layers like any other, the last layer of a residual block makes up for its skip connection too,
and normalisations that follow no refitted layer get a scale and a shift per channel. λ is the best of
ridge.RIDGES on held-out images. Kin: ThiNet, OBC, GRAIL, REPAIR.

Guarantee: with nothing removed no tensor changes, whatever the calibration images are; batch norms keep
the statistics of their training data up to ratios of pruned to dense moments. The dense trace is not
written to. Elsewhere: regressions (fits, ridge), norms (norms), training (finetune).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from edgeprune.coupling.components import BoolArray, Couplings, Layer
from edgeprune.graph.compute import CPU, Compute, in_memory
from edgeprune.graph.module import attribute
from edgeprune.graph.trace import Trace
from edgeprune.recovery.fits import Fit, LayerTask, fit_layer, skip_of
from edgeprune.recovery.lockstep import MEMORY, Batches, LockstepInterpreter
from edgeprune.recovery.norms import NORMS, NormTask, fit_norm, match_moments
from edgeprune.surgery.cut import cut

aten = torch.ops.aten
SPLIT = 16  # images of one batch: activations are held and dropped by batches


def recover_closed_form(
    dense: Trace,
    couplings: Couplings,
    removed: BoolArray,
    calibration_batches: Sequence[tuple[torch.Tensor, ...]],
    *,
    refit: bool = True,
    memory: int = MEMORY,
    compute: Compute = CPU,
) -> tuple[Trace, tuple[Fit, ...]]:
    """The pruned trace and what was done at each layer.

    Args:
        removed: boolean, shape (couplings.count,).
        calibration_batches: inputs, samples in dimension 0.
        refit: fit weights; otherwise batch norms get the dense network's moments, and that is all.
        memory: bytes of activations to hold, at least one batch's.
        compute: where; a device without float64 leaves the solves to the CPU.
    """
    pruned = cut(dense, couplings, removed)
    if not removed.any() or not calibration_batches:
        return pruned, ()
    at = compute if compute.float64 else CPU
    split = _split(calibration_batches, free=all(dense.dynamic))

    def attempt(bytes_held: int) -> tuple[fx.GraphModule, tuple[Fit, ...]]:
        lanes = [replace(t, graph=at.place(t.graph)) for t in (dense, pruned)]
        batches = [at.put(batch) for batch in split]
        with torch.no_grad():
            fits = _recover(lanes, couplings, removed, batches, refit=refit, memory=bytes_held)
        return lanes[1].graph, fits

    refitted, fits = in_memory(attempt, memory, "closed-form recovery, bytes of activations")
    pruned.graph.load_state_dict(refitted.state_dict())
    return pruned, fits


def _recover(
    lanes: list[Trace],
    couplings: Couplings,
    removed: BoolArray,
    batches: Batches,
    *,
    refit: bool,
    memory: int,
) -> tuple[Fit, ...]:
    """Refit the second lane, the pruned network, in place."""
    dense, pruned = (lane.graph for lane in lanes)
    layers = {layer.node: layer for layer in couplings.layers if layer.weight}
    twins = {n.name: n for n in pruned.graph.nodes}
    fits: list[Fit] = []
    changed: set[str] = set()
    settled: set[str] = set()  # layers with a regression of their own: their outputs are as good as they get
    for node in (walk := LockstepInterpreter(lanes, batches, memory)):
        twin = twins.get(node.name)
        layer = layers.get(node.name)
        if twin is None or node.op != "call_function":
            continue
        repairs = refit and layer is not None and skip_of(twin) in changed
        if not repairs and not differs(node, couplings, removed, changed):
            continue
        changed.add(node.name)
        fit = None
        if refit and layer is not None and not _shared(pruned, _tensors_of(layer)):
            kept = _kept(layer, couplings, removed, attribute(pruned, str(layer.weight)).device)
            fit = fit_layer(LayerTask(dense, pruned, twin, layer, walk, *kept))
            if fit is not None:
                settled.add(node.name)
        elif twin.target in NORMS and not _shared(pruned, _arguments(twin)):
            task = NormTask(pruned, twin, walk, _norm_keep(twin, couplings, removed, walk))
            if not refit:
                fit = match_moments(task) if twin.target is aten.batch_norm.default else None
            elif twin.args[0].name not in settled:
                fit = fit_norm(task)
        if fit is not None:
            fits.append(fit)
            walk.again(node, 1)
    return tuple(fits)


def differs(node: fx.Node, couplings: Couplings, removed: BoolArray, changed: set[str]) -> bool:
    """Whether something upstream of the node, or one of its operands, lost channels."""
    for source in node.all_input_nodes:
        if source.name in changed:
            return True
        spots = couplings.values.get(source.name, ())
        for dims in spots:
            if any(not couplings.keep_mask(e, removed).all() for channel_maps in dims for e in channel_maps):
                return True
    return False


def _split(batches: Batches, *, free: bool) -> list[tuple[torch.Tensor, ...]]:
    """Batches of at most SPLIT images, where the graph takes any number."""
    if not free:
        return list(batches)
    return [
        tuple(x[i : i + SPLIT] for x in batch) for batch in batches for i in range(0, len(batch[0]), SPLIT)
    ]


def _kept(
    layer: Layer, couplings: Couplings, removed: BoolArray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept indices of a layer's inputs and outputs."""
    first, second = (
        torch.from_numpy(np.flatnonzero(couplings.keep_mask(e, removed))).to(device)
        for e in (layer.inputs, layer.outputs)
    )
    return first, second


def _norm_keep(
    node: fx.Node, couplings: Couplings, removed: BoolArray, walk: LockstepInterpreter
) -> torch.Tensor:
    """Kept channels of a normalisation, read off any of its tensors; all where it has none."""
    read = walk.values[0][node.name][0]
    for name in _arguments(node):
        maps = couplings.tensors.get(couplings.aliases.get(name, ""), ())
        if maps and maps[0] is not None:
            return torch.from_numpy(np.flatnonzero(couplings.keep_mask(maps[0], removed))).to(read.device)
    return torch.arange(read.shape[NORMS[node.target][2]], device=read.device)


def _tensors_of(layer: Layer) -> list[str]:
    return [name for name in (layer.weight, layer.bias) if name]


def _arguments(node: fx.Node) -> list[str]:
    return [str(a.target) for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]


def _shared(graph: fx.GraphModule, names: list[str]) -> bool:
    """Whether anything else uses one of the tensors: it cannot be fitted to one reader."""
    readers = [n for n in graph.graph.nodes if n.op == "get_attr"]
    for tensor in (attribute(graph, name) for name in names):
        if sum(len(n.users) for n in readers if attribute(graph, str(n.target)) is tensor) > 1:
            return True
    return False
