"""Every row of the coverage table: how its model is built and what it is fed.

torchvision: every float model of `torchvision.models.list_models()`, untrained, on the smallest
input that its architecture takes. transformers: small configurations, untrained. No library
code is patched; where a model takes more than tensors, a wrapper names the arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SIZES = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 112, "vit_l_16": 96, "vit_b_16": 96}


@dataclass(frozen=True)
class Row:
    """A model, a batch of inputs for it, and whether only parts of it can be traced."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    parts: bool = False


def image(*shape: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    return lambda n: (torch.randn(n, *shape),)


class LastFlow(nn.Module):
    """RAFT gives one flow per refinement; the last is the answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.model(first, second)[-1]


def torchvision_rows() -> dict[str, Row]:
    import torchvision

    rows: dict[str, Row] = {}
    for name in sorted(torchvision.models.list_models(), key=_parameters):
        module = torchvision.models.get_model_builder(name).__module__
        if ".quantization" in module:
            continue  # the twelve float models once more, with quantisation stubs
        rows[name] = _torchvision(name, module)
    return rows


def _parameters(name: str) -> int:
    """As published with the weights; the cheap rows come first."""
    import torchvision

    published = torchvision.models.get_model_weights(name)
    return min((w.meta["num_params"] for w in published), default=0)


def _torchvision(name: str, module: str) -> Row:
    import torchvision

    def build(**options: Any) -> Callable[[], nn.Module]:
        return lambda: torchvision.models.get_model(name, weights=None, **options)

    if ".detection" in module:
        small = {} if name.startswith("ssd") else {"min_size": 128, "max_size": 128}
        return Row(
            build(weights_backbone=None, **small),
            lambda n: tuple(torch.rand(3, 128, 128) for _ in range(n)),
            parts=True,
        )
    if ".segmentation" in module:
        return Row(build(weights_backbone=None, aux_loss=None), image(3, 64, 64))
    if ".optical_flow" in module:
        return Row(
            lambda: LastFlow(build()()),
            lambda n: (torch.rand(n, 3, 128, 128) * 2 - 1, torch.rand(n, 3, 128, 128) * 2 - 1),
        )
    if ".video" in module:
        full = name == "s3d" or name.startswith("mvit")  # their pools and position tables know no less
        return Row(build(), image(3, 16, 224, 224) if full else image(3, 8, 64, 64))
    size = SIZES.get(name, 64)
    if name.startswith("vit"):
        size = SIZES.get(name, 64)
        return Row(build(image_size=size), image(3, size, size))
    if name in ("googlenet", "inception_v3"):
        return Row(build(init_weights=True, aux_logits=False), image(3, size, size))
    return Row(build(), image(3, size, size))
