"""edgeprune/_core.pyi says what the compiled core is: names, parameters, element types and results."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import edgeprune
from edgeprune import _core

STUB = Path(edgeprune.__file__).with_name("_core.pyi")
FUNCTIONS = {
    node.name: node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.FunctionDef)
}
CONSTANTS = {
    node.target.id: node.annotation.id
    for node in ast.parse(STUB.read_text()).body
    if isinstance(node, ast.AnnAssign)
}
# How pybind11 writes the types of the stub. What the core returns as `object` is None or what the stub says;
# test_results_have_the_types_of_the_stub calls those.
SPELLINGS = {
    "numpy.ndarray": "NDArray[Any]",
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "typing.Annotated[numpy.typing.ArrayLike, ": "NDArray[",
    "numpy.typing.": "",
    "numpy.": "np.",
    "collections.abc.": "",
}


def declared(function: ast.FunctionDef) -> tuple[list[tuple[str, str]], str]:
    """Parameters with their types, and the result, as text."""
    assert not function.args.kwonlyargs and function.args.vararg is None and function.args.kwarg is None
    parameters = [*function.args.posonlyargs, *function.args.args]
    assert all(p.annotation for p in parameters) and function.returns, function.name
    return [(p.arg, ast.unparse(p.annotation)) for p in parameters], ast.unparse(function.returns)


def registered(name: str) -> tuple[list[tuple[str, str]], str]:
    """The same from the signature that pybind11 puts at the head of the docstring."""
    signature = getattr(_core, name).__doc__.splitlines()[0]
    for theirs, ours in SPELLINGS.items():
        signature = signature.replace(theirs, ours)
    (function,) = ast.parse(f"def {signature}: ...").body
    return declared(function)


def test_the_stub_names_everything_in_the_module_and_nothing_else():
    public = {name for name in vars(_core) if not name.startswith("__")}
    assert public == set(FUNCTIONS) | set(CONSTANTS)
    for name, kind in CONSTANTS.items():
        assert type(getattr(_core, name)).__name__ == kind, name
    for name in FUNCTIONS:
        assert inspect.isbuiltin(getattr(_core, name)), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_and_result_are_those_of_the_module(name):
    theirs, their_result = registered(name)
    ours, our_result = declared(FUNCTIONS[name])
    positional_only = bool(theirs) and theirs[0][0] == "arg0"  # bound without names
    assert bool(FUNCTIONS[name].args.posonlyargs) == positional_only
    if positional_only:
        theirs = [(own, kind) for (own, _), (_, kind) in zip(ours, theirs, strict=True)]
    assert ours == theirs
    assert our_result == their_result or (their_result == "object" and our_result.endswith(" | None"))


def shape_of(value) -> str:
    """The stub's spelling of a value's type."""
    if isinstance(value, tuple):
        return f"tuple[{', '.join(shape_of(part) for part in value)}]"
    return f"NDArray[np.{value.dtype}]" if isinstance(value, np.ndarray) else type(value).__name__


X = np.arange(24, dtype=np.float32).reshape(8, 3)
LABELS, THRESHOLDS = np.zeros(8, np.int32), np.zeros((3, 4), np.float32)
OPTIONAL = {
    "find_edges": lambda x: (x, "float32", np.arange(8, dtype=np.uint32), 4, 1),
    "encode": lambda x: (x, "float32", THRESHOLDS, 1),
    "label_statistics": lambda x: (x, "float32", THRESHOLDS, LABELS, 1, True, 1),
    "find_ranges": lambda x: (x, "float32", 1),
    "block_moments": lambda x: (x, "float32", 0, 8, np.zeros(3), 1),
    "find_non_finite": lambda x: (x, "float32"),
}


def test_every_result_that_may_be_none_is_called_here():
    assert set(OPTIONAL) == {name for name in FUNCTIONS if registered(name)[1] == "object"}


@pytest.mark.parametrize("name", OPTIONAL)
def test_results_have_the_types_of_the_stub(name):
    """Finite values and a NaN between them give both results that the stub allows."""
    damaged = X.copy()
    damaged[5, 1] = np.nan
    results = [getattr(_core, name)(*OPTIONAL[name](x)) for x in (X, damaged)]
    none, value = results if name == "find_non_finite" else reversed(results)
    assert none is None
    assert f"{shape_of(value)} | None" == declared(FUNCTIONS[name])[1]
