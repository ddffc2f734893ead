"""Clean the JSON of an exported program: what stays cannot run code when it is loaded.

`torch.export.load` hands parts of this JSON to `sympify` (which evaluates), to
`importlib` (tree structures with enums or default factories), to `getattr` chains from
`torch`, and pastes node names, guards and stack traces into generated Python source.
So nothing is passed on as found. Every string is matched by its place: operators against
the allow-list, size expressions parsed and rewritten from their tree, structures limited
to tuples, lists and dictionaries, everything else to names without quotes or line ends.
Guards are dropped (the later stages drop them anyway), and of a node's metadata only the
stack trace, the module stack and the function name stay, as printable text.

Raises `UnsafeModelError` for what would run code or is not known to be harmless.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from edgeprune.errors import UnsafeModelError
from edgeprune.frontend.operators import is_allowed

PROGRAM_KEYS = ("graph_module", "opset_version", "range_constraints", "schema_version", "torch_version")
DIALECTS = {"", "ATEN", "TRAINING"}
METADATA_KEYS = ("stack_trace", "nn_module_stack", "torch_fn")
STRUCTURES = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
REFUSED = {
    "as_operator": "passes an operator as an argument",
    "as_custom_obj": "takes a custom object",
    "custom_obj": "takes a custom object",
    "custom_obj_values": "holds custom objects",
    "as_graph": "holds a nested graph",
    "token": "orders side effects",
}
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLAIN = re.compile(r"[A-Za-z0-9_.\-+/:@ ]*")
TEXT = re.compile(r"[A-Za-z0-9_.,;:<>()\[\]+\-*/=|%!?#@&^~ ]*")
IDENTIFIER_KEYS = {"name", "as_name"}
SYMBOL = re.compile(r"(s|u|zs|zf|zuf)[0-9]+")
_FUNCTIONS = """
Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs floor ceiling Eq Ne Lt Le Gt Ge Equality
Unequality LessThan GreaterThan StrictLessThan StrictGreaterThan And Or Not FloorDiv ModularIndexing
Where PythonMod CleanDiv CeilDiv CeilToInt FloorToInt IntTrueDiv FloatTrueDiv FloatPow PowByNatural
ToFloat TruncToInt TruncToFloat RoundToInt Identity
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
CONSTANTS = {"true", "false", "True", "False"}
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
LONGEST_EXPRESSION = 4000
LONGEST_TEXT = 20_000
TIP = (
    "if you trust where the file comes from, load it with --trust-pickle; otherwise export it again from its"
    " source, or give its weights as safetensors with --model package.module:factory"
)
NESTED_TIP = (
    "a nested graph comes from control flow or from switching gradients inside forward: export the model"
    " inside torch.no_grad(), without control flow, or give its state dict with --model"
)


def clean_program(content: bytes, source: str) -> tuple[dict[str, Any], bool]:
    """Parse and clean `models/NAME.json`.

    Returns:
        the program as plain values, and whether devices other than the CPU were rewritten.

    Raises:
        UnsafeModelError: an operator off the list, or anything that would be evaluated or imported.
        ValueError: not JSON, or not a program.
    """
    program = json.loads(content)
    if not isinstance(program, dict) or not isinstance(program.get("graph_module"), dict):
        raise ValueError("its model JSON holds no graph")
    cleaner = _Cleaner(source)
    for dialect in program.get("verifiers") or ():
        if dialect not in DIALECTS:
            raise cleaner.refuse(f"is written in the dialect {_short(dialect)}, not in ATen")
    cleaned = {key: cleaner.clean(program[key], key) for key in PROGRAM_KEYS if key in program}
    graph_module = cleaned["graph_module"]
    if not isinstance(graph_module.get("graph"), dict) or "signature" not in graph_module:
        raise ValueError("its model JSON holds no graph")
    graph_module["metadata"] = {}
    graph_module["treespec_namedtuple_fields"] = {}
    cleaned["verifiers"] = list(program.get("verifiers") or [])
    cleaned["guards_code"] = []
    return cleaned, cleaner.moved


class _Cleaner:
    """One walk over the JSON; `moved` records that a device was rewritten to the CPU."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.moved = False

    def refuse(self, what: str, tip: str = "") -> UnsafeModelError:
        message = f"{self.source}: the exported program {what}; it was not loaded"
        return UnsafeModelError(message, tip=tip or TIP)

    def clean(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return self._string(value, key)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list):
            return [self.clean(item, key) for item in value]
        if key == "metadata":
            return self._metadata(value)
        if set(value) == {"type", "index"} and isinstance(value["type"], str):
            return self._device(value)
        out = {}
        for name, item in value.items():
            if name in REFUSED and item not in (None, {}, []):
                raise self.refuse(REFUSED[name])
            if not PLAIN.fullmatch(name):
                raise self.refuse(f"has a key {_short(name)} that is not a name")
            out[name] = self.clean(item, name)
        return out

    def _string(self, value: str, key: str) -> str:
        if key == "target":
            if not is_allowed(value):
                tip = NESTED_TIP if value.startswith("torch.ops.higher_order.") else TIP
                raise self.refuse(
                    f"calls {_short(value)}, which is not on the list of allowed operators", tip
                )
            return value
        if key == "expr_str":
            return self._expression(value)
        if key in ("in_spec", "out_spec"):
            return self._structure(value)
        if key in IDENTIFIER_KEYS:
            if value and not IDENTIFIER.fullmatch(value):
                raise self.refuse(f"has a node named {_short(value)}, which is not an identifier")
            return value
        pattern = TEXT if key in ("as_string", "as_strings") else PLAIN
        if not pattern.fullmatch(value):
            raise self.refuse(f"has the text {_short(value)} where a plain {key} is expected")
        return value

    def _device(self, value: dict[str, Any]) -> dict[str, Any]:
        if value["type"] == "cpu":
            return {"type": "cpu", "index": None}
        if not IDENTIFIER.fullmatch(value["type"]):
            raise self.refuse(f"has a device {_short(value['type'])}")
        self.moved = True
        return {"type": "cpu", "index": None}

    def _metadata(self, value: dict[str, Any]) -> dict[str, str]:
        kept = {}
        for key in METADATA_KEYS:
            text = value.get(key)
            if isinstance(text, str) and len(text) <= LONGEST_TEXT:
                kept[key] = "".join(c if c == "\n" or c.isprintable() else "?" for c in text)
        return kept

    def _structure(self, text: str) -> str:
        """A serialized tree structure: `[protocol, {type, context, children_spec}]`."""
        parsed = json.loads(text)
        if not (isinstance(parsed, list) and len(parsed) == 2 and isinstance(parsed[0], int)):
            raise ValueError("a structure in its model JSON is malformed")
        self._tree(parsed[1])
        return json.dumps(parsed)

    def _tree(self, tree: Any) -> None:
        if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
            raise ValueError("a structure in its model JSON is malformed")
        if tree["type"] not in STRUCTURES:
            raise self.refuse(
                f"takes or returns a {_short(tree['type'])}, not tuples, lists and dictionaries"
            )
        context = json.loads(tree["context"]) if isinstance(tree["context"], str) else tree["context"]
        keys = context if isinstance(context, list) else [context]
        if not all(k is None or isinstance(k, str | int) for k in keys):
            raise self.refuse(f"has a structure with the context {_short(str(tree['context']))}")
        if not all(PLAIN.fullmatch(k) for k in keys if isinstance(k, str)):
            raise self.refuse(f"has a structure with the keys {_short(str(keys))}")
        for child in tree["children_spec"]:
            self._tree(child)

    def _expression(self, text: str) -> str:
        """A size expression, checked node by node and written anew from its tree."""
        trouble = self.refuse(f"has the size expression {_short(text)}, which is not plain arithmetic")
        if len(text) > LONGEST_EXPRESSION:
            raise trouble
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError, MemoryError) as exc:
            raise trouble from exc
        powers = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and "Pow" in n.id]
        if not _is_arithmetic(tree.body) or len(powers) > 3:
            raise trouble
        return ast.unparse(tree)


def _is_arithmetic(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and abs(node.value) < 2**63
    if isinstance(node, ast.Name):
        return bool(SYMBOL.fullmatch(node.id)) or node.id in CONSTANTS
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _is_arithmetic(node.operand)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Pow):
            small = isinstance(node.right, ast.Constant) and node.right.value in (2, 3, 4)
            return small and isinstance(node.left, ast.Name) and _is_arithmetic(node.left)
        return isinstance(node.op, ARITHMETIC) and _is_arithmetic(node.left) and _is_arithmetic(node.right)
    if isinstance(node, ast.Compare):
        return _is_arithmetic(node.left) and all(_is_arithmetic(n) for n in node.comparators)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
        return False
    if not all(k.arg and isinstance(k.value, ast.Constant) for k in node.keywords):
        return False
    if not all(
        type(k.value.value) in (bool, int) for k in node.keywords if isinstance(k.value, ast.Constant)
    ):
        return False
    if node.func.id == "Symbol":
        name = node.args[0] if len(node.args) == 1 else None
        return isinstance(name, ast.Constant) and bool(SYMBOL.fullmatch(str(name.value)))
    if node.func.id == "Float" and node.args and isinstance(node.args[0], ast.Constant):
        return re.fullmatch(r"-?[0-9.]{1,40}(e[+-]?[0-9]{1,3})?", str(node.args[0].value)) is not None
    return all(_is_arithmetic(argument) for argument in node.args)


def _short(text: Any) -> str:
    """A hostile string, fit for one line of an error message."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return repr(shown if len(shown) <= 60 else shown[:57] + "…")
