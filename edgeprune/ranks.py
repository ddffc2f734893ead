"""The processes of one run: who computes what, and how results and failures reach all of them.

    ranks = open_ranks()                 one process, or those of torchrun or of the caller's process group
    for values in ranks.gather(work)     what `work` gave on each rank, in the order of ranks

Results travel over gloo, also where devices talk over NCCL. Guarantee: an error on one rank is raised on all,
and a rank that died ends the wait of the others, at the latest after the timeout.
Elsewhere: which parts of a run are shared out (calibration, search, recovery).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from edgeprune.errors import EdgepruneError, RankError

Value = TypeVar("Value")
TIMEOUT = 1800.0  # seconds that a rank waits for the others
TIMEOUT_VARIABLE = "EDGEPRUNE_RANK_TIMEOUT"


@dataclass(frozen=True)
class Ranks:
    """One process of `size`. group: of torch.distributed; None for a single process."""

    rank: int = 0
    size: int = 1
    group: Any = field(default=None, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes, exports and times."""
        return self.rank == 0

    def slice_of(self, count: int) -> range:
        """This rank's part of `count` numbered items: consecutive, and as equal as can be."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, work: Callable[[], Value]) -> list[Value]:
        """Do this rank's work; gives what every rank's work gave, on all ranks.

        Raises:
            EdgepruneError: this rank's own error. RankError: another rank's, or a rank is gone.
        """
        if self.group is None:
            return [work()]
        failure: EdgepruneError | None = None
        answer: tuple[bool, Any]
        try:
            answer = (True, work())
        except EdgepruneError as error:
            failure, answer = error, (False, f"{type(error).__name__}: {error.message}")
        answers: list[tuple[bool, Any]] = [(False, "")] * self.size
        self._talk(lambda: _dist().all_gather_object(answers, answer, group=self.group))
        if failure is not None:
            raise failure
        for rank, (worked, value) in enumerate(answers):
            if not worked:
                raise RankError(f"rank {rank} of {self.size}: {value}")
        return [value for _, value in answers]

    def from_first(self, work: Callable[[], Value]) -> Value:
        """What `work` gives on rank 0, on all ranks; the others wait.

        Raises:
            EdgepruneError: as rank 0 raised it. RankError: rank 0 is gone.
        """
        if self.group is None:
            return work()
        failure: Exception | None = None
        box: list[Any] = [None]
        if self.first:
            try:
                box[0] = (True, work())
            except EdgepruneError as error:
                failure, box[0] = error, (False, f"{type(error).__name__}: {error.message}")
        self._talk(lambda: _dist().broadcast_object_list(box, src=self._source(), group=self.group))
        if failure is not None:
            raise failure
        worked, value = box[0]
        if not worked:
            raise RankError(f"rank 0 of {self.size}: {value}")
        return value  # type: ignore[no-any-return]

    def require_same(self, what: dict[str, Any]) -> None:
        """Refuse ranks that work on different things.

        Raises:
            RankError: names the first entry that differs, and the rank.
        """
        for rank, other in enumerate(self.gather(lambda: what)):
            for name, value in what.items():
                if pickle.dumps(other.get(name)) != pickle.dumps(value):
                    raise RankError(
                        f"ranks differ in {name}: {_short(value)} on rank {self.rank},"
                        f" {_short(other.get(name))} on rank {rank}",
                        tip="start every rank with the same command, files and installed versions",
                    )

    def _source(self) -> int:
        return int(_dist().get_global_rank(self.group, 0))

    def _talk(self, exchange: Callable[[], None]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise RankError(
                f"rank {self.rank} of {self.size}: another rank ended or did not answer within"
                f" {_timeout():g} s ({str(error).splitlines()[0][:120]})",
                tip="look at the first error among the ranks' logs; the same command resumes the run",
            ) from None


ALONE = Ranks()


def open_ranks() -> Ranks:
    """The ranks of this process: of a process group that is there, of torchrun's variables, or one alone.

    Raises:
        RankError: the ranks cannot meet: the port is taken, or some did not come.
    """
    started = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if not started and not _initialised():
        return ALONE
    return _open()


@cache
def _open() -> Ranks:
    dist = _dist()
    patience = timedelta(seconds=_timeout())
    try:
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=patience)
        if dist.get_world_size() == 1:
            return ALONE
        group = dist.new_group(backend="gloo", timeout=patience)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise RankError(
            f"the ranks cannot meet at {address}: {str(error).splitlines()[0][:160]}",
            tip="choose a free port with torchrun --master-port, and start every rank",
        ) from None
    return Ranks(dist.get_rank(), dist.get_world_size(), group)


def _timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else TIMEOUT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise RankError(f"{TIMEOUT_VARIABLE}={text}: a number of seconds above 0 is expected")
    return seconds


def _initialised() -> bool:
    """Whether the caller has a process group; a process without torch has none."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _dist() -> Any:
    import torch.distributed

    return torch.distributed


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
