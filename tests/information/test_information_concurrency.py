"""Threads: those that cannot start, buffers that others write to, accumulators that several use at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edgeprune import information

ROWS = 4096
X = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 4, ROWS)
EDGES = information.find_edges(X, 32)


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let the interpreter change threads every ten microseconds, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@contextmanager
def meanwhile(*calls: Callable[[], object]) -> Iterator[None]:
    """Repeat each call in a thread of its own until the block ends."""
    stop = threading.Event()

    def again(call: Callable[[], object]) -> None:
        while not stop.is_set():
            call()

    crew = [threading.Thread(target=again, args=(call,)) for call in calls]
    for member in crew:
        member.start()
    try:
        yield
    finally:
        stop.set()
        for member in crew:
            member.join()


def together(*calls: Callable[[], object]) -> None:
    """Run each call in a thread of its own and wait for all."""
    crew = [threading.Thread(target=call) for call in calls]
    for member in crew:
        member.start()
    for member in crew:
        member.join(60)
        assert not member.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="limits threads by RLIMIT_AS")
def test_a_thread_that_cannot_start_is_done_without():
    """A thousand stacks do not fit into 3 GB: the threads that run do the work. The process was aborted."""
    script = (
        "import resource, numpy as np\nfrom edgeprune import information\n"
        "rng = np.random.default_rng(0)\nx = rng.normal(size=(50, 2000))\ny = rng.integers(0, 2, 50)\n"
        "one = information.ross_information(x, y, threads=1)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "assert np.array_equal(information.ross_information(x, y, threads=1000), one)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_labels_that_are_rewritten_meanwhile_cannot_corrupt_memory():
    """A loader that fills its label buffer anew while a batch is counted; every value is always valid."""
    script = (
        "import threading, numpy as np\nfrom edgeprune import information\n"
        "x = np.random.default_rng(0).normal(size=(20000, 64)).astype(np.float32)\n"
        "y, edges = np.zeros(20000, np.int32), information.find_edges(x, 16)\n"
        "stop = threading.Event()\n"
        "def refill():\n"
        "    k = 0\n"
        "    while not stop.is_set():\n"
        "        y[:] = k % 64\n"
        "        k += 1\n"
        "other = threading.Thread(target=refill)\nother.start()\n"
        "for _ in range(60):\n"
        "    counts = information.JointCounts(edges, 64).update(x, y, threads=1)\n"
        "    assert (counts.counts.sum(axis=(1, 2)) == 20000).all()\n"
        "stop.set()\nother.join()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_labels_are_a_copy():
    """What the core reads without the interpreter's lock is nobody else's array, whatever its type."""
    for dtype in (np.int8, np.int32, np.int64):
        labels = np.zeros(5, dtype)
        assert not np.shares_memory(information.validate.class_labels(labels, 5, 2), labels)


def test_codes_that_are_rewritten_meanwhile_cannot_corrupt_memory():
    """Codes that lie channel by channel are not copied on their way: each is read once, then checked."""
    script = (
        "import threading, numpy as np\nfrom edgeprune import information\n"
        "raw = np.zeros((9, 20000), np.uint8)\n"
        "codes, y = information.Codes(raw.T, 8), np.arange(20000, dtype=np.int32) % 3\n"
        "stop = threading.Event()\n"
        "def spoil():\n"
        "    while not stop.is_set():\n"
        "        raw[:] = 255\n"
        "        raw[:] = 0\n"
        "other = threading.Thread(target=spoil)\nother.start()\n"
        "for _ in range(60):\n"
        "    for call in (\n"
        "        lambda: information.joint_information(codes, y, 3),\n"
        "        lambda: information.joint_counts(codes, y, 3),\n"
        "        lambda: information.soft_joint_counts(codes, np.eye(3)[y]),\n"
        "    ):\n"
        "        try:\n            call()\n        except ValueError:\n            pass\n"
        "stop.set()\nother.join()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_merge_takes_one_moment_of_the_other():
    """Counts and number of samples belong together, whoever updates the other meanwhile."""
    source = information.JointCounts(information.find_edges(X[:, :4], 8), 4)
    batch, labels = X[:64, :4], Y[:64]
    until = time.monotonic() + 2
    with meanwhile(*[lambda: source.update(batch, labels, threads=1)] * 3):
        while time.monotonic() < until:
            taken = information.JointCounts(source.edges, 4).merge(source)
            assert taken.counts[0].sum() == taken.samples


def test_two_accumulators_may_be_merged_into_each_other_at_once():
    """a into b while b into a: no deadlock, and both hold whole states; a into itself doubles it."""
    kinds = [
        lambda: information.JointCounts(EDGES, 4).update(X, Y),
        lambda: information.EdgeCounts(np.abs(X).max(axis=0), 4).update(X, Y),
        lambda: information.SoftCounts(EDGES, 4, 16).update(X, np.eye(4)[Y]),
        lambda: information.IntegerCovariance(64).update(X.astype(np.int8)),
    ]
    for fresh in kinds:
        a, b = fresh(), fresh()
        together(lambda a=a, b=b: a.merge(b), lambda a=a, b=b: b.merge(a))
        assert {a.samples, b.samples} <= {2 * ROWS, 3 * ROWS}
        assert fresh().merge(a).samples == a.samples + ROWS
        before = a.samples
        assert a.merge(a).samples == 2 * before


@pytest.mark.parametrize("numbered", [True, False])
def test_a_covariance_loses_no_sample_of_several_threads(numbered: bool):
    """Four threads add batches, numbered or as they come: all are there, numbered ones bit for bit."""
    whole = information.Covariance(64).update(X).moments()
    for _ in range(20):
        shared = information.Covariance(64)

        def work(rank: int, shared: information.Covariance = shared) -> None:
            for k in range(rank, 64, 4):
                batch = X[k * 64 : (k + 1) * 64]
                shared.update(batch, start=k * 64 if numbered else None, threads=1)

        together(*[lambda rank=rank: work(rank) for rank in range(4)])
        got = shared.moments()
        assert got.samples == ROWS
        if numbered:
            assert got.covariance.tobytes() == whole.covariance.tobytes()
        else:
            np.testing.assert_allclose(got.covariance, whole.covariance, atol=1e-12)


def test_an_integer_covariance_loses_no_sample_of_several_threads():
    """Twenty equal batches from four threads are twenty times one."""
    codes = np.random.default_rng(2).integers(-127, 127, (64, 512)).astype(np.int8)
    one = information.IntegerCovariance(512).update(codes)
    for _ in range(4):
        shared = information.IntegerCovariance(512)
        together(*[lambda s=shared: [s.update(codes, threads=1) for _ in range(5)]] * 4)
        assert shared.samples == 20 * 64
        assert np.array_equal(shared.products, 20 * one.products)
