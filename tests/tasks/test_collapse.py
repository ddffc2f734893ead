"""Agreement cannot be had by outputs that say nothing: constants, one column, a cone of embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import DataError
from edgeprune.tasks.infer import infer_task
from edgeprune.tasks.registry import fit_task, resolve_task

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def test_a_regressor_of_one_column_is_never_in_full_agreement_by_arg_max():
    """The old tool compared one column by arg max: 0 always equals 0. Noise of the outputs' size now agrees
    in little, and a constant in nothing.
    """
    dense = (normal(300, 1),)
    task, why = infer_task(dense, None)
    assert task.name == "generic" and "--task" not in why
    assert (dense[0].argmax(1) == normal(300, 1).argmax(1)).all()
    task = fit_task(task, dense, None)
    assert task.agreement((dense[0] + 2 * normal(300, 1),), dense).value < 0.3
    assert task.agreement((np.full_like(dense[0], dense[0].mean()),), dense).value == 0
    assert task.agreement((dense[0] + 0.01 * normal(300, 1),), dense).value > 0.999
    for name in ("classification", "embedding"):
        with pytest.raises(DataError, match="300×1"):
            resolve_task(name).check(dense, None, "data")


@pytest.mark.parametrize("name", ["regression", "forecasting", "embedding", "generic"])
@pytest.mark.parametrize("shape", [(200, 2), (200, 8)])
def test_constant_outputs_agree_nowhere(name: str, shape: tuple[int, int]):
    """Also where outputs have a large mean, so that every vector points the same way."""
    dense = (normal(*shape) + 20,)
    task = fit_task(resolve_task(name), dense, None)
    constant = np.broadcast_to(dense[0].mean(0), shape).copy()
    assert task.agreement((constant,), dense).value < 0.01
    assert task.agreement((np.zeros(shape, np.float32),), dense).value < 0.01
    assert task.agreement(dense, dense).value == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("classification", (400, 10)),
        ("segmentation", (40, 5, 6, 6)),
        ("tokens", (40, 12, 10)),
        ("ctc", (40, 12, 10)),
    ],
)
def test_constant_decisions_agree_by_chance_only(name: str, shape: tuple[int, ...]):
    """A student that always says the same is right as often as the dense model says it."""
    dense = (normal(*shape),)
    task = fit_task(resolve_task(name), dense, None)
    constant = (np.broadcast_to(dense[0][:1] * 0 + normal(1, *shape[1:]).mean(), shape).copy(),)
    assert task.agreement(constant, dense).value < 0.3
    assert task.agreement(dense, dense).value == 1


def test_an_embedding_is_not_classes():
    """384 numbers without labels: the arg max agrees by luck in 1 of 384; nothing of it is used."""
    dense = (normal(64, 384),)
    task, why = infer_task(dense, None)
    assert task.name == "generic" and "--task classification" in why
    near = (dense[0] + 0.2 * normal(64, 384),)
    by_arg_max = (near[0].argmax(1) == dense[0].argmax(1)).mean()
    assert by_arg_max < 0.9 < fit_task(task, dense, None).agreement(near, dense).value


@pytest.mark.parametrize("name", ["classification", "binary", "multilabel", "segmentation", "tokens", "ctc"])
def test_a_dense_model_that_decides_the_same_everywhere_is_refused(name: str):
    """Everything would agree with it."""
    shape = {"binary": (20, 1), "segmentation": (20, 3, 4, 4), "tokens": (20, 6, 3), "ctc": (20, 6, 3)}.get(
        name, (20, 3)
    )
    out = -5.0 + 0.1 * normal(*shape)
    axis = {"segmentation": 1, "binary": 1, "multilabel": 1}.get(name, -1)
    if name not in ("binary", "multilabel"):
        np.moveaxis(out, axis, 0)[0] += 10
    with pytest.raises(DataError, match="says nothing"):
        resolve_task(name).check((out,), None, "data")


@pytest.mark.parametrize("name", ["regression", "embedding", "generic"])
def test_dense_outputs_that_never_vary_are_refused(name: str):
    """There is no variance to explain."""
    with pytest.raises(DataError, match="same for all 20 samples"):
        resolve_task(name).check((np.ones((20, 3), np.float32),), None, "data")


def test_outputs_that_are_not_finite_do_not_agree():
    """NaN counts as an error, not as nothing; a sample beside it is judged as before."""
    for name, shape in (("generic", (50, 3)), ("classification", (50, 3)), ("embedding", (50, 3))):
        dense = (normal(*shape),)
        broken = dense[0].copy()
        broken[7] = np.nan
        rows = resolve_task(name).agreement((broken,), dense).per_sample
        assert rows[7] == 0 and rows[8] == pytest.approx(1)
