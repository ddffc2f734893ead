"""Budgets in the user's words."""

from __future__ import annotations

import pytest

from edgeprune.errors import BudgetError
from edgeprune.session.budget import parse_share


@pytest.mark.parametrize(
    ("text", "share"), [("0.5", 0.5), ("1", 1.0), ("3x", 1 / 3), ("2.5X", 0.4), (" 4x ", 0.25)]
)
def test_shares_and_factors_mean_what_they_say(text, share):
    """A number is the share kept, a number with x the factor fewer."""
    assert parse_share(text, "--macs") == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "0.5x", "0x", "half", "", "nan", "x"])
def test_what_is_not_a_share_is_refused_with_both_forms(text):
    """The message repeats the option and shows both spellings."""
    with pytest.raises(
        BudgetError, match=r"--macs .*not a share; give the share kept, as 0.5, or a factor, as 3x"
    ):
        parse_share(text, "--macs")
