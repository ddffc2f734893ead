"""Example inputs from the shapes that a user types."""

from __future__ import annotations

import pytest
import torch

from edgeprune.errors import ModelError
from edgeprune.frontend.examples import example_tensors, parse_input_shape


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("1,28,28", (1, 28, 28), "float32"),
        ("3x224x224", (3, 224, 224), "float32"),
        ("64", (64,), "float32"),
        ("int64:64", (64,), "int64"),
        ("tokens:int64:64", (64,), "int64"),
        (" 1, 28 ,28 ", (1, 28, 28), "float32"),
    ],
)
def test_shapes_are_read(text: str, shape: tuple[int, ...], dtype: str):
    """Sizes without batch, optionally after a name and a dtype."""
    assert parse_input_shape(text) == (shape, dtype)


@pytest.mark.parametrize("text", ["", "a", "1,-2", "1,0", "float31:3", "a:b:c:d", "1,,2", "1.5", "²"])
def test_other_shapes_are_refused(text: str):
    """What is not of that form is a ModelError that quotes it."""
    with pytest.raises(ModelError, match="--input-shape"):
        parse_input_shape(text)


def test_examples_are_seeded_with_a_batch_of_two():
    """The same shapes give the same tensors; integers are tokens that any vocabulary has."""
    first = example_tensors([(3, 4), (5,)], [None, "int64"])
    second = example_tensors([(3, 4), (5,)], [None, "int64"])
    assert [tuple(x.shape) for x in first] == [(2, 3, 4), (2, 5)]
    assert [x.dtype for x in first] == [torch.float32, torch.int64]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert set(first[1].unique().tolist()) <= {0, 1}
