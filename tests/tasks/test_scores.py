"""Scores and agreement of every task, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprune.tasks.binary import area_under_curve
from edgeprune.tasks.ctc import accuracy_of, edit_distance
from edgeprune.tasks.registry import fit_task, resolve_task

RNG = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def score(spec: str, out: Any, targets: Any) -> Any:
    outputs = (np.asarray(out, np.float32),)
    return resolve_task(spec).score(outputs, targets)


def test_accuracy_counts_the_largest_output():
    """1 where the label's output is the largest; a tie goes to the lower class; one-hot rows are labels."""
    out = [[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]]
    assert score("classification", out, np.array([1, 1, 0])).per_sample.tolist() == [1, 0, 1]
    assert score("classification", out, np.eye(2)[[1, 1, 0]]).per_sample.tolist() == [1, 0, 1]


def test_top5_agrees_with_a_sorted_list():
    """The label is among the five largest."""
    out, labels = RNG.normal(size=(200, 12)), RNG.integers(0, 12, 200)
    rows = out.astype(np.float32)
    by_sorting = [float(y in np.argsort(-row)[:5]) for row, y in zip(rows, labels, strict=True)]
    assert score("classification:measure=top5", out, labels).per_sample.tolist() == by_sorting


def test_one_logit_decides_at_zero_and_a_probability_at_one_half():
    """A network that ends in a sigmoid would be positive everywhere at threshold 0."""
    labels = np.array([0, 1, 1, 0])
    logits = np.array([[-1.0], [2], [-0.5], [0.3]], np.float32)
    assert score("binary", logits, labels).per_sample.tolist() == [1, 1, 0, 0]
    shares = (1 / (1 + np.exp(-logits))).astype(np.float32)
    fitted = fit_task(resolve_task("binary"), (shares,), labels)
    assert fitted.score((shares,), labels).per_sample.tolist() == [1, 1, 0, 0]
    assert fitted.score((shares[:, 0],), labels[:, None]).per_sample.tolist() == [1, 1, 0, 0]


def test_area_under_the_curve_by_pairs():
    """The share of pairs in order; a tie counts half; a choice of samples is a set of its own."""
    values, labels = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 1, 0, 1])
    assert area_under_curve(values, labels) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    found = score("binary:measure=auc", values[:, None], labels)
    assert found.per_sample is None and found.value == pytest.approx(3.5 / 4)
    assert found.of(np.array([0, 0, 1])) == 1.0


def test_multilabel_scores_by_hand():
    """F1 of label sets, both empty is 1; the share of right decisions; F1 averaged over labels."""
    out = np.array([[1.0, 1, -1], [-1, -1, -1], [1, -1, -1]])
    truth = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert score("multilabel", out, truth).per_sample.tolist() == [0.5, 1, 0]
    decisions = score("multilabel:measure=decisions", out, truth)
    assert decisions.per_sample.tolist() == pytest.approx([1 / 3, 1, 1 / 3])
    macro = score("multilabel:measure=macro_f1", out, truth)
    assert macro.value == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_regression_errors_by_hand():
    """MAE in the unit of the target, RMSE of the set, R² of the set and not below 0."""
    out, y = np.array([1.0, 2, 3, 5]), np.array([1.0, 3, 3, 1])
    mae = score("regression", out[:, None], y)
    assert mae.per_sample.tolist() == [0, 1, 0, 4] and mae.value == 1.25
    rmse = score("regression:measure=rmse", out, y)
    assert rmse.per_sample is None and rmse.value == pytest.approx(np.sqrt(17 / 4))
    assert rmse.of(np.array([1, 1])) == 1.0
    assert score("regression:measure=r2", out, y).value == 0.0
    close = score("regression:measure=r2", y + np.array([0.1, -0.1, 0.1, -0.1]), y)
    assert close.value == pytest.approx(1 - 0.04 / 4)


def test_several_targets_count_equally_whatever_their_units():
    """The same relative error on metres and on millimetres is the same error."""
    y = RNG.normal(size=(50, 2))
    wrong = y + np.array([0.1, 0])
    scaled = np.array([1.0, 1000.0])
    one = score("regression", wrong, y).value
    other = score("regression", (y + np.array([0, 0.1])) * scaled, y * scaled)
    assert other.value == pytest.approx(one * y[:, 0].std() / y[:, 1].std(), rel=1e-4)
    task = fit_task(resolve_task("regression"), ((y * scaled).astype(np.float32),), y * scaled)
    assert "by each target's spread" in task.measure.name


def test_forecasting_by_hand():
    """Mean over all steps; sMAPE is 2|r| / (|a| + |b|)."""
    y = np.array([[1.0, 2, 4]], np.float32)
    out = np.array([[1.0, 4, 4]], np.float32)
    assert score("forecasting", out, y).value == pytest.approx(2 / 3)
    assert score("forecasting:measure=smape", out, y).value == pytest.approx((4 / 6) / 3)
    assert score("forecasting:measure=rmse", out, y).value == pytest.approx(np.sqrt(4 / 3))


def test_segmentation_by_hand():
    """IoU over the set is not the mean over images; 255 is left out."""
    masks = np.array([[[0, 0], [1, 1]], [[1, 1], [1, 255]]])
    decided = np.array([[[0, 1], [1, 1]], [[1, 1], [1, 0]]])
    out = np.moveaxis(np.eye(2)[decided], -1, 1)
    whole = score("segmentation", out, masks)
    assert whole.per_sample is None and whole.value == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert whole.of(np.array([1])) == 1.0
    images = score("segmentation:measure=image_iou", out, masks).per_sample
    assert images.tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2, 1.0])
    assert score("segmentation:measure=pixel_accuracy", out, masks).per_sample.tolist() == [0.75, 1]
    logit = np.where(decided == 1, 2.0, -2.0)[:, None]
    assert score("segmentation", logit, masks).value == pytest.approx(whole.value)


@pytest.mark.parametrize("axis", [1, 2])
def test_tokens_by_hand_in_both_layouts(axis: int):
    """−100 is left out; the axis of the classes follows from the targets' length."""
    decided = np.array([[0, 1, 2, 0, 1], [2, 2, 2, 2, 2]])
    y = np.array([[0, 1, 1, -100, -100], [2, 2, 2, 2, 0]])
    out = np.eye(3, dtype=np.float32)[decided]
    out = out if axis == 2 else out.swapaxes(1, 2)
    task = fit_task(resolve_task("tokens"), (out,), y)
    assert task.score((out,), y).per_sample.tolist() == pytest.approx([2 / 3, 0.8])
    ragged = [row[row >= 0] for row in y]
    assert task.score((out,), ragged).per_sample.tolist() == pytest.approx([2 / 3, 0.8])


def test_ctc_decodes_and_counts_edits():
    """Repeats are joined, blanks separate them; 1 − edits / length, not below 0."""
    path = np.array([[1, 1, 0, 1, 2, 2], [3, 0, 3, 3, 0, 0], [0, 0, 0, 0, 0, 0]])
    out = np.eye(4, dtype=np.float32)[path]
    task = resolve_task("ctc")
    assert [row.tolist() for row in task.decode(out)] == [[1, 1, 2], [3, 3], []]
    found = task.score((out,), [[1, 1, 2], [1], []])
    assert found.per_sample.tolist() == [1, 0, 1]
    other = task.score((out,), [[1, 2, 2], [3, 3, 1, 1], [1]])
    assert other.per_sample.tolist() == pytest.approx([2 / 3, 0.5, 0])


def test_edit_distance_agrees_with_recursion():
    """Insertions, deletions and replacements, on random sequences."""

    def slow(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    for _ in range(40):
        a, b = (RNG.integers(0, 3, RNG.integers(0, 6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == slow(a, b), (a, b)
    assert accuracy_of([1, 2, 3], [1]) == 0


def test_embedding_scores():
    """Direction about the mean per sample; ranks of all pairs are unmoved by rotation and scale."""
    vectors = normal(40, 8) + 5
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0].astype(np.float32)
    task = resolve_task("embedding")
    assert task.agreement((vectors,), (vectors,)).per_sample == pytest.approx(np.ones(40))
    mirrored = 2 * vectors.mean(0) - vectors
    assert task.agreement((mirrored,), (vectors,)).value == 0
    rank = resolve_task("embedding:measure=rank")
    assert rank.agreement((3 * vectors @ rotation,), (vectors,)).value == pytest.approx(1, abs=1e-3)
    assert rank.agreement((normal(40, 8),), (vectors,)).value < 0.2


def test_generic_counts_each_channel_by_its_own_variance():
    """An error of one standard deviation in one of two channels costs a half, at any scale."""
    dense = normal(400, 2) * [1, 1e4]
    dense = (dense - dense.mean(0)) / dense.std(0) * [1, 1e4]
    for channel, size in ((0, 1.0), (1, 1e4)):
        moved = dense.copy()
        moved[:, channel] += size * np.where(np.arange(400) % 2, 1, -1)
        rows = resolve_task("generic").agreement((moved,), (dense,)).per_sample
        assert rows == pytest.approx(np.full(400, 0.5))


def test_generic_takes_the_worst_output_and_compares_integers_by_equality():
    """A right output does not hide a wrong one; counts must be equal."""
    dense = (normal(60, 3), np.arange(60), np.ones((60, 4), np.float32))
    task = fit_task(resolve_task("generic"), dense, None)
    assert task.agreement(dense, dense).value == 1
    assert task.agreement((dense[0], dense[1] + 1, dense[2]), dense).value == 0
    assert task.agreement((dense[0], dense[1], dense[2] * 1.5), dense).value == 0
    noisy = (dense[0] + 0.1 * normal(60, 3), dense[1], dense[2])
    assert 0.95 < task.agreement(noisy, dense).value < 1


def test_set_measures_are_those_of_the_chosen_samples():
    """`of` on all samples is the value, and a permutation changes nothing."""
    cases: dict[str, tuple[Any, Any]] = {
        "binary:measure=auc": (normal(30, 1), RNG.integers(0, 2, 30)),
        "multilabel:measure=macro_f1": (normal(30, 4), RNG.integers(0, 2, (30, 4))),
        "regression:measure=rmse": (normal(30, 2), normal(30, 2)),
        "regression:measure=r2": (normal(30, 1), normal(30)),
        "segmentation": (normal(10, 3, 4, 5), RNG.integers(0, 3, (10, 4, 5))),
    }
    for spec, (out, y) in cases.items():
        found = score(spec, out, y)
        order = RNG.permutation(len(out))
        assert found.of(order) == pytest.approx(found.value), spec
        assert score(spec, out[order], y[order]).value == pytest.approx(found.value, rel=1e-5), spec


@pytest.mark.parametrize(
    ("spec", "shape", "targets"),
    [
        ("classification", (30, 5), RNG.integers(0, 5, 30)),
        ("binary", (30, 1), RNG.integers(0, 2, 30)),
        ("multilabel", (30, 4), RNG.integers(0, 2, (30, 4))),
        ("regression", (30, 2), RNG.normal(size=(30, 2))),
        ("forecasting", (30, 6), RNG.normal(size=(30, 6))),
        ("segmentation:measure=image_iou", (30, 3, 4, 5), RNG.integers(0, 3, (30, 4, 5))),
        ("tokens", (30, 7, 4), RNG.integers(0, 4, (30, 7))),
        ("ctc", (30, 9, 4), [RNG.integers(1, 4, 3) for _ in range(30)]),
        ("embedding", (30, 6), RNG.normal(size=(30, 6))),
    ],
)
def test_scores_follow_the_samples(spec: str, shape: tuple[int, ...], targets: Any):
    """The same samples in another order have the same scores; one with NaN is the worst there is."""
    out = normal(*shape)
    task = fit_task(resolve_task(spec), (out,), targets)
    found = task.score((out,), targets)
    order = RNG.permutation(len(out))
    moved = [targets[i] for i in order] if isinstance(targets, list) else targets[order]
    again = task.score((out[order],), moved)
    np.testing.assert_allclose(again.per_sample, found.per_sample[order], rtol=1e-6)
    assert found.value == pytest.approx(found.per_sample.mean())
    broken = out.copy()
    broken[3] = np.nan
    worst = task.score((broken,), targets).per_sample[3]
    assert worst == (np.inf if task.measure.kind == "error" else 0)


def test_agreement_is_the_same_however_it_is_cut(monkeypatch: pytest.MonkeyPatch):
    """Outputs are compared some samples at a time; the variance is that of all."""
    dense, out = normal(50, 3, 4, 4), normal(50, 3, 4, 4)
    dense[:, 1] = 2.0
    whole = resolve_task("generic").agreement((0.7 * dense + 0.1 * out,), (dense,)).per_sample
    monkeypatch.setattr("edgeprune.tasks.numbers.AT_ONCE", 3 * 48)
    cut = resolve_task("generic").agreement((0.7 * dense + 0.1 * out,), (dense,)).per_sample
    np.testing.assert_allclose(cut, whole, rtol=1e-12)
    assert 0 < whole.mean() < 1


def test_small_logits_are_not_probabilities_where_the_targets_say_so():
    """One-logit outputs within 0..1 are read by which threshold the targets fit."""
    labels = np.arange(20) % 2
    small = np.where(labels == 1, 0.4, 0.0)[:, None].astype(np.float32)
    task = fit_task(resolve_task("binary"), (small,), labels)
    assert not task.probabilities and task.score((small,), labels).value == 1
    shares = np.where(labels == 1, 0.8, 0.3)[:, None].astype(np.float32)
    task = fit_task(resolve_task("binary"), (shares,), labels)
    assert task.probabilities and task.score((shares,), labels).value == 1
