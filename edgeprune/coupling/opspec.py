"""What the package knows of an operator, in one entry of one table.

    @operators(aten.foo.default, replay="view", rewrite=rewrite_foo)
    def foo(ties, call): ...                     # registers aten.foo.default

    spec_of(node.target)                         # its OpSpec; None: unknown, pinned with a reason

An entry holds the coupling rule, how arguments follow a removal, how movement is proven to commute
with removal, and which of the lossless analyses covers the operator. The files rules_*.py hold the
entries, so a new operator is one function in one of them. One list is kept apart on purpose: what a
program from an untrusted file may call (frontend.operators); a test holds the two together.
Elsewhere: importing all entries (`operators`), using them (couple, rewrite, replay, simplify).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from edgeprune.coupling.sizes import Sizes
from edgeprune.coupling.ties import Ties
from edgeprune.errors import EdgepruneError, TraceError
from edgeprune.graph.module import source_line


@dataclass(frozen=True)
class OperatorCall:
    """One node with Values for tensors and integers for symbolic sizes."""

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: Any  # of the output; a list for several
    where: str  # "aten.conv2d at model.py:41"
    batch: int = 1  # samples that the node computes at once; 1 where it depends on no input

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or by name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def name(self, index: int) -> str:
        """Name of the node that feeds a positional argument."""
        source = self.node.args[index]
        return source.name if isinstance(source, fx.Node) else ""


NewCall = tuple[Any, tuple[Any, ...], dict[str, Any]]  # target, arguments, keyword arguments
Rule = Callable[[Ties, OperatorCall], Any]
Rewriter = Callable[[fx.Node, Sizes], NewCall]
Replay = Literal["reshape", "permute", "view", "join", "elements"]
Lossless = Literal[
    "elementwise", "convolution", "transposed", "product", "addmm", "join", "move", "pool", "reduce", "along",
    "pad", "batch norm", "layer norm", "attention", "resample", "glu", "prelu",
    "cast", "constant",
]  # fmt: skip
Algebra = Literal["linear", "homogeneous"]


@dataclass(frozen=True)
class OpSpec:
    """What every stage needs to know of one operator overload.

    rule: emits which indices go together, and gives the output's labels.
    rewrite: arguments after a removal; `unchanged` where its sizes never shrink, None where it takes none.
    replay: how movement is proven to commute with removal; None: the operator computes, nothing to prove.
    lossless: the analysis of dependence and equality that covers it; None: any input reaches any output.
    algebra: what f(c·x) is per channel: "linear" keeps combinations of channels, "homogeneous" (ReLU)
        positive multiples only; None: neither.
    """

    rule: Rule
    rewrite: Rewriter | None = None
    replay: Replay | None = None
    lossless: Lossless | None = None
    algebra: Algebra | None = None


TABLE: dict[Any, OpSpec] = {}
_POINTWISE: list[OpSpec] = []  # the entry of every operator that torch tags as pointwise


def operators(
    *targets: Any,
    rewrite: Rewriter | None = None,
    replay: Replay | None = None,
    lossless: Lossless | None = None,
    algebra: Algebra | None = None,
) -> Callable[[Rule], Rule]:
    """Register a rule for these overloads, with the facts that other stages need.

    Raises:
        ValueError: an overload is registered already.
    """

    def register(rule: Rule) -> Rule:
        for target in targets:
            if target in TABLE:
                raise ValueError(f"{target} is registered twice")
            TABLE[target] = OpSpec(rule, rewrite, replay, lossless, algebra)
        return rule

    return register


def pointwise(spec: OpSpec) -> None:
    """Make this the entry of operators without one of their own that torch tags as pointwise."""
    _POINTWISE[:] = [spec]


def spec_of(target: Any) -> OpSpec | None:
    """What is known of an operator; None where nothing is."""
    spec = TABLE.get(target)
    if spec is None and _POINTWISE and torch.Tag.pointwise in getattr(target, "tags", ()):
        return _POINTWISE[0]
    return spec


def unchanged(node: fx.Node, sizes: Sizes) -> NewCall:
    """The rewrite of operators whose integer arguments describe positions, which are never removed."""
    return node.target, node.args, node.kwargs


def operator_name(node: fx.Node) -> str:
    """`aten.conv2d`: the operator without the name of its only overload."""
    return str(node.target).removesuffix(".default")


@contextlib.contextmanager
def naming(node: fx.Node, step: str) -> Iterator[None]:
    """Turn an unexpected exception into one that names operator, node and source line.

    Args:
        step: what was being done, as in "coupling rule".

    Raises:
        TraceError: with the exception as its cause. Errors of this package pass as they are.
    """
    try:
        yield
    except EdgepruneError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise TraceError(
            f"{operator_name(node)} at {source_line(node)} (node {node.name}): the {step} failed"
            f" with {text.splitlines()[0][:200]}",
            tip="the operator is used in a way that edgeprune does not know; please report it with that line",
        ) from error
