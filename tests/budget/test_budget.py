"""A budget's record: reservations, settlements and windows, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.budget import Budget
from confroute.budget.budget import reserve, settle
from confroute.errors import (
    BudgetSpentError,
    PolicyError,
)


def test_leases_by_hand():
    """Of 10: a reservation of 4 for five seconds is charged in full once they are over, and its settlement adds nothing."""
    budget = Budget(limit=10, window_s=100)
    record = budget.current(None, 0.0)
    late, early = (
        reserve([budget], [record], [amount], now=0.0, lease_s=lease, keeps_draft=True)
        for amount, lease in ((4, 5), (3, 50))
    )
    assert budget.left(budget.current(record, 4.9)) == 3
    assert record["spent"] == 0
    assert budget.left(budget.current(record, 5.0)) == 3
    assert record["spent"] == 4
    assert settle([record], late, [2.0]) == [0.0]
    assert (record["spent"], record["sent"], record["spent_by_sent"]) == (4, 1, 2.0)
    assert settle([record], early, [4.5]) == [1.5]
    assert (record["spent"], record["sent"], record["spent_by_sent"], record["held"]) == (8.5, 2, 6.5, {})
    free = reserve([budget], [record], [1], now=6.0, lease_s=200, keeps_draft=True)
    # A new window has the whole amount, less the reservations of calls under way.
    assert budget.left(budget.current(record, 100.0)) == 9
    assert settle([record], free, [0.0]) == [0.0]
    assert (record["spent"], record["sent"], record["spent_by_sent"]) == (0, 0, 0)


def test_a_call_that_does_not_fit_into_one_budget_is_reserved_in_none():
    """The error names that budget, what it has left and when it is renewed: its windows start at 30, 130, ..."""
    wide, tight = Budget(limit=10, name="wide"), Budget(limit=3, name="tight", window_s=100, offset_s=30)
    records = [budget.current(None, 55.0) for budget in (wide, tight)]
    with pytest.raises(BudgetSpentError) as caught:
        reserve([wide, tight], records, [4, 4], now=55.0, lease_s=60, keeps_draft=True)
    error = caught.value
    assert (error.budget, error.wanted, error.left, error.renewed_in_s) == ("tight", 4, 3, 75)
    assert [record["held"] for record in records] == [{}, {}]
    soft = Budget(limit=3, hard=False)
    assert reserve([soft], [soft.current(None, 55.0)], [4], now=55.0, lease_s=60, keeps_draft=True)


@pytest.mark.parametrize("change", [{"limit": 0}, {"window_s": 0}, {"unit": "euro"}])
def test_invalid_budgets_are_refused(change):
    """Nothing to spend, no time, an unknown unit."""
    with pytest.raises(PolicyError, match="expected"):
        Budget(**{"limit": 1, **change})


def test_a_clock_that_is_set_back_brings_no_money_back():
    """The window that has started goes on, whatever earlier time the clock shows."""
    budget = Budget(limit=10, unit="calls", window_s=100)
    record = budget.current(None, 250.0)
    record["spent"] = 7.0
    assert budget.current(record, 199.0)["spent"] == 7.0
    assert budget.current(record, 299.0)["spent"] == 7.0
    assert budget.current(record, 300.0)["spent"] == 0.0


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60))
def test_amounts_that_fit_exactly_are_not_refused_for_rounding(parts):
    """Sums of decimal fractions: a last call that fits to the cent is made, one cent more is refused."""
    budget = Budget(limit=sum(parts) / 100, window_s=1e9)
    record = budget.current(None, 0.0)
    for part in parts:
        lease = reserve([budget], [record], [part / 100], now=0.0, lease_s=60, keeps_draft=False)
        settle([record], lease, [part / 100])
    assert record["spent"] == pytest.approx(budget.limit, rel=1e-9)
    with pytest.raises(BudgetSpentError):
        reserve([budget], [record], [0.01], now=0.0, lease_s=60, keeps_draft=False)
