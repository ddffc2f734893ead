"""Where data are computed: the device, the precision of training, the memory layout.

    compute = open_compute("auto")         cuda, xpu or mps where torch reports one, else the CPU
    graph = compute.place(trace.graph)     a copy on the device, channels last
    outputs = run(graph, compute.put(inputs))

Rooms that run a network over data take a Compute and give back values on the CPU. Surgery, export, parity
and timing take none. Tasks see outputs on the CPU in float32.

Guarantee: on the CPU `place` and `put` do what was done before there were accelerators; no result changes.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import fx

from edgeprune.errors import OptionError
from edgeprune.graph.module import attribute
from edgeprune.ranks import ALONE, Ranks, open_ranks

STRIDED = (torch.ops.aten.as_strided.default,)
Result = TypeVar("Result")
ACCELERATORS = ("cuda", "mps", "xpu")
HOST = torch.device("cpu")
SPEC = re.compile(r"(auto|cpu|mps|xpu|cuda)(?::(\d+))?")


@dataclass(frozen=True)
class Compute:
    """Device and ranks of a run; autocast is the dtype of fine-tuning, None for the network's own."""

    device: torch.device = HOST
    autocast: torch.dtype | None = None
    channels_last: bool = True
    ranks: Ranks = ALONE

    @property
    def float64(self) -> bool:
        """Whether the device computes in float64, which closed-form solves need."""
        return str(self.device.type) != "mps"

    def place(self, graph: fx.GraphModule) -> fx.GraphModule:
        """A copy of the graph on the device."""
        copied = to_channels_last(graph, layout=self.channels_last)
        return copied if self.device.type == "cpu" else _moved(copied, self.device)

    def put(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """A batch on the device; from pinned memory the copy overlaps with computing."""
        if self.device.type == "cpu":
            return batch
        return tuple(x.to(self.device, non_blocking=True) for x in batch)

    def training(self) -> contextlib.AbstractContextManager[object]:
        """The precision that a training step's forward pass runs in."""
        if self.autocast is None:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[object] = torch.autocast(
            self.device.type, dtype=self.autocast
        )
        return context


CPU = Compute()


def open_compute(spec: str) -> Compute:
    """The device that `--accelerator` names: auto, cpu, cuda, cuda:N, mps or xpu.

    Raises:
        OptionError: another word, or a device that is not there; what is there is named.
    """
    device, ranks = _device(spec), open_ranks()
    if device.type == "cpu":
        return Compute(ranks=ranks)
    if device.type != "cuda":
        return Compute(device, channels_last=device.type != "mps", ranks=ranks)
    torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa would move scores by 1e-3
    return Compute(device, torch.bfloat16 if torch.cuda.is_bf16_supported() else None, ranks=ranks)


def known_accelerator(spec: str) -> bool:
    """Whether a text is one of the forms of `--accelerator`, present or not."""
    return SPEC.fullmatch(spec) is not None


def float64(x: torch.Tensor) -> torch.Tensor:
    """In float64, on the same device where it has that type, else on the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def in_memory(attempt: Callable[[int], Result], size: int, what: str) -> Result:
    """Call `attempt(size)`, with half the size each time that the accelerator runs out of memory.

    Raises:
        torch.OutOfMemoryError: a size of 1 does not fit either.
    """
    while True:
        try:
            return attempt(size)
        except torch.OutOfMemoryError:
            if size <= 1:
                raise
            size //= 2
        warnings.warn(f"{what}: the accelerator is out of memory; going on with {size}", stacklevel=2)
        if torch.accelerator.is_available():
            torch.accelerator.memory.empty_cache()


def to_channels_last(graph: fx.GraphModule, *, layout: bool = True) -> fx.GraphModule:
    """A copy that computes the same with channels last, which convolutions on a CPU prefer (about 1.4×).

    Results differ from the original's by rounding only. A view needs strides that this
    layout does not have, so the copy reshapes instead; a graph that fixes strides is copied as it is, and
    so is any without `layout`.
    """
    quick = copy.deepcopy(graph)
    if not layout or any(node.target in STRIDED for node in quick.graph.nodes):
        return quick
    for node in quick.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    for tensor in (*quick.parameters(), *quick.buffers()):
        if tensor.dim() == 4 and not tensor.is_contiguous(memory_format=torch.channels_last):
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    quick.recompile()
    return quick


def _moved(graph: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """The graph on a device: its tensors, registered or not, and what its operators create."""
    graph = graph.to(device)
    for node in graph.graph.nodes:
        if node.op == "get_attr" and isinstance(value := attribute(graph, node.target), torch.Tensor):
            if value.device.type != device.type:
                owner, _, name = node.target.rpartition(".")
                setattr(graph.get_submodule(owner), name, value.to(device))
        elif "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}
    graph.recompile()
    return graph


def _device(spec: str) -> torch.device:
    match = SPEC.fullmatch(spec)
    if match is None or (match[2] is not None and match[1] != "cuda"):
        raise OptionError(f"--accelerator {spec}: not one of auto, cpu, cuda, cuda:N, mps, xpu")
    present = torch.accelerator.current_accelerator(check_available=True)
    if match[1] == "cpu" or (match[1] == "auto" and (present is None or present.type not in ACCELERATORS)):
        return HOST
    if present is None or (match[1] != "auto" and match[1] != present.type):
        there = "no accelerator" if present is None else present.type
        raise OptionError(
            f"--accelerator {spec}: torch {torch.__version__} reports {there} on this machine",
            tip="use --accelerator auto or cpu, or install a torch built for that device",
        )
    count = torch.accelerator.device_count()
    local = int(os.environ.get("LOCAL_RANK", torch.accelerator.current_device_index())) % count
    index = int(match[2]) if match[2] is not None else local
    if index >= count:
        raise OptionError(f"--accelerator {spec}: this machine has {count}, numbered from 0")
    return torch.device(present.type, index)
