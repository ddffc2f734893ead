"""Types, strides, instruction sets: the same numbers by every road."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import reference
import torch

import edgeprune._core as core
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
    """Counting a strided 32 MB array copies its labels, 4 MB, and allocates less than 1 MB besides."""
    x = np.zeros((1_000_000, 16), np.float16)[:, ::2]
    x[:] = np.random.default_rng(4).normal(size=(1000, 8)).astype(np.float16).repeat(1000, axis=0)
    y = np.zeros(len(x), np.int32)
    edges = information.find_edges(x, 16)
    counts = information.JointCounts(edges, 1)
    tracemalloc.start()
    counts.update(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20


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


TAKES_ACTIVATIONS = {
    "covariance": information.covariance,
    "Covariance": lambda x: information.Covariance(3).update(x).moments(),
    "copula_information": lambda x: information.copula_information(x),
    "copula_label_information": lambda x: information.copula_label_information(x, LABELS),
    "edge_information": lambda x: information.edge_information(x, LABELS, np.ones((2, 3)), np.ones(2)),
    "EdgeCounts": lambda x: information.EdgeCounts([9, 9, 9], 4).update(x, LABELS).counts,
    "find_edges": lambda x: information.find_edges(x, 8).thresholds,
    "JointCounts": lambda x: information.JointCounts(FIXED, 4).update(x, LABELS).counts,
    "label_information": lambda x: information.label_information(x, LABELS),
    "label_information, shuffle": lambda x: information.label_information(x, LABELS, correction="shuffle"),
    "mixed_information": lambda x: information.mixed_information(x, x),
    "normal_scores": information.normal_scores,
    "quantize": lambda x: information.quantize(x, 8).codes,
    "ross_information": lambda x: information.ross_information(x, LABELS),
    "SoftCounts": lambda x: information.SoftCounts(FIXED, 4).update(x, np.eye(4)[LABELS]).counts,
}
LABELS = np.arange(300) % 4
FIXED = information.fixed_edges([-1] * 3, [1] * 3, 8)


@pytest.mark.parametrize("name", TAKES_ACTIVATIONS)
def test_every_function_takes_bfloat16_of_torch(name: str):
    """The same as its values in float32, strided or not; the 16 bits were validated twice and refused."""
    call = TAKES_ACTIVATIONS[name]
    x = torch.from_numpy(np.random.default_rng(5).normal(size=(600, 6)).astype(np.float32)).bfloat16()
    for half in (x[:300, :3].contiguous(), x[::2, ::2], x[:300, :3].clone().requires_grad_()):
        got, same = call(half), call(half.detach().float().numpy())
        pairs = [(got, same)]
        if isinstance(got, information.Moments):
            pairs = [(got.mean, same.mean), (got.covariance, same.covariance)]
        for a, b in pairs:
            assert np.array_equal(a, b)


@pytest.fixture
def flushing() -> Iterator[None]:
    """Have this thread take subnormal numbers for zero, as torch's setting does."""
    assert torch.set_flush_denormal(True)
    assert np.float32(1e-40) * np.float32(1) == 0
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def unflushed() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Activations with zeros and subnormal numbers in both types, labels, and what they give unflushed."""
    rng = np.random.default_rng(6)
    x = np.maximum(rng.normal(size=(4000, 20)), 0).astype(np.float32)
    x[:, 1::2] += np.float32(50)
    x[:7, 0] = [1e-40, -1e-40, 1e-45, -1e-45, 2e-38, 0.0, -0.0]
    y = rng.integers(0, 4, 4000)
    wide = x.astype(np.float64)  # NumPy flushes, too
    return x, wide, y, everything(x, wide, y)


def everything(x: np.ndarray, wide: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Edges, codes, counts and covariances on one and on two threads."""
    out = []
    fixed = information.fixed_edges([-3.1] * 20, [3.1] * 20, 16)
    for threads in (1, 2):
        edges = information.find_edges(x, 16, threads=threads)
        out += [edges.thresholds, fixed.thresholds]
        for use in (edges, fixed):
            out.append(information.encode(x, use, threads=threads).codes)
            out.append(information.encode(wide, use, threads=threads).codes)
            out.append(information.JointCounts(use, 4).update(x, y, threads=threads).counts)
        out.append(information.covariance(x, threads=threads).covariance)
    return out


def test_flushing_subnormal_numbers_changes_no_bit(
    simd: str, unflushed: tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]], flushing: None
):
    """The thresholds around zero are subnormal: with them taken for zero, ReLU's zeros got another code."""
    x, wide, y, expected = unflushed
    for got, want in zip(everything(x, wide, y), expected, strict=True):
        assert got.tobytes() == want.tobytes()
    assert np.float32(1e-40) * np.float32(1) == 0  # and the thread is as it was
    atoms = information.fixed_edges([-1], [1], 4)
    moved = information.Edges(np.where(np.abs(atoms.thresholds) < 1e-30, 0, atoms.thresholds))
    assert atoms != moved


def test_edges_that_are_equal_hash_alike():
    """-0 is the same threshold as 0: one value, one hash, one file."""
    plus, minus = (information.Edges(np.array([[zero, 1.0]])) for zero in (0.0, -0.0))
    assert plus == minus
    assert hash(plus) == hash(minus)
    assert plus.thresholds.tobytes() == minus.thresholds.tobytes()


@pytest.mark.parametrize("period", [2, 10, 20, 64, 1000])
def test_a_period_in_the_order_of_samples_does_not_matter(period: int):
    """Labels that come in turn: 1.99 nats for ten classes in any order, where even steps gave 0.34."""
    rng = np.random.default_rng(7)
    y = np.arange(40_960) % period * 10 // period
    x = (rng.normal(size=(y.size, 4)) + 3 * y[:, None]).astype(np.float32)
    shuffle = rng.permutation(y.size)
    if period >= 10:
        in_turn, mixed = (information.label_information(x[o], y[o]) for o in (slice(None), shuffle))
        np.testing.assert_allclose(in_turn, mixed, atol=0.01)
    for samples, sketch in ((40_960, 2048), (40_960, 4096), (4097, 4096), (10_001, 5000)):
        rows = information.sketch_rows(samples, sketch)
        assert len(rows) == sketch
        assert (np.diff(rows.astype(np.int64)) > 0).all()
        assert rows[-1] < samples
        assert np.array_equal(rows, information.sketch_rows(samples, sketch))
    places = np.bincount(information.sketch_rows(40_960, 4096) % period, minlength=period)
    expected = 4096 / period
    assert ((places - expected) ** 2 / expected).sum() < period - 1 + 5 * np.sqrt(2 * period)


def test_the_rows_of_a_sketch_are_those_of_every_release():
    """Ranks with different releases must take the same samples: the first rows of two sketches, by heart."""
    assert information.sketch_rows(40_960, 2048)[:6].tolist() == [0, 35, 40, 79, 84, 107]
    assert information.sketch_rows(2**32 - 1, 4096)[[0, 1, -1]].tolist() == [0, 1953198, 4294549965]
