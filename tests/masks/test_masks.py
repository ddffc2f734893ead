"""Masks: reading, refusing, and making them from prune hooks, zeros and scores."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from edgeprune.errors import MaskError, OutputError
from edgeprune.masks import (
    Mask,
    check_mask,
    fuse_pruned,
    mask_from_scores,
    mask_from_zeros,
    read_mask,
    split_prune_state,
    write_mask,
)

ROOT = Path(__file__).parents[2]


def small_net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 4 * 4, 3)
    ).eval()


def test_a_mask_survives_its_file(tmp_path):
    """What was written is read back bit for bit, and no partial file stays."""
    rng = np.random.default_rng(0)
    mask = Mask({"a.weight": rng.random((3, 4)) < 0.5, "b": rng.random(5) < 0.5})
    write_mask(mask, tmp_path / "m.npz")
    back = read_mask(tmp_path / "m.npz")
    assert list(back.keep) == ["a.weight", "b"]
    assert all(np.array_equal(back.keep[k], mask.keep[k]) for k in mask.keep)
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


def test_a_mask_of_zeros_and_ones_in_any_number_type_is_read(tmp_path):
    """float32, int64 and bool arrays of the same pattern give the same mask."""
    pattern = np.array([[1, 0], [0, 1]])
    np.savez(tmp_path / "m.npz", f=pattern.astype(np.float32), i=pattern, b=pattern.astype(bool))
    keep = read_mask(tmp_path / "m.npz").keep
    assert all(k.dtype == bool and np.array_equal(k, pattern.astype(bool)) for k in keep.values())


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(b""), "not an npz"),
        (lambda p: p.write_bytes(b"PK\x03\x04 truncated"), "damaged npz"),
        (lambda p: np.savez(p), "holds no array"),
        (lambda p: np.savez(p, w=np.array([0.0, 0.5])), "'w': holds 0.5"),
        (lambda p: np.savez(p, w=np.array([0.0, np.nan])), "'w': holds nan"),
        (lambda p: np.savez(p, w=np.array(["x"])), "'w': holds"),
        (lambda p: np.savez(p, w=np.array([{"a": 1}], dtype=object)), "pickled Python objects"),
    ],
)
def test_a_bad_mask_file_is_refused_with_its_cause(tmp_path, write, text):
    """Each defect has its own sentence, one line, and a next step."""
    path = tmp_path / "m.npz"
    write(path)
    with pytest.raises(MaskError, match=text) as caught:
        read_mask(path)
    assert "\n" not in str(caught.value)
    assert caught.value.tip


def test_a_bare_array_is_refused(tmp_path):
    """A .npy has no names, so nothing says which weight it masks."""
    np.save(tmp_path / "m.npy", np.ones(3))
    with pytest.raises(MaskError, match="one bare array"):
        read_mask(tmp_path / "m.npy")


def test_an_unwritable_mask_leaves_nothing_behind(tmp_path):
    """A folder where the file should be: one error, no partial file."""
    (tmp_path / "m.npz").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .* is a folder"):
        write_mask(Mask({"w": np.ones(2, bool)}), tmp_path / "m.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


def test_an_unknown_tensor_is_named_with_its_nearest_neighbour():
    """A typo in a name is answered with the name that was probably meant."""
    with pytest.raises(MaskError, match="no tensor of that name") as caught:
        check_mask(Mask({"conv1.weigth": np.ones((2, 2), bool)}), {"conv1.weight": (2, 2), "fc.weight": (3,)})
    assert "'conv1.weight'" in caught.value.tip


def test_a_wrong_shape_is_named_with_both_shapes():
    """The message holds the tensor, the mask's shape and the weight's."""
    with pytest.raises(MaskError, match=r"'fc.weight': shape 2×3, but the weight has 3×2"):
        check_mask(Mask({"fc.weight": np.ones((2, 3), bool)}), {"fc.weight": (3, 2)})


def test_scores_are_cut_per_tensor_at_the_density():
    """Each tensor keeps round(density·n) of its highest scores, whatever the other's scale."""
    rng = np.random.default_rng(1)
    scores = {"small": rng.random((5, 8)) * 1e-6, "large": rng.random((3, 3, 3)) * 1e6}
    mask = mask_from_scores(scores, 0.3)
    for name, values in scores.items():
        kept = mask.keep[name]
        assert kept.sum() == round(0.3 * values.size)
        assert values[kept].min() > values[~kept].max()


def test_equal_scores_keep_the_earlier_index():
    """Ties are decided by position, so a rerun keeps the same weights."""
    mask = mask_from_scores({"w": np.zeros((2, 3))}, 0.5)
    assert mask.keep["w"].tolist() == [[True, True, True], [False, False, False]]


def test_a_small_density_keeps_one_weight_per_tensor():
    """A tensor is never masked whole by a quantile."""
    assert mask_from_scores({"w": np.arange(4.0)}, 0.01).keep["w"].tolist() == [False, False, False, True]


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, float("nan")])
def test_a_density_out_of_range_is_refused(density):
    """Zero would empty the model, more than one is a slip of units."""
    with pytest.raises(MaskError, match="out of range"):
        mask_from_scores({"w": np.ones(3)}, density)


def test_a_score_that_is_not_a_number_is_refused():
    """NaN has no rank, so no weight is guessed."""
    with pytest.raises(MaskError, match="'w': hold NaN"):
        mask_from_scores({"w": np.array([1.0, np.nan])}, 0.5)


def test_zeros_in_the_weights_are_a_mask():
    """Exact zeros of matrices are masked; vectors (biases, norms) are not looked at."""
    state = {"w": torch.tensor([[0.0, 1.0], [-0.0, 1e-30]]), "b": torch.zeros(2)}
    mask = mask_from_zeros(state)
    assert list(mask.keep) == ["w"]
    assert mask.keep["w"].tolist() == [[False, True], [False, True]]


def test_prune_hooks_round_trip_through_a_state_dict():
    """split_prune_state gives a state dict that fits the plain class and computes the same."""
    net = small_net()
    prune.l1_unstructured(net[0], "weight", 0.4)
    prune.random_unstructured(net[3], "bias", 0.5)
    dense, mask = split_prune_state(net.state_dict())
    plain = small_net()
    plain.load_state_dict(dense)
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(plain(x), net(x))
    assert set(mask.keep) == {"0.weight", "3.bias"}
    assert np.array_equal(mask.keep["0.weight"], net[0].weight_mask.bool().numpy())


def test_only_whole_pairs_are_prune_masks():
    """A lone `_mask` buffer or `_orig` weight keeps its name and value."""
    state = {"attn_mask": torch.ones(2), "u.weight_orig": torch.ones(2), "v.weight": torch.ones(2)}
    dense, mask = split_prune_state(state)
    assert dense == state
    assert mask.keep == {}


def test_a_pair_of_different_shapes_is_refused():
    """A mask that would broadcast is a damaged checkpoint, not a mask."""
    with pytest.raises(MaskError, match="'w': shape"):
        split_prune_state({"w_orig": torch.ones(2, 3), "w_mask": torch.ones(3)})


def test_a_module_with_hooks_is_copied_without_them():
    """fuse_pruned leaves the user's module pruned and gives a plain twin with equal outputs."""
    net = small_net()
    prune.l1_unstructured(net[0], "weight", 0.4)
    net(torch.randn(1, 2, 6, 6)).sum()  # the hooked weight is now part of a graph
    twin, mask = fuse_pruned(net)
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(twin(x), net(x))
    assert "0.weight" in twin.state_dict()
    assert "0.weight_orig" in net.state_dict()
    assert mask.density == pytest.approx(1 - round(0.4 * 72) / 72)


def test_the_example_in_the_docs_runs():
    """Every Python block of docs/masks.md runs, asserts included."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "masks.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
