"""Time ONNX files, here or on a device: the runner, its host side, the statistics of its samples.

`why` compares two files operator by operator and says where the time that should have gone went.
"""

from edgeprune.bench.files import model_files
from edgeprune.bench.host import run_bench
from edgeprune.bench.operators import HostTimer, profile_operators
from edgeprune.bench.why import run_report, why

__all__ = ["HostTimer", "model_files", "profile_operators", "run_bench", "run_report", "why"]
