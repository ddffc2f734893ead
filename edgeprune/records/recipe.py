"""The form of recipe.json: which indices of the user's own parameters stay.

Guarantee: what `read_recipe` gives has whole numbers as indices, in order and within the shape.
Elsewhere: making a recipe and applying it (surgery).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from edgeprune.errors import ModelError
from edgeprune.records.schema import Length, Range, parse_json, read_as

TIP = "recipe.json of a run, or beside a pruned .pt2"


@dataclass(frozen=True)
class RecipeTensor:
    """A parameter: its dense shape, and the kept indices of each dimension that shrinks."""

    shape: tuple[Annotated[int, Range(0, 2**40)], ...]
    keep: dict[str, Annotated[tuple[Annotated[int, Range(0, 2**40)], ...], Length(1, 2**31)]]


@dataclass(frozen=True)
class RecipeInput:
    """The features of an input that stay."""

    input: str
    shape: tuple[Annotated[int, Range(0, 2**40)], ...]
    of: str
    count: Annotated[int, Range(1)]
    kept: tuple[Annotated[int, Range(0, 2**40)], ...]


@dataclass(frozen=True)
class Recipe:
    """recipe.json."""

    schema: Literal[1]
    tensors: dict[str, RecipeTensor]
    choice: dict[str, str | bool | None] = field(default_factory=dict)
    inputs: tuple[RecipeInput, ...] = ()


def read_recipe(path: Path) -> dict[str, Any]:
    """The plain content of a recipe, checked.

    Raises:
        ModelError: the file is missing, no recipe, or an index is out of its dimension or out of order.
    """
    plain: dict[str, Any] = parse_json(path, error=ModelError, tip=TIP)
    recipe = read_as(Recipe, plain, str(path), error=ModelError, tip=TIP)
    for name, tensor in recipe.tensors.items():
        for dim, kept in tensor.keep.items():
            if not dim.isdecimal() or int(dim) >= len(tensor.shape):
                raise ModelError(f"{path}: {name}: has no dimension {dim!r}", tip=TIP)
            if list(kept) != sorted(set(kept)) or kept[-1] >= tensor.shape[int(dim)]:
                size = tensor.shape[int(dim)]
                raise ModelError(f"{path}: {name}: keep.{dim}: not ascending indices below {size}", tip=TIP)
    return plain
