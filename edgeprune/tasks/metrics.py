"""What a result is measured by: a score per sample from outputs and labels.

SampleScores per sample let the pipeline pair two models on the same samples; a user's
function may also give one number for the whole set, which then has no paired interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError
from edgeprune.importing import import_object
from edgeprune.tasks.classification import accuracy, top5

SampleScores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MetricValue:
    """`value` for the set; `per_sample` (samples,) averages to it, None where it is not defined."""

    value: float
    per_sample: SampleScores | None


@dataclass(frozen=True)
class Metric:
    """A named measure; call it with outputs (samples, classes) and labels (samples,)."""

    name: str
    function: Callable[[npt.NDArray[Any], npt.NDArray[np.int64]], Any]

    def __call__(self, outputs: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> MetricValue:
        try:
            result = np.asarray(self.function(outputs, labels), dtype=np.float64)
        except DataError:
            raise
        except Exception as exc:
            raise DataError(f"--metric {self.name}: raised {type(exc).__name__}: {exc}") from exc
        if result.shape == ():
            return MetricValue(float(result), None)
        if result.shape != (len(labels),):
            raise DataError(
                f"--metric {self.name}: returned shape {result.shape} for {len(labels)} samples",
                tip="return one number, or one per sample",
            )
        return MetricValue(float(result.mean()) if len(result) else float("nan"), result)


METRICS: dict[str, Callable[[npt.NDArray[Any], npt.NDArray[np.int64]], Any]] = {
    "accuracy": accuracy,
    "top5": top5,
}


def resolve_metric(spec: str | Callable[..., Any]) -> Metric:
    """A metric by name, by `package.module:function`, or a function itself.

    Raises:
        DataError: an unknown name, or a function that cannot be imported.
    """
    if not isinstance(spec, str):
        return Metric(getattr(spec, "__name__", "metric"), spec)
    if spec in METRICS:
        return Metric(spec, METRICS[spec])
    if ":" not in spec:
        raise DataError(
            f"--metric {spec}: no such metric",
            tip=f"known are {', '.join(METRICS)}; or give package.module:function",
        )
    function = import_object(spec, option="--metric", error=DataError)
    if not callable(function):
        raise DataError(f"--metric {spec}: a {type(function).__name__}, not a function")
    return Metric(spec, function)
