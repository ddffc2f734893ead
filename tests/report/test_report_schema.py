"""validate_report: what a report must hold, and the first thing that is wrong with a bad one."""

from __future__ import annotations

import json

import pytest
from report_samples import sample

from edgeprune.errors import RunError
from edgeprune.report import validate_report


def _set(report, path, value):
    *way, last = path
    node = report
    for key in way:
        node = node[key]
    if value is KeyError:
        del node[last]
    else:
        node[last] = value


def test_a_complete_report_is_valid_before_and_after_json():
    """The sample passes, and so does what json gives back."""
    validate_report(sample())
    validate_report(json.loads(json.dumps(sample())))


def test_a_run_without_data_or_bench_is_valid():
    """Accuracy and latency may be null, and lists may be empty."""
    report = sample()
    report.update(accuracy=None, latency=None, metrics=[], front=[], pinned=[], layers=[])
    report["parity"]["top1_agreement"] = None
    validate_report(report)


def test_further_keys_are_allowed():
    """A report may say more than the schema asks for, at any level."""
    report = sample()
    report["more"] = {"a": 1}
    report["latency"]["p90"] = 3
    validate_report(report)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("schema",), 1, "schema: found 1; expected one of 3"),
        (("schema",), KeyError, "schema: found None; expected one of 3"),
        (("seed",), -1, "seed: found -1; expected a number from 0"),
        (("macs", "shipped"), 1.5, "macs.shipped: found 1.5; expected a whole number"),
        (("macs", "dense"), True, "macs.dense: found True"),
        (("accuracy", "dense"), None, "accuracy.dense: found None; expected an object"),
        (
            ("accuracy", "dense", "value"),
            93.02,
            "accuracy.dense.value: found 93.02; expected a number from 0",
        ),
        (("accuracy", "pruned", "low"), 0.9, "accuracy.pruned: found 0.8121 outside 0.9"),
        (("accuracy", "measured_as"), 5, "measured_as: found 5; expected text"),
        (("latency", "ratio"), float("nan"), "latency.ratio: found nan; expected a finite number"),
        (("latency", "ratio_low"), 0, "latency.ratio_low: found 0.0; expected a number from 1e-09"),
        (("latency", "ratio_low"), 0.6, "latency.ratio: found 0.495 outside 0.6"),
        (("latency", "basis"), "guess", "one of measured, estimate, emulated"),
        (("latency", "dense_p50_ms"), None, "latency.dense_p50_ms: found None; expected a finite number"),
        (("parity", "max_abs"), float("inf"), "parity.max_abs: found inf"),
        (("parity", "top1_agreement"), 1.2, "parity.top1_agreement"),
        (("layers", 1, "after"), "14", "layers[1].after: found '14'"),
        (("layers",), {}, "layers: found {}; expected a list"),
        (("pinned", 0, "reason"), KeyError, "pinned[0].reason: missing"),
        (("stages", 2, "seconds"), -3, "stages[2].seconds"),
        (("latency", "on_target"), KeyError, "latency.on_target: missing"),
        (("estimate",), {"dense": 1.0}, "estimate.unit: missing"),
        (("timing", "text"), None, "timing.text: found None; expected text"),
        (("planned", 0, "measured"), None, "planned[0].measured: found None"),
        (("front", 0, "recovery"), "some", "front[0].recovery: found 'some'; expected one of fine-tuned"),
        (("front", 0, "chosen"), 1, "front[0].chosen: found 1; expected true or false"),
        (("versions", "torch"), 2, "versions.torch: found 2; expected text"),
        (("notes",), [3], "notes[0]: found 3; expected text"),
    ],
)
def test_the_first_wrong_field_is_named(path, value, text):
    """One wrong value gives one line with its path, what was found and what was expected."""
    report = sample()
    _set(report, path, value)
    with pytest.raises(RunError) as caught:
        validate_report(report)
    assert text in caught.value.message
    assert caught.value.message.startswith("report.json: ")


@pytest.mark.parametrize("basis", ["estimate", "emulated"])
def test_milliseconds_are_refused_where_nothing_was_timed(basis):
    """An estimate or an emulated target may hold ratios, but no milliseconds, in the front neither."""
    report = sample()
    report["latency"]["basis"] = basis
    with pytest.raises(RunError, match="dense_p50_ms, shipped_p50_ms, front"):
        validate_report(report)
    report["latency"].update(dense_p50_ms=None, shipped_p50_ms=None)
    with pytest.raises(RunError, match=r"front\[0\]\.latency_ms"):
        validate_report(report)
    for point in report["front"]:
        point["latency_ms"] = None
    validate_report(report)
