"""Which 8-bit types a processor's kernels need, and where 8 bits are not worth it.

    int8_settings(target)    {"activations": "uint8", "reduce_range": True} on x86 without VNNI
    require_gain(target)     refuses cores that would hardly gain

The rule is the target's, in targets/*.toml; docs/int8.md gives the measurements behind it.
"""

from __future__ import annotations

from typing import TypedDict

from edgeprune.errors import TargetError
from edgeprune.records import Target
from edgeprune.targets import load_target


class Int8Settings(TypedDict):
    """Arguments of `quantise` that depend on the processor."""

    activations: str
    reduce_range: bool


def int8_settings(target: Target, *, host: Target | None = None) -> Int8Settings:
    """What to give to `quantise` for this target.

    A file is proven, and its accuracy measured, on this machine. Where this machine's kernels would
    saturate at full range, weights have 7 bits for any target: a file that cannot be run rightly here
    could not be vouched for.

    Args:
        host: the machine that quantises; this one unless given.
    """
    here = host or load_target("host")
    return {
        "activations": target.int8_activations,
        "reduce_range": target.int8_reduce_range or here.int8_reduce_range,
    }


def require_gain(target: Target) -> None:
    """Pass where the target's cores gain from 8 bits.

    Raises:
        TargetError: its descriptor says "on-request"; the reason stands in the descriptor.
    """
    if target.int8_policy == "offer":
        return
    note = next((f.note for f in target.fields if f.name == "int8.policy"), "")
    raise TargetError(
        f"{target.name}: 8 bits gain little on {target.core}" + (f" ({note})" if note else ""),
        tip="ship the float file, or insist with --anyway",
    )
