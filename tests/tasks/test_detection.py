"""Detectors: every layout of outputs is read the same, losses train, agreement cannot be had by silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.errors import DataError
from edgeprune.tasks.infer import infer_task
from edgeprune.tasks.registry import fit_task, resolve_task

IMAGES, SIZE, CLASSES = 12, 100.0, 4


def scene(seed: int = 0) -> list[dict[str, np.ndarray]]:
    """One to four boxes per image, apart from each other."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(IMAGES):
        cells = rng.permutation(9)[: rng.integers(1, 5)]
        corner = np.stack([cells % 3, cells // 3], 1) * 33.0 + rng.uniform(0, 5, (len(cells), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 28, (len(cells), 2))], 1)
        found.append({"boxes": boxes, "labels": rng.integers(0, CLASSES, len(cells))})
    found[0]["labels"][0], found[1]["labels"][0] = 0, CLASSES - 1
    return found


TRUTH = scene()


def raw(layout: str, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Outputs that hold the scene exactly, between predictions without confidence."""
    rng = np.random.default_rng(seed)
    predictions = {"set": 20, "final": 20}.get(layout, 60)
    corner = rng.uniform(0, 60, (IMAGES, predictions, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (IMAGES, predictions, 2))], 2)
    scores = rng.uniform(0.0005, 0.01, (IMAGES, predictions, CLASSES))
    for image, target in enumerate(TRUTH):
        rows = rng.permutation(predictions)[: len(target["labels"])]
        boxes[image, rows] = target["boxes"]
        scores[image, rows, target["labels"]] = rng.uniform(0.6, 0.95, len(rows))
    centred = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], 2)
    logits = np.log(scores / (1 - scores))
    if layout == "yolo":
        out: tuple[Any, ...] = (np.concatenate([centred, scores], 2).swapaxes(1, 2),)
    elif layout == "transposed":
        out = (np.concatenate([centred, scores], 2),)
    elif layout == "objectness":
        out = (np.concatenate([centred, np.ones((IMAGES, predictions, 1)), scores], 2),)
    elif layout == "final":
        best = scores.argmax(2)[..., None].astype(np.float64)
        out = (np.concatenate([boxes, scores.max(2, keepdims=True), best], 2),)
    elif layout == "separate":
        out = (logits, boxes)
    else:
        empty = np.log(np.maximum(1e-6, 1 - scores.sum(2, keepdims=True)))
        out = (np.concatenate([np.log(scores), empty], 2), centred / SIZE)
    return tuple(x.astype(np.float32) for x in out)


LAYOUTS = ["yolo", "transposed", "objectness", "final", "separate", "set"]


def task_of(layout: str, measure: str = "map") -> Any:
    size = f",size={SIZE:g}" if layout == "set" else ""
    return fit_task(resolve_task(f"detection:measure={measure}{size}"), raw(layout), TRUTH)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout: str):
    """The same boxes in six forms have average precision 1; what was read is said."""
    task = task_of(layout)
    task.check(raw(layout), TRUTH, "data")
    assert task.score(raw(layout), TRUTH).value == pytest.approx(1.0)
    assert task_of(layout, "f1").score(raw(layout), TRUTH).per_sample.tolist() == [1.0] * IMAGES
    assert task.agreement(raw(layout), raw(layout)).value == 1
    described = task.layout.describe()
    kind = {"yolo": "joined", "transposed": "joined", "objectness": "joined"}.get(layout, layout)
    form = "corners" if layout in ("final", "separate") else "centre and size"
    assert kind in described and form in described and f"{CLASSES} classes" in described


def test_scores_follow_the_samples():
    """Another order of the images changes nothing; the choice of images is theirs."""
    out, order = raw("yolo", seed=4)[0], np.random.default_rng(0).permutation(IMAGES)
    noise = np.random.default_rng(1).normal(0, 2, out.shape).astype(np.float32)
    out = out + noise * (np.arange(8) < 4)[:, None]
    task = task_of("yolo")
    whole = task.score((out,), TRUTH)
    assert 0.1 < whole.value < 0.9 and whole.per_sample is None
    assert task.score((out[order],), [TRUTH[i] for i in order]).value == pytest.approx(whole.value)
    assert whole.of(np.array([3, 4])) == pytest.approx(task.score((out[3:5],), TRUTH[3:5]).value)
    assert task_of("yolo", "map50").score((out,), TRUTH).value > whole.value


def test_agreement_is_not_had_by_silence():
    """A student that detects nothing, or moves every box away, agrees in nothing; a dense model that detects
    nothing is refused.
    """
    dense = raw("yolo")
    task = task_of("yolo")
    silent = dense[0].copy()
    silent[:, 4:] = 0.01
    assert task.agreement((silent,), dense).value == 0
    moved = dense[0].copy()
    moved[:, :2] += 40
    assert task.agreement((moved,), dense).value == 0
    broken = dense[0].copy()
    broken[2] = np.nan
    rows = task.agreement((broken,), dense).per_sample
    assert rows[2] == 0 and rows[3] == 1
    with pytest.raises(DataError, match=r"detects nothing above 0\.25 in all 12 samples"):
        task.agreement(dense, (silent,))
    with pytest.raises(DataError, match="detects nothing"):
        resolve_task("detection").check((silent,), None, "data")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_trains(layout: str):
    """From disturbed outputs, some steps down the gradient raise the measure."""
    task = task_of(layout)
    rng = np.random.default_rng(3)
    start = [torch.from_numpy(x) for x in raw(layout)]
    for index, out in enumerate(start):
        start[index] = out + torch.from_numpy(rng.normal(0, 0.03, out.shape).astype(np.float32)) * (
            out.abs() if layout != "set" else 1.0
        )
    if layout == "final":
        start[0][..., 4:] = torch.from_numpy(raw(layout)[0][..., 4:])
    before = task.score(tuple(x.numpy() for x in start), TRUTH).value
    leaves = [x.clone().requires_grad_() for x in start]
    rate = 0.003 if layout == "set" else 0.1
    optimizer = torch.optim.Adam(leaves, lr=rate)
    first = None
    for _ in range(60):
        loss = task.loss(tuple(leaves), TRUTH)
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        if layout != "set":
            for leaf in leaves:
                assert leaf.grad is not None and leaf.grad.isfinite().all()
        optimizer.step()
    assert float(loss.detach()) < first
    trained = tuple(x.detach().numpy().copy() for x in leaves)
    if layout == "final":
        trained[0][..., 5] = raw(layout)[0][..., 5]
    assert task.score(trained, TRUTH).value > before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slopes_and_distances(layout: str):
    """Drawn slopes are standard normal by each column's spread; distances are zero at equality only and count
    confident predictions most.
    """
    task, dense = task_of(layout), tuple(torch.from_numpy(x).double() for x in raw(layout))
    drawn, labelled = task.slopes(dense, TRUTH, torch.Generator().manual_seed(0))
    for index, (slope, out) in enumerate(zip(drawn, dense, strict=True)):
        axis = task.scales[index].axis
        spread = torch.from_numpy(task.scales[index].spread)
        rows = slope.movedim(axis, -1).reshape(-1, len(spread)) * spread
        torch.testing.assert_close(
            rows.std(0), torch.ones(len(spread), dtype=torch.float64), rtol=0.2, atol=0
        )
        assert labelled[index].shape == out.shape and labelled[index].isfinite().all()
    assert any((x != 0).any() for x in labelled)
    assert task.divergence(dense, dense) == 0
    noise = [0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double() for x in dense]
    pairs = list(zip(dense, noise, strict=True))
    near, far = (task.divergence(tuple(x + k * n for x, n in pairs), dense) for k in (1, 5))
    assert 0 < near < far


def test_distillation_counts_confident_predictions_most():
    """The same change on a detected box costs more than on one without confidence."""
    task, dense = task_of("yolo"), torch.from_numpy(raw("yolo")[0])
    confident = int(dense[0, 4:].amax(0).argmax())
    quiet = int(dense[0, 4:].amax(0).argmin())
    costs = []
    for anchor in (confident, quiet):
        moved = dense.clone()
        moved[0, :4, anchor] += 3
        costs.append(float(task.distil((moved,), (dense,))))
    assert costs[0] > 5 * costs[1] > 0


def test_further_outputs_count_in_distillation():
    """Prototypes of masks, feature maps: compared with the dense model's as numbers."""
    extra = np.random.default_rng(0).normal(size=(IMAGES, 3, 5, 5)).astype(np.float32)
    dense = (raw("yolo")[0], extra)
    task = fit_task(resolve_task("detection"), dense, TRUTH)
    assert task.score(dense, TRUTH).value == pytest.approx(1)
    a, b = (tuple(torch.from_numpy(x) for x in outs) for outs in (dense, (dense[0], extra + 1)))
    assert task.divergence(b, a) > 0


def test_boxes_are_inferred_and_one_class_per_image_follows():
    """A list of boxes is detection; each image's class is the one it has beyond the average."""
    task, why = infer_task(raw("yolo"), TRUTH)
    assert task.name == "detection" and "boxes" in why
    classes = fit_task(task, raw("yolo"), TRUTH).classes(raw("yolo"), TRUTH)
    assert classes.shape == (IMAGES,) and all(c in t["labels"] for c, t in zip(classes, TRUTH, strict=True))


def test_padded_arrays_are_boxes_too():
    """A mapping of (samples, most, 4) and (samples, most) with label −1 for what is missing."""
    boxes, labels = np.zeros((IMAGES, 4, 4)), np.full((IMAGES, 4), -1)
    for index, target in enumerate(TRUTH):
        count = len(target["labels"])
        boxes[index, :count], labels[index, :count] = target["boxes"], target["labels"]
    task = task_of("yolo")
    assert task.score(raw("yolo"), {"boxes": boxes, "labels": labels}).value == pytest.approx(1)


def changed(index: int, **fields: Any) -> list[dict[str, Any]]:
    entries = [dict(t) for t in TRUTH]
    entries[index] = {**entries[index], **fields}
    return entries


def one_box(index: int, *box: float, label: int = 1) -> list[dict[str, Any]]:
    return changed(index, boxes=np.array([box], dtype=np.float64), labels=np.array([label]))


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (one_box(3, 5, 5, 5, 9), "sample 3 has a box of no area: 5, 5, 5, 9"),
        (one_box(2, -9, 5, 5, 9), "sample 2 has a box outside the image"),
        (one_box(2, 90, 5, 150, 9), "outside the image of 100×100"),
        (one_box(4, np.nan, 5, 5, 9), "sample 4 has a box with NaN"),
        (one_box(1, 1, 5, 5, 9, label=4), "box of class 4, but the model has 4"),
        (one_box(1, 1, 5, 5, 9, label=-1), "box of class -1"),
        (changed(1, boxes=np.zeros((2, 3)), labels=np.zeros(2)), r"boxes 2×3 and 2 labels; \(n, 4\)"),
        (changed(1, boxes=np.zeros((2, 4)), labels=np.zeros(1)), "boxes 2×4 and 1 labels"),
        ([{"boxes": np.zeros((0, 4)), "labels": np.zeros(0)}] * IMAGES, "no sample has a box"),
        (np.zeros(IMAGES), "boxes and labels per sample, targets are 12"),
        ([1] * IMAGES, "sample 0 is no mapping"),
    ],
)
def test_bad_boxes_are_one_line(targets: Any, text: str):
    """Each is refused before anything is computed, and the sample is named."""
    task = fit_task(resolve_task("detection:size=100"), raw("yolo"), TRUTH)
    with pytest.raises(DataError, match=text) as caught:
        task.check(raw("yolo"), targets, "data")
    assert "\n" not in str(caught.value)


def test_shares_of_the_image_need_its_size():
    """DETR's boxes are shares; without the size of the images pixels cannot be compared."""
    task = fit_task(resolve_task("detection"), raw("set"), TRUTH)
    with pytest.raises(DataError, match="shares of the image, targets are pixels; say the size"):
        task.check(raw("set"), TRUTH, "data")
    shares = [{**t, "boxes": t["boxes"] / SIZE} for t in TRUTH]
    task = fit_task(resolve_task("detection"), raw("set"), shares)
    task.check(raw("set"), shares, "data")
    assert task.score(raw("set"), shares).value == pytest.approx(1)


@pytest.mark.parametrize("shapes", [[(12, 10)], [(12, 5, 5), (12, 6, 6)], [(12, 4, 30), (12, 3, 20)]])
def test_outputs_without_boxes_are_named(shapes: list[tuple[int, ...]]):
    """The shapes are in the message and the forms that are taken in the tip."""
    outputs = tuple(np.zeros(s, np.float32) for s in shapes)
    with pytest.raises(DataError, match="no boxes and scores among outputs"):
        fit_task(resolve_task("detection"), outputs, TRUTH)


def test_the_true_boxes_decide_what_values_do_not_say():
    """Corners, some out of order; data that lack the last class, as objectness would have it."""
    boxes, scores = raw("separate")[1], raw("yolo")[0][:, 4:].swapaxes(1, 2)
    joined = (np.concatenate([boxes, scores], 2),)
    joined[0][:, ::7, 2:4] -= 60  # a share of the corners is out of order, as raw heads have it
    task = fit_task(resolve_task("detection"), joined, TRUTH)
    assert task.layout.form == "xyxy" and task.score(joined, TRUTH).value > 0.3
    fewer = [{**t, "labels": np.minimum(t["labels"], CLASSES - 2)} for t in TRUTH]
    task = fit_task(resolve_task("detection"), raw("yolo"), fewer)
    assert not task.layout.objectness and task.layout.classes == CLASSES


def test_columns_behind_the_scores_are_not_scores():
    """Coefficients of masks and key points: not in 0..1 everywhere."""
    extra = np.random.default_rng(0).normal(size=(IMAGES, 6, 60)).astype(np.float32)
    out = (np.concatenate([raw("yolo")[0], extra], 1), np.zeros((IMAGES, 6, 8, 8), np.float32))
    for targets in (TRUTH, None):
        task = fit_task(resolve_task("detection"), out, targets)
        assert task.layout.classes == CLASSES and task.agreement(out, out).value == 1
    assert fit_task(resolve_task("detection"), out, TRUTH).score(out, TRUTH).value == pytest.approx(1)


def test_a_model_that_finds_no_true_box_is_refused():
    """A reading under which the dense model is worth nothing certifies nothing."""
    away = [{**t, "boxes": t["boxes"] + 500} for t in TRUTH]
    with pytest.raises(DataError, match="finds none of the true boxes; outputs were read as"):
        fit_task(resolve_task("detection"), raw("yolo"), away)
