"""Every argument of every public function refuses what it cannot be, by name and with a typed error.

The functions, methods and arguments are those of the signatures: a new one is held to this too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import information
from edgeprune.errors import DataError, EdgepruneError

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.arange(40) % 4
CODES = information.quantize(X, 7)
COUNTS = information.joint_counts(CODES, Y, 4)
PATH = Path("state.npz")

STATES: dict[str, Any] = {
    "Covariance": information.Covariance(3).update(X),
    "EdgeCounts": information.EdgeCounts([1, 1, 1], 4),
    "IntegerCovariance": information.IntegerCovariance(3).update(np.ones((5, 3), np.int8)),
    "JointCounts": information.JointCounts(CODES.edges, 4),
    "SoftCounts": information.SoftCounts(CODES.edges, 4).update(X, np.eye(4)[Y]),
}
RESULTS = {"Consumer", "Elimination", "Intervals", "Moments", "Selection", "TableStatistics"}


def callables() -> dict[str, Callable[..., Any]]:
    """Every public function, constructor and method by its name."""
    found = {name: getattr(information, name) for name in set(information.__all__) - RESULTS}
    for owner, state in STATES.items():
        methods = (name for name, _ in inspect.getmembers(state, callable) if not name.startswith("_"))
        found |= {f"{owner}.{name}": getattr(state, name) for name in methods}
    return dict(sorted(found.items()))


CALLS = callables()
ARGUMENTS = {
    name: [a for a in inspect.signature(f).parameters if a != "zero_atom"] for name, f in CALLS.items()
}
GOOD: dict[str, Any] = {
    "bins": 8,
    "bonus": np.ones(3),
    "candidates": np.ones(3, bool),
    "channels": 3,
    "choose": 1,
    "classes": 4,
    "codes": CODES,
    "consumers": [information.Consumer(np.eye(3), np.eye(3), np.arange(3))],
    "correction": "none",
    "counts": COUNTS,
    "counts_or_codes": CODES,
    "edges": CODES.edges,
    "entropy": np.ones(3),
    "high": [1.0],
    "labels": Y,
    "level": 0.9,
    "low": [0.0],
    "method": "chi2",
    "neighbours": 3,
    "offset": 0.5,
    "p": [0.5],
    "path": PATH,
    "probabilities": np.eye(4)[Y],
    "ranges": [1, 1, 1],
    "resamples": 20,
    "resolution": 16,
    "rounds": 9,
    "samples": 40,
    "scale": 0.5,
    "seed": 0,
    "shift": np.zeros(3),
    "sketch": 10,
    "start": 1000,
    "steps": np.ones(2, np.float32),
    "targets": X[:, 0],
    "theta": 0.5,
    "threads": 1,
    "thresholds": np.zeros((3, 1)),
    "unit": 1,
    "units": 3,
    "weights": np.ones((2, 3), np.float32),
    "x": X,
    "y": X,
}
# Where an argument of that name is something else.
ELSEWHERE: dict[tuple[str, str], Any] = {
    ("Codes", "codes"): CODES.codes,
    ("IntegerCovariance.update", "codes"): np.ones((5, 3), np.int8),
    ("joint_information", "other"): 1,
    ("quantize", "edges"): None,  # with edges, bins would not be looked at
    ("multilabel_information", "labels"): np.eye(4, dtype=int)[Y],
    ("Covariance.merge", "other"): information.Covariance(3),
    ("EdgeCounts.merge", "other"): information.EdgeCounts([1, 1, 1], 4),
    ("IntegerCovariance.merge", "other"): information.IntegerCovariance(3),
    ("JointCounts.merge", "other"): information.JointCounts(CODES.edges, 4),
    ("SoftCounts.merge", "other"): information.SoftCounts(CODES.edges, 4),
    ("SoftCounts.information", "correction"): "full",
}

WHOLE_NUMBERS = ["a", 2.5, -5, True, [1]]
NUMBERS = ["a", ["a", "b", "c"], [[1.0], [1.0, 2.0]], object(), 1j]
KINDS: list[tuple[set[str], list[Any]]] = [
    ({"resamples", "rounds", "sketch"}, WHOLE_NUMBERS),
    (
        {"bins", "channels", "choose", "classes", "neighbours", "other", "resolution", "samples"}
        | {"seed", "start", "threads", "unit", "units"},
        [*WHOLE_NUMBERS, 10**30],
    ),
    ({"level", "offset", "theta"}, ["a", [0.5], np.nan, np.inf, True, 1j, 10**400]),
    (
        {"bonus", "entropy", "high", "low", "p", "probabilities", "ranges", "scale", "shift", "steps"}
        | {"targets", "thresholds", "weights"},
        NUMBERS,
    ),
    ({"codes", "consumers", "counts", "counts_or_codes", "edges", "x", "y"}, [*NUMBERS, 3, {}]),
    ({"candidates"}, [*NUMBERS, [0, 1, 2]]),
    ({"labels"}, [*NUMBERS, 3, [0.5] * 40]),
    ({"path"}, [3, 2.5, []]),
    ({"correction", "method"}, ["b", 3]),
]
WRONG = {argument: values for names, values in KINDS for argument in names}


def good(name: str) -> dict[str, Any]:
    """Arguments that a callable takes."""
    return {a: ELSEWHERE[name, a] if (name, a) in ELSEWHERE else GOOD[a] for a in ARGUMENTS[name]}


@pytest.mark.parametrize("name", CALLS)
def test_the_arguments_that_are_spoiled_here_are_good(name: str, tmp_path: Path, monkeypatch):
    """Unspoiled, every call succeeds, so each refusal below is for the spoiled argument alone."""
    monkeypatch.chdir(tmp_path)
    if name.endswith(".load"):
        CALLS[name.replace("load", "save")](PATH)
    CALLS[name](**good(name))


@pytest.mark.parametrize(
    ("name", "argument"), [(n, a) for n, arguments in ARGUMENTS.items() for a in arguments]
)
def test_a_value_that_an_argument_cannot_be_is_refused_by_name(name: str, argument: str):
    """Text for a number, a fraction for a count, a negative, nothing at all: a DataError with the name."""
    optional = inspect.signature(CALLS[name]).parameters[argument].default is None
    for value in [*WRONG[argument], *([] if optional else [None])]:
        with pytest.raises(DataError) as caught:
            CALLS[name](**{**good(name), argument: value})
        assert argument.removesuffix("_or_codes") in str(caught.value), value


@pytest.mark.parametrize("name", CALLS)
def test_a_public_function_says_what_it_raises(name: str):
    """Its docstring has a Raises section, which begins with a typed error."""
    _, found, raises = (inspect.getdoc(CALLS[name]) or "").partition("Raises:\n")
    assert found
    assert raises.split(":")[0].strip() in [kind.__name__ for kind in EdgepruneError.__subclasses__()]


def test_an_absurd_number_of_threads_is_refused():
    """A thousand million threads would each want scratch memory."""
    with pytest.raises(DataError, match=r"threads is 1000000000, wanted 0..1024; 0 takes all processors"):
        information.jmi_selection(CODES, Y, 1, threads=10**9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: information.IntegerCovariance(0), "channels is 0, wanted 1..65536"),
        (lambda: information.soft_joint_counts(CODES, np.eye(4)[Y], resolution=2.5), "resolution is 2.5"),
        (lambda: information.mutual_information(CODES, Y, classes=0), "classes is 0"),
        (lambda: information.fixed_edges([-1e300], [1e300]), r"the range of channel 0 is \[-1e\+300"),
        (lambda: information.joint_counts(CODES, Y, 2**24), "classes is 16777216, wanted 1..16777215"),
        (
            lambda: information.jmi_selection([CODES, information.quantize(X, 5)], Y, 1),
            r"codes\[1\] has shape \(40, 3\) and 6 bins, codes\[0\] has \(40, 3\) and 8",
        ),
        (lambda: information.jmi_selection([], Y, 1), "codes is a list, wanted Codes or a list of them"),
        (
            lambda: information.jmi_selection(CODES, Y, 3, candidates=[True, False, True]),
            "choose is 3, wanted 0..2",
        ),
        (lambda: information.backward_elimination([3], 1), r"consumers\[0\] is 3, wanted a Consumer"),
    ],
)
def test_what_no_table_of_kinds_catches_is_named(call: Callable[[], Any], text: str):
    """Sizes of zero, sizes beyond the core's, and arguments that do not go together."""
    with pytest.raises(DataError, match=text):
        call()
