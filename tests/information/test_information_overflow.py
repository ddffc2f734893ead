"""Counts that no samples can have made, and sizes that no memory holds: refused before anything wraps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune import information
from edgeprune.errors import DataError

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 4
CODES = information.quantize(X, 7)


@pytest.mark.parametrize("rest", [1000, 10_000])
@pytest.mark.parametrize(
    "name", ["table_statistics", "mutual_information", "entropy", "conditional_entropy", "p_values"]
)
def test_counts_beyond_32_bits_are_refused_by_channel(name: str, rest: int):
    """A column of 2^32 + 1000 wrapped to 1000, and its cells then indexed a table far beyond its end."""
    table = f"np.array([[[3, 1]] * 2, [[2**31 + {rest}, 0], [2**31, 5 * {rest}]]], np.uint32)"
    script = (
        "import numpy as np\nfrom edgeprune import information\nfrom edgeprune.errors import DataError\n"
        f"try:\n    information.{name}({table})\nexcept DataError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert f"counts of channel 1 add up to {2**32 + 6 * rest}, at most 4294967295" in run.stdout


def test_counts_up_to_32_bits_are_right():
    """At 2^32 - 1 samples in two by two cells: log 2 less what the one odd sample takes."""
    half = 2**31 - 1
    got = information.table_statistics(np.array([[[half, 0], [0, half + 1]]], np.uint32))
    assert got.samples[0] == 2**32 - 1
    assert got.information[0] == pytest.approx(np.log(2), abs=1e-9)


@pytest.mark.parametrize("kind", ["JointCounts", "EdgeCounts"])
def test_an_overfull_file_is_refused(kind: str, tmp_path: Path):
    """A state of 2 (2^32 - 1) samples was taken: the next update would have wrapped every cell."""
    counts = (
        information.JointCounts(CODES.edges, 4)
        if kind == "JointCounts"
        else information.EdgeCounts(np.ones(3), 4)
    )
    counts._table[:, 0, :2] = 2**32 - 1
    counts.samples = 2 * (2**32 - 1)
    counts.save(tmp_path / "state.npz")
    with pytest.raises(DataError, match=r"state\.npz holds 8589934590 samples, more than can be counted"):
        type(counts).load(tmp_path / "state.npz")


def test_codes_of_more_samples_than_can_be_counted_are_refused():
    """2^32 samples of one byte of memory, by a stride of zero."""
    with pytest.raises(DataError, match="codes have 4294967296 samples"):
        information.Codes(np.broadcast_to(np.zeros((1, 1), np.uint8), (2**32, 1)), 2)


def test_one_stray_label_costs_no_table_of_its_size():
    """Label 16,000,000 among 0..3: with `classes` left out, the labels that occur are numbered anew."""
    stray = np.where(np.arange(60) == 5, 16_000_000, Y)
    near = np.where(np.arange(60) == 5, 4, Y)
    weights, steps = np.ones((1, 3), np.float32), np.ones(1, np.float32)
    for call in (
        lambda y: information.mutual_information(CODES, y),
        lambda y: information.label_information(X, y),
        lambda y: information.label_information(X, y, correction="shuffle"),
        lambda y: information.edge_information(X, y, weights, steps),
        lambda y: information.jmi_selection(CODES, y, 2).score_nats,
        lambda y: information.ross_information(X, y),
    ):
        np.testing.assert_allclose(call(stray), call(near), atol=1e-14)


def test_a_label_beyond_every_class_is_named_with_its_index():
    """2^40 was 'classes is 1099511627777'; a negative one was named only where classes were given."""
    for value in (2**40, 2**24 - 1, -100):
        with pytest.raises(DataError, match=rf"labels\[5\] is {value}, outside 0..16777214"):
            information.label_information(X, np.where(np.arange(60) == 5, value, Y))


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by RLIMIT_AS")
def test_what_does_not_fit_into_memory_is_a_typed_error():
    """Under 3 GB: a table of all classes, and a covariance of 65,536 channels, name their argument."""
    script = (
        "import resource, json, numpy as np\nfrom edgeprune import information\n"
        "from edgeprune.errors import DataError\n"
        "x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)\n"
        "codes = information.quantize(x)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "out = []\n"
        "for call in (\n"
        "    lambda: information.JointCounts(codes.edges, 2**24 - 1),\n"
        "    lambda: information.joint_counts(codes, np.zeros(60, int), 2**24 - 1),\n"
        "    lambda: information.IntegerCovariance(65536),\n"
        "):\n"
        "    try:\n        call()\n"
        "    except DataError as error:\n        out.append(str(error))\n"
        "print(json.dumps(out))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second, third = json.loads(run.stdout)
    assert "classes is 16777215: an array of shape (3, 16777215, 33) takes 6.6 GB" in first
    assert second == first
    assert "channels is 65536: an array of shape (65536, 65536) takes 34.4 GB" in third


def test_neighbours_beyond_every_class_cost_nothing():
    """2^32 - 1 neighbours are all there are; a table for each of them was a MemoryError."""
    most = information.ross_information(X, Y, neighbours=2**32 - 1)
    np.testing.assert_array_equal(most, information.ross_information(X, Y, neighbours=15))


def test_a_permutation_of_too_many_samples_is_refused():
    """2^32 - 1 labels would take 16 GB and hours to shuffle."""
    counts = np.array([[[2**32 - 6, 1], [2, 2]]], np.uint32)
    with pytest.raises(DataError, match="at most 67108864 samples can be permuted"):
        information.p_values(counts)
    assert information.p_values(counts, method="chi2")[0] < 1e-3
