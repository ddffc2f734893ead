"""Trained weights by themselves: a state dict from any file that holds one. No code of the file is run."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.checkpoints import tensors_in
from edgeprune.frontend.load import load_model
from edgeprune.frontend.pickles import read_weights
from edgeprune.frontend.sniff import sniff


def read_state_dict(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors of a safetensors file, a torch.save checkpoint or a .pt2, by name, and notes.

    Raises:
        ModelError: missing, damaged, or without a state dict.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", tip="give the trained weights") from error
    kind = sniff(content, str(path))
    if kind == "exported":
        return dict(load_model(path).program.state_dict), ()
    if kind == "safetensors":
        import safetensors.torch

        try:
            return tensors_in(dict(safetensors.torch.load(content)), str(path))
        except Exception as error:
            raise ModelError(f"{path}: damaged safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters raises
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:
        saved = read_weights(content, str(path))
    return tensors_in(saved, str(path))
