"""A policy within budgets: exact under many workers, and never above a hard limit."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from confroute import Cascade, KeepPrivate, TokenLogprob
from confroute.asks import Evidence, Final, Sample
from confroute.budget import Budget, Paced
from confroute.budget.paced import BudgetedCall
from confroute.errors import (
    BudgetSpentError,
    DeadlineError,
    PolicyError,
    StateError,
    StreamInterruptedError,
    TierError,
)
from confroute.executor import arun, run
from confroute.prices import Price
from confroute.state import MemoryStore, SQLiteStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation, Usage
from tests.conftest import ONCE, ask

SENDS = Cascade.of(TokenLogprob(), 0.1)


def calls_of(*, edge=None, cloud="four"):
    return ScriptedCalls(
        models={
            "edge": ScriptedModel([edge or Reply(text="5", logprob=-2.0)]),
            "cloud": ScriptedModel([cloud]),
        }
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_hard_cap_is_never_passed(kind, tmp_path):
    """Of 40 calls by 8 workers exactly the ten that fit go to the cloud; the others return the flagged draft."""
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "b.db")
    policy = Paced(policy=SENDS, budgets=(Budget(limit=10, unit="calls"),), store=store)
    calls = calls_of()

    def one(_):
        return run(policy, ask(), calls.call(ask()), ONCE).decision

    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(one, range(40)))
    assert sum(decision.route == "cloud" for decision in decisions) == 10
    assert len(calls.models["cloud"].calls) == 10
    assert sum(decision.degraded for decision in decisions) == 30
    if kind == "sqlite":
        store.close()


async def test_usage_replaces_the_reservation():
    """The provider's count is charged; with on_spent="raise" a refused call raises an error with its numbers."""
    price = Price(input_usd=1e6, output_usd=1e6)
    limit = 2000.0
    policy = Paced(
        policy=SENDS, budgets=(Budget(limit=limit),), price=price, store=MemoryStore(), on_spent="raise"
    )
    calls = calls_of()
    routed = await arun(policy, ask(), calls.acall(ask()), ONCE)
    spent = routed.decision.usage["cloud"].total_tokens
    assert routed.decision.layers["budget"]["cloud"] == {"charged": spent, "left": limit - spent}
    tight = Paced(
        policy=SENDS, budgets=(Budget(limit=1.0),), price=price, store=MemoryStore(), on_spent="raise"
    )
    with pytest.raises(Exception, match="budget 'cloud' has 1 usd left") as caught:
        run(tight, ask(), calls.call(ask()), ONCE)
    assert isinstance(caught.value.__cause__ or caught.value, BudgetSpentError)


ReadTimeout = type("ReadTimeout", (Exception,), {"__doc__": "As HTTP clients name theirs."})


def outcome(*usages):
    return Evidence(generations=tuple(Generation(text="4", usage=usage) for usage in usages))


KNOWN, WORST = Usage(input_tokens=10, output_tokens=5), [0.002382, 1358.0, 1.0]


@pytest.mark.parametrize(
    ("ask_", "outcome_", "cost"),
    [
        (Final(tier="cloud"), outcome(KNOWN), [0.00002, 15.0, 1.0]),
        (Final(tier="cloud"), outcome(None), WORST),
        # A batch reports its prompt once, and some report the whole on the first.
        (Sample(tier="cloud", n=2), outcome(KNOWN, None), [0.00002, 15.0, 2.0]),
        (Sample(tier="cloud", n=2), outcome(None, None), [2 * each for each in WORST]),
        # A call that may have been billed is charged in full, an answer that never came costs nothing.
        (Final(tier="cloud"), ConnectionError("refused"), [0.0, 0.0, 0.0]),
        (Final(tier="cloud"), TimeoutError(), WORST),
        (Final(tier="cloud"), ReadTimeout(), WORST),
        (Final(tier="cloud"), DeadlineError(tier="cloud", left_s=0.0), [0.0, 0.0, 0.0]),
        (Final(tier="cloud"), StreamInterruptedError("broke off"), WORST),
        # Two bytes more.
        (Final(tier="cloud", note="é"), TimeoutError(), [0.002384, 1360.0, 1.0]),
    ],
)
def test_the_cost_of_an_ask_by_hand(ask_, outcome_, cost):
    """At 1 and 2 USD per million: 14 bytes of text, 32 each for message and note, 256 extra, and 1024 for the answer."""
    budgets = tuple(Budget(limit=1, unit=unit, name=unit) for unit in ("usd", "tokens", "calls"))
    price = Price(input_usd=1, output_usd=2)
    call = BudgetedCall(Paced(policy=SENDS, budgets=budgets, price=price, store=MemoryStore()), ask())
    assert call.cost(ask_, outcome_) == pytest.approx(cost)


def test_tenants_have_budgets_of_their_own():
    """One tenant's spending does not touch another's budget."""
    budget = Budget(limit=1, unit="calls", per="tenant")
    policy = Paced(policy=SENDS, budgets=(budget,), store=MemoryStore())
    routes = [
        run(policy, ask(tags=frozenset({f"tenant={name}"})), calls_of().call(ask()), ONCE).decision.route
        for name in ("a", "a", "b")
    ]
    assert routes == ["cloud", "edge", "cloud"]


def test_a_private_call_costs_no_budget():
    """It never reaches the cloud, and nothing is charged."""
    inner = Cascade.of(TokenLogprob(), 0.1, rules=(KeepPrivate(patterns=("secret",)),))
    policy = Paced(policy=inner, budgets=(Budget(limit=1, unit="calls"),), store=MemoryStore())
    calls = calls_of()
    decision = run(policy, ask("my secret", route="cloud"), calls.call(ask()), ONCE).decision
    assert decision.private
    assert decision.layers["budget"]["cloud"]["charged"] == 0
    assert calls.models["cloud"].calls == []


class Flaky(MemoryStore):
    """A store that fails at these of its changes, counted from 1."""

    def __init__(self, *broken):
        super().__init__()
        self.broken, self.changes = broken, 0

    def change(self, keys, change):
        self.changes += 1
        if self.changes in self.broken:
            raise StateError("the state cannot be changed")
        return super().change(keys, change)


@pytest.mark.parametrize("broken", [1, 3, 4])
def test_a_store_that_fails_costs_no_answer(broken):
    """Whether reading levels, settling or counting fails, the answer is returned; an unsettled reservation stays."""
    store = Flaky(broken)
    policy = Paced(policy=SENDS, budgets=(Budget(limit=10, unit="calls"),), store=store)
    calls = calls_of()
    assert run(policy, ask(), calls.call(ask()), ONCE).decision.route == "cloud"
    held, spent = store.change(
        ["budget/cloud"], lambda records: (records, (len(records[0]["held"]), records[0]["spent"]))
    )
    assert (held, spent) == ((1, 0.0) if broken == 3 else (0, 1.0))


def test_a_call_that_cannot_be_reserved_is_not_sent():
    """A sure draft is kept as usual; a call that needs the cloud fails as if the cloud had failed."""
    store = Flaky(1, 2, 3, 4, 5, 6)
    policy = Paced(policy=SENDS, budgets=(Budget(limit=10, unit="calls"),), store=store)
    calls = calls_of()
    with pytest.raises(TierError, match="StateError"):
        run(policy, ask(), calls.call(ask()), ONCE)
    assert calls.models["cloud"].calls == []
    sure = calls_of(edge=Reply(text="4", logprob=-0.01))
    assert run(policy, ask(), sure.call(ask()), ONCE).decision.route == "edge"


def test_a_budget_around_a_budget_is_refused():
    """It would charge calls twice."""
    inner = Paced(policy=SENDS, budgets=(Budget(limit=1, unit="calls"),))
    with pytest.raises(PolicyError, match="twice"):
        Paced(policy=inner, budgets=(Budget(limit=1, unit="calls"),))
