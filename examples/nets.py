# mypy: allow-subclassing-any
"""The image networks of the examples, each rebuilt from its layers' widths.

    fashion_resnet()                               # the dense network
    fashion_resnet({"stage1.conv1": 17})           # the same with one layer narrower
    fashion_resnet(widths_of(shapes))              # the shape that pruning left

Every factory takes `widths`, layer path → output channels; a layer that is not
named keeps its dense width. Layers that a residual add ties share one width and
may be named by any of their paths. Inputs are float32 (batch, 1, 28, 28) in 0..1,
that is uint8/255 with no mean or scale: black, the value of the zero padding, is
the background. Outputs are 10 logits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.errors import ModelError

Widths = Mapping[str, int]
CLASSES = 10


def fashion_resnet(widths: Widths | None = None) -> nn.Module:
    """Residual network, 14.3 million multiply-adds: an identity block and two with projections."""
    return FashionResNet(resolve(FashionResNet.dense, widths, FashionResNet.tied))


def fashion_plain(widths: Widths | None = None) -> nn.Module:
    """Five plain convolutions, 24-32-48-48-96, with batch norm; 5.1 million multiply-adds."""
    return PlainNet(resolve(_row(24, 32, 48, 48, 96), widths), pools=(0, 1))


def demo_cnn(widths: Widths | None = None) -> nn.Module:
    """Four plain convolutions, wider than the task needs: there is something to prune."""
    return PlainNet(resolve(_row(32, 64, 96, 96), widths), pools=(0, 1))


def fashion_dw(widths: Widths | None = None) -> nn.Module:
    """Inverted residuals: expand (1×1), depthwise (3×3), project (1×1); 3.0 million multiply-adds."""
    return InvertedNet(resolve(InvertedNet.dense, widths, InvertedNet.tied))


IMAGE_NETS = {
    "fashion_resnet": fashion_resnet,
    "fashion_plain": fashion_plain,
    "fashion_dw": fashion_dw,
    "demo_cnn": demo_cnn,
}


def widths_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Read layer widths from parameter shapes: the leading size of every weight of two dimensions or more."""
    return {
        name.removesuffix(".weight"): int(shape[0])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) > 1
    }


def resolve(dense: Widths, widths: Widths | None, tied: Mapping[str, str] | None = None) -> dict[str, int]:
    """Complete `widths` by the dense ones; `tied` maps a path to the one whose width it shares.

    Raises:
        ModelError: an unknown path, a width below 1, or two widths for one tied group.
    """
    tied = tied or {}
    given: dict[str, int] = {}
    for path, width in (widths or {}).items():
        if path in FIXED:
            continue
        name = tied.get(path, path)
        if name not in dense:
            raise ModelError(
                f"no layer '{path}' to give a width", tip=f"layers are {', '.join([*dense, *tied])}"
            )
        if width < 1:
            raise ModelError(f"layer '{path}' was given {width} channels", tip="leave at least one")
        if given.setdefault(name, int(width)) != width:
            raise ModelError(f"'{path}' and '{name}' are added, but have {width} and {given[name]} channels")
    return {**dense, **given}


FIXED = {"classifier"}  # its width is the number of classes; shape files name it all the same


def _row(*outputs: int) -> dict[str, int]:
    return {f"layers.{i}.conv": width for i, width in enumerate(outputs)}


class ConvNorm(nn.Module):
    """Convolution, batch norm and, unless told otherwise, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x) if self.act else x


class Residual(nn.Module):
    """relu(conv(conv(x)) + x), with a 1×1 projection of x where its shape changes."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, middle, 3, stride)
        self.conv2 = ConvNorm(middle, outputs, 3, act=False)
        self.skip = ConvNorm(inputs, outputs, 1, stride, act=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.skip(x))


class FashionResNet(nn.Module):
    """Nine convolutions; the stem and the first block work at 28×28 and 14×14, the others at 7×7 and 4×4."""

    dense: ClassVar[Widths] = {
        "stem.conv": 40,
        "stage1.conv1.conv": 40,
        "stage2.conv1.conv": 80,
        "stage2.conv2.conv": 80,
        "stage3.conv1.conv": 128,
        "stage3.conv2.conv": 128,
    }
    tied: ClassVar[Mapping[str, str]] = {
        "stage1.conv2.conv": "stem.conv",
        "stage2.skip.conv": "stage2.conv2.conv",
        "stage3.skip.conv": "stage3.conv2.conv",
    }

    def __init__(self, w: Widths) -> None:
        super().__init__()
        stem, two, three = w["stem.conv"], w["stage2.conv2.conv"], w["stage3.conv2.conv"]
        self.stem = ConvNorm(1, stem, 3)
        self.stage1 = Residual(stem, w["stage1.conv1.conv"], stem, 1)
        self.stage2 = Residual(stem, w["stage2.conv1.conv"], two, 2)
        self.stage3 = Residual(two, w["stage3.conv1.conv"], three, 2)
        self.classifier = nn.Linear(three, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.classifier(x.mean((2, 3)))


class PlainNet(nn.Module):
    """3×3 convolutions in a row, a max pool after those in `pools`, then the mean over positions."""

    def __init__(self, w: Widths, pools: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [1, *w.values()]
        self.layers = nn.ModuleList(ConvNorm(i, o, 3) for i, o in itertools.pairwise(sizes))
        self.pools = pools
        self.classifier = nn.Linear(sizes[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.pools:
                x = F.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV2's block; x is added where the shape allows it."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, add: bool) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, hidden, 1)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.project = ConvNorm(hidden, outputs, 1, act=False)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.add else y


class InvertedNet(nn.Module):
    """A stem at 28×28, then inverted residuals at 14×14, 7×7 and 4×4, and a wide 1×1 head."""

    dense: ClassVar[Widths] = {
        "stem.conv": 24,
        "block1.expand.conv": 72,
        "block2.expand.conv": 96,
        "block2.project.conv": 32,
        "block3.expand.conv": 128,
        "block4.expand.conv": 128,
        "block4.project.conv": 64,
        "block5.expand.conv": 192,
        "head.conv": 192,
    }
    tied: ClassVar[Mapping[str, str]] = {
        **{f"block{i}.depthwise.conv": f"block{i}.expand.conv" for i in range(1, 6)},
        "block1.project.conv": "stem.conv",
        "block3.project.conv": "block2.project.conv",
        "block5.project.conv": "block4.project.conv",
    }

    def __init__(self, w: Widths) -> None:
        super().__init__()
        one, two, three = w["stem.conv"], w["block2.project.conv"], w["block4.project.conv"]
        hidden = [w[f"block{i}.expand.conv"] for i in range(1, 6)]
        self.stem = ConvNorm(1, one, 3)
        self.block1 = Inverted(one, hidden[0], one, 1, add=True)
        self.block2 = Inverted(one, hidden[1], two, 2, add=False)
        self.block3 = Inverted(two, hidden[2], two, 1, add=True)
        self.block4 = Inverted(two, hidden[3], three, 2, add=False)
        self.block5 = Inverted(three, hidden[4], three, 1, add=True)
        self.head = ConvNorm(three, w["head.conv"], 1)
        self.classifier = nn.Linear(w["head.conv"], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5):
            x = block(x)
        return self.classifier(self.head(x).mean((2, 3)))


def calm_start(model: nn.Module) -> nn.Module:
    """He initialisation of the convolutions, and residual branches that start at zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, Residual):
            nn.init.zeros_(module.conv2.norm.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    return model
