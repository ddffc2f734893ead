"""The training loop, the data readers and the text coding of the examples."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import DataError, OutputError
from examples import debian_text, demo_data, fashion, training, wearable
from examples.training import Part, Parts, Recipe


def spots(count: int, seed: int) -> Part:
    """Two classes of 1×8×8 images: bright on the left, bright on the right."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=generator)
    x = torch.rand(count, 1, 8, 8, generator=generator)
    x[y == 0, :, :, :4] += 0.5
    x[y == 1, :, :, 4:] += 0.5
    return Part(x, y)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


RECIPE = Recipe(epochs=3, batch=32, lr=0.05, threads=1)
PARTS = Parts(spots(256, 1), spots(100, 2), spots(101, 3))


def test_fit_learns_and_repeats_itself():
    """An easy task is solved, and the same seed gives the same weights bit for bit."""
    first, second = small_net(), small_net()
    fitted = training.fit(first, PARTS, RECIPE)
    training.fit(second, PARTS, RECIPE)
    assert training.evaluate(first, PARTS.test) > 0.95
    assert fitted.epochs == 3
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_fit_leaves_the_epoch_that_validation_chose():
    """The weights in the model score on validation exactly what the account says."""
    model = small_net()
    fitted = training.fit(model, PARTS, RECIPE)
    assert training.evaluate(model, PARTS.validation) == fitted.validation_accuracy


def test_last_epoch_is_kept_where_validation_is_not_to_choose():
    """`choose="last"` ends with the annealed weights, whatever validation said."""
    fitted = training.fit(small_net(), PARTS, replace(RECIPE, choose="last"))
    assert fitted.chosen_epoch == fitted.epochs == RECIPE.epochs


def test_minutes_end_the_run_with_a_finished_schedule():
    """A limit in time stops long before the epochs asked for."""
    fitted = training.fit(
        small_net(), PARTS, Recipe(epochs=100_000, batch=32, lr=0.05, minutes=0.005, threads=1)
    )
    assert 1 <= fitted.epochs < 1000


def test_fit_refuses_less_than_a_batch():
    """Too few samples are named, not trained on in silence."""
    with pytest.raises(DataError, match="20 training samples"):
        training.fit(small_net(), PARTS._replace(train=spots(20, 1)), RECIPE)


def test_one_cycle_rises_then_falls():
    """The rate peaks at the end of the warm-up and ends near zero."""
    rates = [training.one_cycle(i / 100, 0.15) for i in range(101)]
    assert rates.index(max(rates)) == 15
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(1e-3)


def test_multiply_adds_of_a_convolution_and_a_linear_layer_are_the_textbook_ones():
    """Out positions × out channels × kernel, plus inputs × outputs."""
    assert training.multiply_adds(small_net(), torch.rand(1, 1, 8, 8)) == 36 * 4 * 9 + 144 * 2


def test_save_that_cannot_write_says_where(tmp_path):
    """A file where the folder should be is an OutputError and leaves nothing."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        training.save(small_net(), tmp_path / "taken" / "net.safetensors", {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_idx_files_survive_the_round_trip(tmp_path):
    """What demo_data writes, read_idx reads, and equal values give equal bytes."""
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    path = tmp_path / "x-idx3-ubyte.gz"
    path.write_bytes(demo_data.idx_bytes(values))
    assert np.array_equal(fashion.read_idx(path), values)
    assert demo_data.idx_bytes(values) == path.read_bytes()


@pytest.mark.parametrize(
    ("blob", "text"),
    [
        (None, "cannot read"),
        (b"", "not an idx file"),
        (b"PK\3\4rest", "not an idx file"),
        (b"\0\0\x08\3\0\0", "within its header"),
        (b"\0\0\x08\1\0\0\0\5abc", "holds 3 values"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\3abc", mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, blob, text):
    """Missing, empty, foreign, truncated: each is one clear sentence."""
    path = tmp_path / "images"
    if blob is not None:
        path.write_bytes(blob)
    with pytest.raises(DataError, match=text):
        fashion.read_idx(path)


def test_flip_and_shift_moves_each_image_as_a_whole():
    """Every result is one of the 50 mirrored and shifted versions of its image."""
    x = torch.rand(20, 1, 9, 9)
    moved = fashion.flip_and_shift(x, torch.Generator().manual_seed(3))
    for image, result in zip(x[:, 0], moved[:, 0], strict=True):
        padded = torch.nn.functional.pad(image, (2,) * 4)
        candidates = [padded[r : r + 9, c : c + 9] for r in range(5) for c in range(5)]
        candidates += [candidate.flip(1) for candidate in candidates]
        assert any(torch.equal(result, candidate) for candidate in candidates)


def test_shape_files_hold_widths_or_shapes(tmp_path):
    """Both spellings of a pruned shape give the same widths; a mixture is refused."""
    path = tmp_path / "shape.json"
    path.write_text(json.dumps({"stem.conv.weight": [7, 1, 3, 3], "stem.norm.weight": [7]}))
    assert fashion.read_widths(path) == {"stem.conv": 7}
    path.write_text(json.dumps({"stem.conv": 7}))
    assert fashion.read_widths(path) == {"stem.conv": 7}
    path.write_text(json.dumps({"stem.conv": 7, "x.weight": [1, 2]}))
    with pytest.raises(DataError, match="mixes"):
        fashion.read_widths(path)


def test_turning_the_watch_keeps_lengths_of_acceleration():
    """The augmentation of the sensors is a rotation plus small noise."""
    x = torch.randn(4, 16, 6) * 5
    moved = wearable.worn_differently(x, torch.Generator().manual_seed(0))
    assert torch.allclose(moved[..., :3].norm(dim=2), x[..., :3].norm(dim=2), atol=0.3)
    assert not torch.allclose(moved[..., :3], x[..., :3], atol=0.3)


PACKAGES = "\n\n".join(
    f"Package: p{i}\nSource: s{i // 2} (1.{i})\nSection: part{i % 16}\nDescription: tool {i} of part{i % 16}"
    for i in range(200)
)


def test_packages_of_one_source_share_a_part(tmp_path):
    """The split is by source, so twins never meet across it, and all texts are used."""
    path = tmp_path / "Packages"
    path.write_text(PACKAGES)
    texts = debian_text.read_packages(path)
    assert {text.source for text in texts} == {f"s{i}" for i in range(100)}
    parts = debian_text.encode_all(texts, debian_text.learn_vocabulary(texts))
    assert sum(len(part.y) for part in parts) == 200
    assert all(part.x.shape[1] == debian_text.LENGTH for part in parts)


def test_encoding_separates_padding_words_and_buckets():
    """0 pads, known words keep their number, unknown ones land in the buckets, long texts are cut."""
    row = debian_text.encode("Tool for zyx", {"tool": 1, "for": 2})
    assert row[:2] == [1, 2]
    assert debian_text.WORDS < row[2] <= debian_text.WORDS + debian_text.BUCKETS
    assert row[3:] == [0] * (debian_text.LENGTH - 3)
    assert len(debian_text.encode("a " * 99, {})) == debian_text.LENGTH


def test_empty_package_lists_are_refused(tmp_path):
    """A file without descriptions is an error with a next step."""
    path = tmp_path / "Packages"
    path.write_text("nothing here")
    with pytest.raises(DataError, match="no package descriptions"):
        debian_text.read_packages(path)


def test_multiply_adds_count_the_products_of_attention():
    """20 tokens: linear layers 20·12·64² a block, attention 2·20·20·64, and the classifier."""
    found = training.multiply_adds(debian_text.debian_text(), torch.ones(1, 20, dtype=torch.int64))
    assert found == 3 * (20 * 12 * 64**2 + 2 * 20 * 20 * 64) + 64 * 16
