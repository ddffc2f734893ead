"""From raw arrays to the model's shape: one rule per pair of shapes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.data.layout import fit_layout
from edgeprune.errors import DataError

U8 = np.dtype(np.uint8)


@pytest.mark.parametrize(
    ("have", "want", "pick"),
    [
        ((3, 4, 5), (3, 4, 5), lambda a: a),
        ((4, 5), (1, 4, 5), lambda a: a[:, None]),
        ((4, 5, 3), (3, 4, 5), lambda a: a.transpose(0, 3, 1, 2)),
        ((4, 5), (3, 4, 5), lambda a: np.stack([a, a, a], axis=1)),
        ((1, 4, 5), (4, 5), lambda a: a[:, 0]),
        ((4, 5, 1), (4, 5), lambda a: a[..., 0]),
        ((4, 5, 1), (1, 4, 5), lambda a: a.transpose(0, 3, 1, 2)),
        ((4, 5), (20,), lambda a: a.reshape(len(a), 20)),
        ((1, 4, 5), (20,), lambda a: a.reshape(len(a), 20)),
        ((4, 5), (1, -1, -1), lambda a: a[:, None]),
        ((7,), (7,), lambda a: a),
        ((4, 5), None, lambda a: a[:, None]),
        ((6, 5, 3), None, lambda a: a.transpose(0, 3, 1, 2)),
        ((3, 4, 5), None, lambda a: a),
    ],
)
def test_axes_are_brought_into_the_models_order(have, want, pick):
    """Channels first, added, dropped, repeated or flattened: each element lands where it belongs."""
    raw = np.random.default_rng(0).integers(0, 256, (2, *have), dtype=np.uint8)
    prepare, described = fit_layout(have, U8, want, name="d")
    got = prepare(raw.copy())
    np.testing.assert_allclose(got, pick(raw) / np.float32(255), rtol=1e-6)
    assert list(got.shape[1:]) == described["size"]


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ((4, 5), (1, 5, 4)),
        ((4, 5, 3), (1, 4, 5)),
        ((3, 4, 5), (1, 4, 5)),
        ((21,), (20,)),
        ((4, 5), (2, 4, 5)),
    ],
)
def test_other_shapes_name_both(have, want):
    """What no rule covers is an error with the sample's and the model's shape."""
    with pytest.raises(DataError) as caught:
        fit_layout(have, U8, want, name="d")
    assert "×".join(map(str, have)) in str(caught.value)
    assert "×".join(map(str, want)) in str(caught.value)


def test_mean_and_std_apply_per_channel_after_scaling():
    """(x/255 − mean) / std, channel by channel."""
    raw = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    prepare, described = fit_layout((4, 5, 3), U8, (3, 4, 5), name="d", mean=mean, std=std)
    expected = (raw / 255.0 - mean) / std
    np.testing.assert_allclose(prepare(raw.copy()), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
    assert described["mean"] == mean
    assert described["std"] == std
    assert described["scale"] == pytest.approx(1 / 255)
    assert described["layout"] == "NCHW"


def test_floats_are_taken_as_they_come():
    """No scaling of measured values; float64 becomes float32."""
    raw = np.array([[0.0, 300.0]])
    prepare, described = fit_layout((2,), raw.dtype, (2,), name="d")
    assert prepare(raw.copy()).dtype == np.float32
    assert prepare(raw.copy()).tolist() == [[0.0, 300.0]]
    assert described["scale"] == 1.0


def test_wide_integers_are_tokens():
    """int32 ids stay integers, as int64, and are neither scaled nor centred."""
    raw = np.array([[5, 70000]], dtype=np.int32)
    prepare, described = fit_layout((2,), raw.dtype, (2,), name="d", mean=0.5)
    assert prepare(raw).dtype == np.int64
    assert prepare(raw).tolist() == [[5, 70000]]
    assert described["layout"] == "tokens"
