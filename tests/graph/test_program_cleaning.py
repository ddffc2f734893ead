"""The strings of a program's JSON: what passes is plain, what is not plain is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.coupling.operators import TABLE
from edgeprune.errors import UnsafeModelError
from edgeprune.frontend.operators import ATEN_NAMES, SIZE_OPERATORS, is_allowed
from edgeprune.frontend.program import clean_program


def program(
    expression: str = "Integer(2)", name: str = "x", target: str = "torch.ops.aten.relu.default"
) -> bytes:
    node = {"target": target, "name": name, "inputs": [], "outputs": [], "metadata": {}}
    sizes = {"n": {"as_expr": {"expr_str": expression, "hint": None}}}
    graph: dict[str, Any] = {"nodes": [node], "sym_int_values": sizes, "inputs": [], "outputs": []}
    return json.dumps({"graph_module": {"graph": graph, "signature": {}}, "guards_code": ["1"]}).encode()


@pytest.mark.parametrize(
    "expression",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s77', positive=True, integer=True))",
        "Add(FloorDiv(Symbol('s0', integer=True), Integer(2)), Integer(-1))",
        "Pow(Symbol('s0', integer=True), Integer(2))",
        "2*s0 + 1",
        "s0**2",
        "(s0 - 1)//2 + 1",
        "Float('0.5', precision=53)",
        "Eq(Mod(s0, 4), 0)",
        "true",
    ],
)
def test_arithmetic_on_sizes_passes(expression: str):
    """Every form in which torch.export writes sizes survives, with the same meaning."""
    cleaned, _ = clean_program(program(expression), "m.pt2")
    kept = cleaned["graph_module"]["graph"]["sym_int_values"]["n"]["as_expr"]["expr_str"]
    assert kept.replace(" ", "").replace("(", "").replace(")", "") == expression.replace(" ", "").replace(
        "(", ""
    ).replace(")", "")


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('x')",
        "open('x', 'w')",
        "Symbol('s0').__class__",
        "Symbol('evil')",
        "Integer(eval('1'))",
        "Float('nan')",
        "Float('__import__(1)')",
        "(lambda: 1)()",
        "[1 for x in (1,)]",
        "9**9**9**9",
        "Pow(Pow(Pow(Pow(9, 9), 9), 9), 9)",
        "s0 if s0 else 1",
        "f'{s0}'",
        "s0; s1",
        "",
        "Symbol('s0', positive=open('x'))",
        "Add(*s0)",
        "Add(**s0)",
        "os",
        "1" * 5000,
    ],
)
def test_anything_else_in_a_size_is_refused(expression: str):
    """sympify evaluates: attributes, other functions, lambdas and towers of powers do not reach it."""
    with pytest.raises(UnsafeModelError, match="not plain arithmetic"):
        clean_program(program(expression), "m.pt2")


@given(st.text(max_size=40))
def test_no_name_breaks_out_of_generated_source(name: str):
    """A node's name is refused or is an ASCII identifier, whatever it holds."""
    try:
        cleaned, _ = clean_program(program(name=name), "m.pt2")
    except UnsafeModelError:
        return
    kept = cleaned["graph_module"]["graph"]["nodes"][0]["name"]
    assert kept == name
    assert kept == "" or (kept.isidentifier() and kept.isascii())


def test_guards_never_pass():
    """Guard code is source; the cleaned program has none."""
    assert clean_program(program(), "m.pt2")[0]["guards_code"] == []


@pytest.mark.parametrize("verifier", ["EDGE", "__import__"])
def test_other_dialects_are_refused(verifier: str):
    """A program of another compiler's dialect is not ATen and is named."""
    document = {**json.loads(program()), "verifiers": [verifier]}
    with pytest.raises(UnsafeModelError, match=verifier):
        clean_program(json.dumps(document).encode(), "m.pt2")


def test_every_listed_operator_exists():
    """A misspelt name in the list would allow nothing; each is an operator of this torch."""
    assert [name for name in sorted(ATEN_NAMES) if not hasattr(torch.ops.aten, name)] == []


def test_every_operator_with_a_rule_is_listed():
    """What coupling can remove channels through is not refused when it comes in a file."""
    assert [str(t) for t in TABLE if not is_allowed(f"torch.ops.{t}")] == []


@pytest.mark.parametrize(
    "name", ["from_file", "save", "set_", "resize_", "set_data", "_print", "warn", "load"]
)
def test_operators_that_reach_outside_are_not_listed(name: str):
    """Files, storages and the terminal are out of reach."""
    assert not is_allowed(f"torch.ops.aten.{name}.default")
    assert name not in ATEN_NAMES


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.relu",
        "torch.ops.aten.relu.nothing",
        "torch.ops.aten.relu.overloads",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.relu.default.__call__",
        "torch.ops.load_library",
        "torch.load",
        "torch.hub.load",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.__loader__",
        "#namespace:op",
        "builtins.eval",
        "",
    ],
)
def test_only_whole_overloads_are_allowed(target: str):
    """A prefix of a listed operator, an attribute of one, or another function is not one."""
    assert not is_allowed(target)
    with pytest.raises(UnsafeModelError, match="not on the list"):
        clean_program(program(target=target), "m.pt2")


def test_in_place_and_size_operators_are_allowed():
    """relu_ goes with relu, and arithmetic on sizes is listed."""
    assert is_allowed("torch.ops.aten.relu_.default")
    assert all(is_allowed(name) for name in SIZE_OPERATORS)


def test_nested_graphs_say_how_to_export_without():
    """no_grad inside forward exports as a nested graph; the tip is to export under no_grad."""
    with pytest.raises(UnsafeModelError, match="no_grad"):
        clean_program(program(target="torch.ops.higher_order.wrap_with_set_grad_enabled"), "m.pt2")
