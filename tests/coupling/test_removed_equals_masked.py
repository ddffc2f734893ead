"""The property, on random networks: removing components is silencing them.

204 networks run here: 10 exports of 20, and four alone. Those of the first eight exports are cut twice,
because an export takes as long as six cuts; `make fuzz N=10000` runs more. A failure names the seed;
`check([seed])` in tests/support/generate.py runs that network alone.
"""

from __future__ import annotations

import pytest
import torch
from generate import check

EACH = 20


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("first", range(0, 8 * EACH, EACH))
def test_removed_equals_masked(first):
    """Twenty networks cut twice: three oracles agree within 1e-9, cuts are certified, outputs do move."""
    outcome = check(range(first, first + EACH), draws=2)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert outcome.moved > EACH // 2


@pytest.mark.parametrize("first", range(1000, 1000 + 2 * EACH, EACH))
def test_other_factor_removed_equals_masked(first):
    """The same with head width and positions within groups as the free factors."""
    outcome = check(range(first, first + EACH), other=True)
    assert not outcome.failures, "\n".join(outcome.failures)


def test_removed_equals_masked_with_a_free_batch():
    """A few with symbolic sizes and in-place operators, through the whole of `trace`."""
    for seed in range(2000, 2004):
        outcome = check([seed], full=True)
        assert not outcome.failures, "\n".join(outcome.failures)
