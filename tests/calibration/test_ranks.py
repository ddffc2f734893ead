"""Statistics at several ranks: the same bits, one error for all, and an end where a rank is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgeprune.calibration.shards import add_shards, shard_bounds
from edgeprune.calibration.totals import MomentTotals
from edgeprune.ranks import Ranks

ROOT = Path(__file__).parents[2]
WORKER = """
import hashlib, os, sys
import numpy as np, torch
torch.set_num_threads(1)
import nets
from edgeprune.calibration.capture import capture
from edgeprune.coupling.analysis import analyse
from edgeprune.data import open_data
from edgeprune.errors import EdgepruneError
from edgeprune.graph.compute import open_compute
from edgeprune.graph.execution import outputs
from edgeprune.graph.trace import trace
from edgeprune.tasks.registry import resolve_task

net, inputs = nets.build("residual", seed=0, dtype=torch.float32)
traced = trace(net, inputs)
rng = np.random.default_rng(0)
x = rng.normal(size=(331, *inputs[0].shape[1:])).astype(np.float32)
class Items:  # read one by one, so that NaN is met where its sample is read
    def __init__(self): self.targets = rng.integers(0, 3, len(x))
    def __len__(self): return len(x)
    def __getitem__(self, i):
        if sys.argv[2] == "nan" and i == 330: return np.full_like(x[i], np.nan), 0
        return x[i], self.targets[i]
try:
    compute = open_compute("cpu")
    if sys.argv[2] == "killed" and compute.ranks.rank == 1: os._exit(9)
    data = open_data(Items(), input_shapes=[x.shape[1:]])
    task = resolve_task("classification")
    compute.ranks.require_same({"data": data.sha256 if sys.argv[2] != "differs" else os.environ["RANK"]})
    found = capture(traced, analyse(traced), data, np.arange(331), task=task, compute=compute)
    digest = hashlib.sha256()
    for layer in found.layers.values():
        for name in ("mean", "second", "reduced", "taylor", "slopes", "output_std"):
            digest.update(np.ascontiguousarray(getattr(layer, name)).tobytes())
    digest.update(found.other_readings.tobytes()); digest.update(found.labels.tobytes())
    digest.update(outputs(traced.graph, data, np.arange(331), 32, compute=compute)[0].tobytes())
    print("sha256", digest.hexdigest(), flush=True)
except EdgepruneError as error:
    print("error", type(error).__name__, error, flush=True)
"""


def started(tmp_path, size, how="plain"):
    """What `size` ranks printed; they meet at a free port."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    base = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests/support'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    meet["EDGEPRUNE_RANK_TIMEOUT"] = "500"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), how], text=True, stdout=subprocess.PIPE,
            env=base if size == 1 else {**base, **meet, "RANK": str(rank)},
        )
        for rank in range(size)
    ]  # fmt: skip
    return [process.communicate(timeout=600)[0].strip().splitlines()[-1:] for process in processes]


def test_statistics_and_outputs_are_the_same_bits_at_one_two_and_three_ranks(tmp_path):
    """331 samples divide by neither; all ranks get all of it."""
    (alone,) = started(tmp_path, 1)
    assert alone[0].startswith("sha256 ")
    assert started(tmp_path, 2) == [alone] * 2
    assert started(tmp_path, 3) == [alone] * 3


def test_a_rank_that_dies_ends_the_others_with_one_sentence(tmp_path):
    """Long before the timeout: its connection is closed."""
    first, dead = started(tmp_path, 2, "killed")
    assert not dead
    assert first[0].startswith("error RankError") and "another rank ended" in first[0]


def test_nan_on_one_rank_is_an_error_on_all(tmp_path):
    """The rank that read it raises DataError, the other says which rank and what."""
    first, second = started(tmp_path, 2, "nan")
    assert second[0].startswith("error DataError") and "sample 330 holds NaN" in second[0]
    assert first[0].startswith("error RankError rank 1 of 2: DataError")


def test_ranks_with_different_data_are_refused(tmp_path):
    """Before anything is computed."""
    first, second = started(tmp_path, 2, "differs")
    assert first[0].startswith("error RankError") and "ranks differ in data" in first[0]
    assert second[0].startswith("error RankError")


@pytest.mark.parametrize("samples", [1, 5, 63, 64, 65, 331, 820, 50_000])
def test_shards_cover_all_samples_in_whole_batches(samples):
    """None is empty, none overlaps, and only the last may end within a batch."""
    bounds = shard_bounds(samples, 32)
    assert [b for b, _ in bounds] == [0, *(e for _, e in bounds[:-1])] and bounds[-1][1] == samples
    assert all(end > begin and begin % 32 == 0 for begin, end in bounds)


class _Label(str):
    """A sum that remembers the order of its additions."""

    def __add__(self, other):
        return _Label(f"({self!s}+{other!s})")


@pytest.mark.parametrize("shards", [1, 2, 5, 13, 64])
def test_the_tree_of_additions_does_not_depend_on_the_number_of_ranks(shards):
    """Also with more ranks than shards."""

    def tree(size):
        class Together(Ranks):
            def gather(self, work):
                gathered = []
                for rank in range(size):
                    parts = {}
                    mine = Ranks(rank, size).slice_of(shards)
                    add_local(parts, mine)
                    gathered.append(parts)
                return gathered

        from edgeprune.calibration.shards import _push

        def add_local(parts, mine):
            for shard in mine:
                _push(parts, 0, shard, _Label(shard), shards)

        return add_shards(shards, lambda shard: _Label(shard), Together(0, size))

    assert len({tree(size) for size in (1, 2, 3, 7, 100)}) == 1


def test_moments_about_different_offsets_add_to_the_moments_of_all_rows():
    """Mean and second moment equal NumPy's over both parts."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 4)) + 7

    def totals(part, offset):
        centred = part - offset
        return MomentTotals(len(part), offset, centred.sum(0), centred.T @ centred)

    both = totals(rows[:20], rows[0]) + totals(rows[20:], rows[30])
    mean, second = both.means()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(second, rows.T @ rows / 50, rtol=1e-12)
