"""Turn a float ONNX file into one that computes in 8 bits, keeping in float what 8 bits would hurt.

    calibrate → leave slow layers in float, or stop → choose the ranges → heads and unlike ranges in float
    unless harmless → leave harmful layers in float → prove

Static QDQ quantisation by onnxruntime.quantization: weights per output channel, activations per tensor.
Guarantee: every channel of every output keeps at least three quarters of its own variance, whatever other
measure is given; the file was compared with its own graph run unoptimised, so what the kernels do wrong
(8-bit sums that saturate, say) is refused; where a bound on the loss is given it holds or nothing is written.
Elsewhere: the choice of types for a processor (policy), timing (measure), the loss itself (the caller).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgeprune.errors import BudgetError, DataError, ExportError, ParityError
from edgeprune.export.files import artifact_record, check_onnx, load_onnx, move_into_place, opset_of, workshop
from edgeprune.export.parity import Arrays, check_parity
from edgeprune.export.production import single_sample
from edgeprune.export.quantising import Quantiser, RunFile
from edgeprune.records import ParityResult, QuantisedLayer, QuantiseResult

METHODS = ("minmax", "percentile", "entropy")
PARITY_RTOL = 0.05  # far above roundings of one step apart, far below sums that saturate
CLEARLY_SLOWER = 1.05
LOOKS = 4  # sets of slow layers that are timed as whole files
HARMLESS = (
    0.01  # of a channel's own variance: what sensitive layers in 8 bits may cost without being compared
)
HARDLY_MORE = 1.25  # or up to this factor of what is lost without them


class Timer(Protocol):
    """What measures files for `quantise`; measure.operators.HostTimer is one."""

    def layer_times(self, paths: Sequence[Path]) -> Sequence[Mapping[str, float]]:
        """Microseconds of each layer, by name, of each file; conversions count to the layer they serve."""

    def ratios(self, paths: Sequence[Path]) -> Sequence[float]:
        """Time of each file by the first one's, paired; the first is 1."""


def quantise(
    path: Path,
    calibration: Iterable[Arrays],
    output: Path,
    *,
    activations: str = "uint8",
    reduce_range: bool = True,
    evaluate: Callable[[Path], float] | None = None,
    max_drop: float | None = None,
    evaluations: int = 16,
    methods: Sequence[str] = METHODS,
    keep_float: Mapping[str, str] | None = None,
    timer: Timer | None = None,
    write_slower: bool = False,
    sensitivity: bool = False,
    timeout_s: float = 900,
) -> QuantiseResult:
    """Write `output`, the 8-bit form of `path`, atomically.

    Args:
        calibration: calls that ranges are taken from, each a tuple of arrays in the order of the file's
            inputs. Read once, one at a time.
        activations, reduce_range: as the processor's kernels need them; see `int8_settings`.
        evaluate: a measure of a file, larger is better. Decides between calibration methods, and with
            `max_drop` (in its own unit) which layers stay in float, worst first.
        evaluations: most files that `evaluate` is called on.
        keep_float: layer → reason, for layers that must stay in float.
        timer: measures files; layers that are slower in 8 bits then stay in float, if that is faster.
        write_slower: write a file that `timer` finds not faster, too.
        sensitivity: measure every layer's harm even if nothing has to be regained.
        timeout_s: wall-clock limit of all that is tried together.

    Raises:
        ExportError: nothing to quantise, no faster file, time was up, or onnxruntime.quantization failed.
        BudgetError: `max_drop`, or the variance of a channel, cannot be held with a layer in 8 bits.
        ParityError: the kernels do not compute what the quantised graph says, or outputs are not finite.
        DataError: no calibration data. OutputError: the file cannot be written.
    """
    path, output = Path(path), Path(output)
    if evaluate is None and max_drop is not None:
        raise DataError("max_drop needs `evaluate` to measure by", tip="give labelled data")
    with workshop(output) as folder:
        maker = Quantiser(path, folder, activations, reduce_range, timeout_s)
        samples = maker.calibrate(calibration, methods)
        names = maker.quantisable
        floats = _requested(keep_float, names)
        if not set(names) - set(floats):
            raise ExportError(f"{path}: no layer to quantise", tip="ship the float file")
        judge = _Judge(maker, evaluate, evaluations, max_drop)
        judge.notes += [f"no ranges by {name}: {why}" for name, why in maker.failed.items()]
        times: dict[str, float] = {}
        ratio: float | None = None
        if timer is not None:  # first, since kernels take the same time whatever the ranges are
            slow, times, ratio = _leave_slow(maker, timer, maker.methods[0], floats)
            _require_faster(path, ratio, write_slower)
            floats |= slow
        method = _choose_method(maker, judge, maker.methods, floats)
        careful = _leave_sensitive(maker, method, floats)
        harm: dict[str, float] = {}
        if sensitivity:
            harm = maker.harm(method, [n for n in names if n not in floats])
        harmful, harm = _leave_harmful(maker, judge, method, floats | careful, harm)
        if timer is not None and (harmful or careful):
            ratio = timer.ratios([path, maker.file(method, floats | careful | harmful)])[1]
            _require_faster(path, ratio, write_slower)
        floats |= careful | harmful
        chosen = maker.file(method, floats)
        after = None if evaluate is None else judge.score(chosen)
        draft = folder / output.name
        chosen.replace(draft)
        check_onnx(draft)
        if opset_of(load_onnx(draft)) != opset_of(load_onnx(path)):
            raise ExportError(f"{path}: the quantiser changed the opset", tip="report the model")
        calls = [*maker.calls, *single_sample(draft, maker.calls)]
        parity = _prove(draft, calls, path, reduce_range)
        difference = maker.difference(draft)
        move_into_place(draft, output)
    layers = tuple(
        QuantisedLayer(
            name, operator, name in names and name not in floats,
            floats.get(name, "" if name in names else f"no static 8-bit kernel for {operator}"),
            harm.get(name), times.get(name),
        )
        for name, operator in maker.layers
    )  # fmt: skip
    count = sum(layer.quantised for layer in layers)
    return QuantiseResult(
        artifact=dataclasses.replace(
            artifact_record(output, note=f"{count} of {len(layers)} layers in 8 bits"), parity=parity
        ),
        source=path,
        source_bytes=artifact_record(path).bytes,
        layers=layers,
        activations=activations,
        weights="int8 per channel",
        reduce_range=reduce_range,
        method=method,
        samples=samples,
        output_error=difference.share,
        top1_agreement=difference.top1_agreement,
        before=None if evaluate is None else judge.score(path),
        after=after,
        time_ratio=ratio,
        evaluations=judge.spent,
        notes=(*judge.notes, f"worst channel: {difference.text}"),
    )


def _require_faster(path: Path, ratio: float, write_slower: bool) -> None:
    if ratio >= 1 and not write_slower:
        raise ExportError(
            f"{path}: in 8 bits it takes {ratio:.2f} of its float time here, so no 8-bit file was written",
            tip="ship the float file, or insist with --anyway",
        )


def _prove(draft: Path, calls: Sequence[Arrays], source: Path, reduce_range: bool) -> ParityResult:
    try:
        return check_parity(RunFile(draft, optimised=False), draft, calls, rtol=PARITY_RTOL)
    except ParityError as e:
        if e.code == "parity.unprovable":  # nothing was found wrong, and nothing can be compared
            raise ParityError(f"{source.name} in 8 bits: {e.message}", tip=e.tip, code=e.code) from e
        tip = "ship the float file"
        if not reduce_range:
            tip = "the kernels of this processor may saturate: use 7-bit weights (reduce_range)"
        raise ParityError(
            f"{source.name} in 8 bits: the kernels compute another thing than the graph says ({e.message})",
            tip=tip,
        ) from e


def _requested(keep_float: Mapping[str, str] | None, names: Sequence[str]) -> dict[str, str]:
    requested = dict(keep_float or {})
    unknown = sorted(set(requested) - set(names))
    if unknown:
        raise ExportError(
            f"no layer {unknown[0]!r} that could be quantised", tip=f"layers are {', '.join(names[:8])}"
        )
    return requested


class _Judge:
    """Scores files, each once, within a number of evaluations, and says whether a file is good enough."""

    def __init__(
        self,
        maker: Quantiser,
        evaluate: Callable[[Path], float] | None,
        most: int,
        max_drop: float | None,
    ) -> None:
        self._maker, self._evaluate, self._most, self._max_drop = maker, evaluate, most, max_drop
        self._known: dict[Path, float] = {}
        self._float = maker.source
        self.spent = 0
        self.notes: list[str] = []

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        return self._most - self.spent

    def failure(self, path: Path) -> str:
        """Why a file is not good enough: a channel that lost too much, or `max_drop`; empty if it is."""
        difference = self._maker.difference(path)
        if not difference.holds:
            return difference.text
        if self._max_drop is not None and self.drop(path) > self._max_drop:
            return f"8 bits cost {self.drop(path):.3g}, {self._max_drop:.3g} is allowed"
        return ""

    def score(self, path: Path) -> float:
        """The measure of a file."""
        assert self._evaluate is not None
        if path not in self._known:
            self._known[path] = float(self._evaluate(path))
            self.spent += 1
        return self._known[path]

    def drop(self, path: Path) -> float:
        """What a file lost against the float file, in the measure's unit."""
        return self.score(self._float) - self.score(path)


def _choose_method(maker: Quantiser, judge: _Judge, methods: Sequence[str], floats: Mapping[str, str]) -> str:
    """The ranges that cost least accuracy; among equals, those that move the outputs least."""
    if len(methods) == 1:
        return methods[0]
    ranked = []
    for method in methods:
        file = maker.file(method, floats)
        lost = judge.drop(file) if judge._evaluate is not None else 0.0
        difference = maker.difference(file)
        ranked.append((lost, max(difference.share, difference.channel.share), method))
    text = ", ".join(f"{m} moves the outputs by {error:.2g}" for _, error, m in ranked)
    judge.notes.append(f"calibration by {min(ranked)[2]} of: {text}")
    return min(ranked)[2]


def _leave_slow(
    maker: Quantiser, timer: Timer, method: str, floats: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, float], float]:
    """Layers to leave in float because 8 bits take longer there; their time ratios; the file's ratio.

    Two looks: leaving a layer out moves the conversions to its neighbours, which may then lose too.
    Whether a set really is faster is measured on whole files, not summed from operators.
    """
    every = maker.file(method, floats)
    base, first = timer.layer_times([maker.source, every])
    times = _shares(base, first)
    looks: list[dict[str, str]] = [{}]
    slow = _slow_ones(times, maker.quantisable, floats)
    if slow:
        order = sorted(slow, key=lambda n: base[n] - first[n])  # most time lost first
        looks += [{n: slow[n] for n in order[:count]} for count in range(1, min(len(order), LOOKS))]
        looks.append(slow)
        known = {**floats, **slow}
        if set(maker.quantisable) - set(known):
            again = _slow_ones(
                _shares(base, timer.layer_times([maker.file(method, known)])[0]), maker.quantisable, known
            )
            if again:
                looks.append({**slow, **again})
    looks = [look for look in looks if set(maker.quantisable) - {*floats, *look}]
    if not looks:
        looks = [{}]
    ratios = timer.ratios([maker.source, *(maker.file(method, {**floats, **look}) for look in looks)])[1:]
    best = min(range(len(looks)), key=lambda n: ratios[n])
    return looks[best], times, ratios[best]


def _shares(base: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    return {name: new[name] / base[name] for name in base if name in new and base[name] > 0}


def _slow_ones(times: Mapping[str, float], names: Sequence[str], floats: Mapping[str, str]) -> dict[str, str]:
    return {
        name: f"takes {times[name]:.2f} times as long in 8 bits, conversions included"
        for name in names
        if name not in floats and times.get(name, 0.0) > CLEARLY_SLOWER
    }


def _leave_sensitive(maker: Quantiser, method: str, floats: Mapping[str, str]) -> dict[str, str]:
    """Heads, inputs of softmax and norms, readers of unlike ranges: in float, unless measured harmless.

    Harmless: with them in 8 bits the worst channel loses hardly more of its own variance than without.
    """
    sensitive = {n: why for n, why in maker.sensitive(method).items() if n not in floats}
    with_them = maker.difference(maker.file(method, floats)).channel
    if not sensitive or (with_them.share <= HARMLESS and not with_them.collapsed):
        return {}
    if not set(maker.quantisable) - {*floats, *sensitive}:
        return {}  # nothing else to put in 8 bits: what harms is found layer by layer
    without = maker.difference(maker.file(method, {**floats, **sensitive})).channel
    if not with_them.collapsed and with_them.share <= HARDLY_MORE * without.share:
        return {}
    lost = f"a channel loses {with_them.share:.2g} of its variance with it, {without.share:.2g} without"
    return {name: f"{why}, and {lost}" for name, why in sensitive.items()}


def _leave_harmful(
    maker: Quantiser,
    judge: _Judge,
    method: str,
    floats: Mapping[str, str],
    harm: dict[str, float],
) -> tuple[dict[str, str], dict[str, float]]:
    """The fewest of the most harmful layers that must stay in float for the file to be good enough."""
    failure = judge.failure(maker.file(method, floats))
    if not failure:
        return {}, harm
    names = [n for n in maker.quantisable if n not in floats]
    harm = harm or maker.harm(method, names)
    order = sorted(names, key=lambda n: -harm[n])

    def kept(count: int) -> dict[str, str]:
        return {
            n: f"in 8 bits it alone moves the outputs by {harm[n]:.2g} of their variance"
            for n in order[:count]
        }

    def holds(count: int) -> bool:
        return not judge.failure(maker.file(method, {**floats, **kept(count)}))

    low, high, most = 0, 1, len(order) - 1  # `low` fails; doubling first, then bisection
    while most < 1 or judge.left <= 0 or not holds(high):
        if high >= most or judge.left <= 0:
            raise BudgetError(
                f"{maker.source}: {failure}, and the {min(high, len(order))} most harmful layers in float do"
                " not mend it",
                tip="allow a larger drop or more evaluations, or ship the float file",
            )
        low, high = high, min(2 * high, most)
    while high - low > 1 and judge.left > 0:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return kept(high), harm
