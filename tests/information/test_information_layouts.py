"""Types, strides, instruction sets: the same numbers by every road."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import edgeprune._core as core
import numpy as np
import pytest
import reference
import torch

from edgeprune import information


@pytest.fixture(params=core.simd_available())
def simd(request: pytest.FixtureRequest):
    """Run a test on each instruction set that this processor has."""
    core.simd_select(request.param)
    yield request.param
    core.simd_select("auto")


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    tall = np.repeat(x, 3, axis=0)
    read_only = x.copy()
    read_only.flags.writeable = False
    shifted = np.zeros(x.size * x.itemsize + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[:] = x
    return {
        "C": x,
        "F": np.asfortranarray(x),
        "every second channel": wide[:, ::2],
        "every third sample": tall[::3],
        "reversed": x[::-1, ::-1][::-1, ::-1],
        "backwards": np.ascontiguousarray(x[::-1])[::-1],
        "read-only": read_only,
        "unaligned": shifted,
        "transposed NHWC slice": np.ascontiguousarray(x.T).T,
    }


@pytest.mark.parametrize("shape", [(1, 1), (2, 70), (300, 1), (777, 67), (1030, 130)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_layout_and_set_gives_the_same_codes_and_counts(simd: str, dtype: str, shape: tuple[int, int]):
    """Codes equal searchsorted on float32, and fused counts equal counted codes, for any strides."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * np.exp(rng.normal(size=shape[1]))).astype(dtype)
    x[:, ::3] = np.maximum(x[:, ::3], 0)
    x[:, 1::5] = x[:, 1::5] * 1e-2 + 30
    y = rng.integers(0, 4, shape[0])
    edges = information.find_edges(x, 20)
    expected = reference.codes(x.astype(np.float32), edges.thresholds)
    counts = reference.joint_counts(expected, y, edges.bins, 4)
    for name, view in layouts(x).items():
        assert information.find_edges(view, 20) == edges, name
        assert np.array_equal(information.encode(view, edges).codes, expected), name
        assert np.array_equal(information.JointCounts(edges, 4).update(view, y).counts, counts), name


@pytest.mark.parametrize("classes", [3, 1000, 70_000])
def test_tables_of_any_size_are_counted(simd: str, classes: int):
    """Short and long indices (more or fewer than 65,536 cells) count the same."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 3)).astype(np.float32)
    y = rng.integers(0, classes, 500)
    edges = information.find_edges(x, 64)
    counts = information.JointCounts(edges, classes).update(x, y).counts
    assert np.array_equal(counts, information.joint_counts(information.encode(x, edges), y, classes))
    assert counts.sum() == 1500


def test_bfloat16_and_torch_tensors_are_read_as_they_are(simd: str):
    """bfloat16 and other tensors give the codes of their float32 values."""
    torch.manual_seed(0)
    x = torch.randn(400, 33)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        cast = x.to(dtype)
        edges = information.find_edges(cast, 16)
        for view in (cast, cast.t().contiguous().t()):
            codes = information.encode(view, edges).codes
            assert np.array_equal(codes, reference.codes(cast.float().numpy(), edges.thresholds))


def test_subnormals_halves_and_extremes_convert_exactly(simd: str):
    """Every finite float16 and a spread of float64 reach float32 as NumPy converts them."""
    half = np.arange(65536, dtype=np.uint16).view(np.float16)
    half = half[np.isfinite(half)][:, None]
    edges = information.Edges(
        np.sort(np.random.default_rng(2).choice(half[:, 0], 40)).astype(np.float32)[None]
    )
    expected = reference.codes(half.astype(np.float32), edges.thresholds)
    assert np.array_equal(information.encode(half, edges).codes, expected)
    double = np.array([1e-300, -1e-300, 1e-45, 1 + 2**-24, 1 + 2**-24 + 2**-40, 3e38, -3e38, 0.1])[:, None]
    edges = information.Edges(np.array([[-1.0, 0.0, 1e-45, 0.1, 1.0, 1.0000001, 3e38]], np.float32))
    assert np.array_equal(
        information.encode(double, edges).codes, reference.codes(double.astype(np.float32), edges.thresholds)
    )


def test_dense_results_are_bit_equal_on_every_set():
    """Covariance, elimination and edge scores do not change a bit between instruction sets and threads."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(700, 61)) @ rng.normal(size=(61, 61))).astype(np.float32)
    w = rng.normal(size=(20, 61))
    y = rng.integers(0, 3, 700)
    seen = set()
    for name in core.simd_available():
        core.simd_select(name)
        for threads in (1, 2, 5):
            cov = information.covariance(x, threads=threads).covariance + 0.1 * np.eye(61)
            unit = np.arange(61, dtype=np.int32) // 2
            out = information.backward_elimination(
                [information.Consumer(cov, w.T @ w, unit)], 31, threads=threads
            )
            edge = information.edge_information(
                x, y, w.astype(np.float32), np.ones(20, np.float32), threads=threads
            )
            seen.add((cov.tobytes(), out.order.tobytes(), out.score_nats.tobytes(), edge.tobytes()))
    core.simd_select("auto")
    assert len(seen) == 1


def test_activations_are_never_copied_whole():
    """Counting a strided 32 MB array allocates less than 2 MB beside its counts."""
    x = np.zeros((1_000_000, 16), np.float16)[:, ::2]
    x[:] = np.random.default_rng(4).normal(size=(1000, 8)).astype(np.float16).repeat(1000, axis=0)
    y = np.zeros(len(x), np.int32)
    edges = information.find_edges(x, 16)
    counts = information.JointCounts(edges, 1)
    tracemalloc.start()
    counts.update(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_the_face_works_without_torch_and_names_a_missing_core():
    """Importing needs no torch; without the extension the error asks about compiling."""
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from edgeprune import information\n"
        "for name in [n for n in sys.modules if n.startswith('edgeprune')]: del sys.modules[name]\n"
        "sys.modules['edgeprune._core'] = None\n"
        "try:\n"
        "    from edgeprune import information\n"
        "except ImportError as error:\n"
        "    assert 'did you forget to compile?' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
