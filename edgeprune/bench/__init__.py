"""Time ONNX files, here or on a device: the runner, its host side, the statistics of its samples."""

from edgeprune.bench.files import model_files
from edgeprune.bench.host import run_bench

__all__ = ["model_files", "run_bench"]
