"""Budgets: exact under many workers, never over a hard cap, lasting their window."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Cascade, KeepPrivate, Limits, Message, Request, TokenLogprob
from confroute.asks import Evidence, Final, Sample
from confroute.budget import Budget, Pace, Paced
from confroute.budget.budget import reserve, settle
from confroute.budget.paced import Books
from confroute.budget.pacing import counted, to_come
from confroute.drift import Audited, DriftTest
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
from confroute.state import MemoryStore, RedisStore, SQLiteStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation, Usage

ONCE = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}
SENDS = Cascade.of(TokenLogprob(), 0.1)


def ask(text="What is 2 + 2?", **kwargs):
    return Request(messages=(Message(role="user", text=text),), **kwargs)


def calls_of(*, edge=None, cloud="four"):
    return ScriptedCalls(
        models={
            "edge": ScriptedModel([edge or Reply(text="5", logprob=-2.0)]),
            "cloud": ScriptedModel([cloud]),
        }
    )


ADDED = """
import sys
from confroute.state import SQLiteStore
store = SQLiteStore(sys.argv[1])
for _ in range(100):
    store.change(["n"], lambda found: ([{"n": (found[0] or {"n": 0})["n"] + 1}], None))
store.close()
"""


def test_sqlite_is_exact_under_eight_processes_and_survives_them(tmp_path):
    """800 changes by 8 processes are 800, and the next process finds them."""
    path = tmp_path / "state.db"
    workers = [subprocess.Popen([sys.executable, "-c", ADDED, str(path)]) for _ in range(8)]
    assert [worker.wait() for worker in workers] == [0] * 8
    store = SQLiteStore(path)
    assert store.change(["n"], lambda found: ([found[0]], found[0]["n"])) == 800
    store.close()


LEFT_OPEN = """
import os, sys
from confroute.state import SQLiteStore
store = SQLiteStore(sys.argv[1])
store.change(["k"], lambda found: ([{"by": "parent"}], None))
if os.fork() == 0:
    store.change(["k"], lambda found: ([{**found[0], "also": "child"}], None))
    sys.exit()
os.wait()
print(store.change(["k"], lambda found: (found, found[0])))
sys.excepthook = lambda *raised, kept=store: None  # goes with the interpreter itself, after its modules
"""


def test_a_store_that_is_left_open_ends_quietly_and_works_across_a_fork(tmp_path):
    command = [sys.executable, "-X", "dev", "-c", LEFT_OPEN, str(tmp_path / "s.db")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("{'by': 'parent', 'also': 'child'}\n", "")


def test_redis_is_exact_under_eight_workers(redis_url):
    """200 changes by 8 workers with connections of their own are 200."""

    def work(_):
        store = RedisStore(redis_url)
        for _ in range(25):
            store.change(["n"], lambda found: ([{"n": (found[0] or {"n": 0})["n"] + 1}], None))
        store.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    store = RedisStore(redis_url)
    assert store.change(["n"], lambda found: ([found[0]], found[0]["n"])) == 200
    store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_hard_cap_is_never_passed(kind, tmp_path):
    """Of 40 calls by 8 workers exactly the ten that fit go to the cloud; the others keep the flagged draft."""
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "b.db")
    policy = Paced(policy=SENDS, budgets=(Budget(limit=10, unit="calls"),), store=store)
    calls = calls_of()

    def one(_):
        return run(policy, ask(), calls.call(ask()), ONCE).decision

    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(one, range(40)))
    assert sum(decision.route == "cloud" for decision in decisions) == 10
    assert len(calls.models["cloud"].heard) == 10
    assert sum(decision.degraded for decision in decisions) == 30
    if kind == "sqlite":
        store.close()


async def test_usage_takes_the_place_of_the_reservation():
    """What is charged is the provider's count, and a refused call raises its numbers where it is asked to."""
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
    ("wanted", "brought", "took"),
    [
        (Final(tier="cloud"), outcome(KNOWN), [0.00002, 15.0, 1.0]),
        (Final(tier="cloud"), outcome(None), WORST),
        # A batch reports its prompt once, and some report the whole on the first.
        (Sample(tier="cloud", n=2), outcome(KNOWN, None), [0.00002, 15.0, 2.0]),
        (Sample(tier="cloud", n=2), outcome(None, None), [2 * each for each in WORST]),
        # What may have been billed is charged in full, what never came is not.
        (Final(tier="cloud"), ConnectionError("refused"), [0.0, 0.0, 0.0]),
        (Final(tier="cloud"), TimeoutError(), WORST),
        (Final(tier="cloud"), ReadTimeout(), WORST),
        (Final(tier="cloud"), DeadlineError(tier="cloud", left_s=0.0), [0.0, 0.0, 0.0]),
        (Final(tier="cloud"), StreamInterruptedError("broke off"), WORST),
        # Two bytes more.
        (Final(tier="cloud", note="é"), TimeoutError(), [0.002384, 1360.0, 1.0]),
    ],
)
def test_what_an_ask_takes_by_hand(wanted, brought, took):
    """At 1 and 2 USD a million: 14 bytes of text, 32 for each of message and note, 256 more, and 1024 to answer."""
    budgets = tuple(Budget(limit=1, unit=unit, name=unit) for unit in ("usd", "tokens", "calls"))
    price = Price(input_usd=1, output_usd=2)
    books = Books(Paced(policy=SENDS, budgets=budgets, price=price, store=MemoryStore()), ask())
    assert books.took(wanted, brought) == pytest.approx(took)


def test_tenants_have_budgets_of_their_own():
    """One tenant's spending leaves the other's money."""
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
    assert calls.models["cloud"].heard == []


BUDGET_DAYS = Path(__file__).parents[2] / "benchmarks" / "budget.py"


@pytest.fixture(scope="module")
def simulation():
    """The simulation of days under a budget."""
    spec = importlib.util.spec_from_file_location("budget_days", BUDGET_DAYS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kind", "traffic"), [("memory", "bursty"), ("sqlite", "even")])
def test_the_pace_makes_the_budget_last(kind, traffic, simulation, tmp_path):
    """By 8 workers, traffic unknown: near the budget, never above it, the books exact, no swinging threshold."""
    store_of = simulation.stores([kind], tmp_path)[kind]
    days, budget, recorded = simulation.simulated(traffic, calls=800, days=1, store_of=store_of)
    (day,) = simulation.measured(days, budget, recorded)
    # 240 calls are paid for. The worst case of one is 1 % of so small a budget, and which of 8 threads reserves last is chance.
    assert 0.94 <= day["spent"] <= 1
    assert day["unbooked"] < 1e-12
    assert day["turns"] < 80
    assert "<polyline" in simulation.svg_of({"a day": (days, budget)})


def fed(pace, budget, record, times, window=0):
    """The record after calls at these parts of a window; every third is sent and costs 1."""
    for at, part in enumerate(times):
        now = (window + part) * budget.window_s
        record = budget.current(record, now)
        counted(record, part)
        sent = at % 3 == 0
        if sent:
            record["spent"] += 1
            record["spent_by_sent"] += 1
            record["sent"] += 1
        pace.moved(record, part, budget.limit, sent=sent)
    return record


def test_what_is_usual_is_learned_from_the_window_before():
    """Traffic that ends at half time: the first window expects as much again, the second does not."""
    pace = Pace(signal="s", ladder=(0.0, 1.0))
    budget = Budget(limit=1000, unit="calls", window_s=100, pace=pace)
    half = [k / 2000 for k in range(1000)]
    first = fed(pace, budget, None, half[:900])
    assert to_come(first, 0.45, expected=None, profile=()) > 800
    second = fed(pace, budget, fed(pace, budget, None, half), half[:900], window=1)
    assert 80 < to_come(second, 0.45, expected=None, profile=()) < 150
    given = to_come(first, 0.45, expected=1000, profile=(1.0, 0.0))
    assert 80 < given < 150


@pytest.mark.parametrize(
    ("level", "value"), [(-1, 0.0), (0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 2.0), (1, 3.0), (2, 3.0)]
)
def test_a_ladder_is_climbed_between_its_rungs(level, value):
    """Rungs at 0, 1 and 3, at equal steps of level; it is never left."""
    assert Pace(signal="s", ladder=(0.0, 1.0, 3.0)).threshold(level) == value


@pytest.mark.parametrize(
    ("change", "sent", "level", "trim"),
    [
        # 0.2 of 1049.75 calls give a gain of 0.0047630; 1 - 0.5, and the trim, which half of that was added to.
        ({}, True, 0.6023815, 0.1023815),
        ({}, False, 0.5976185, 0.0976185),
        # A level that can fall or rise no further winds no trim up.
        ({"level": 0.0}, False, 0.6, 0.1),
        ({"level": 1.0}, True, 0.6, 0.1),
        ({"level": 0.0}, True, 0.6023815, 0.1023815),
        # Calls that cost nothing may all be sent.
        ({"spent_by_sent": 0.0}, False, 0.0952370, 0.0952370),
        # No money is left for any: the trim moves by the gain, the level stays on the ladder.
        ({"spent": 5000.0}, True, 1.0, 0.1047630),
        # Nothing was sent so far: nothing is known of its cost.
        ({"sent": 0}, False, 0.4, 0.1),
    ],
)
def test_a_level_by_hand(change, sent, level, trim):
    """Five calls of 1000 expected, at the window's begin: (100 + 5) / 0.1 * 0.995 = 1044.75 to come, at a mean of 2.

    Spent are 10, and 2 are on their way of a reserved 7: the 1044.75 that are left pay for half of them.
    """
    record = Budget(limit=1).current(None, 0.0)
    record |= {"calls": 5, "spent": 10.0, "spent_by_sent": 20.0, "sent": 10, "held": {"x": [7.0, 1.0]}}
    record |= {"level": 0.4, "trim": 0.1, **change}
    for step, wanted in (
        (1.0, level),
        (0.005, record["level"] + max(-0.005, min(0.005, level - record["level"]))),
    ):
        moved = record.copy()
        Pace(signal="s", ladder=(0.0, 1.0), step=step, expected_calls=1000).moved(
            moved, 0.0, 1056.75, sent=sent
        )
        assert (moved["level"], moved["trim"]) == pytest.approx((wanted, trim), abs=1e-6)


def test_a_trim_moves_neither_too_fast_nor_too_slowly():
    """Of 100 calls a fifth would be a gain of 0.05, of a million one of 0.000005: 0.02 and 0.0005 are the ends."""
    for calls, gain in ((100, 0.02), (1_000_000, 0.0005)):
        record = Budget(limit=1).current(None, 0.0)
        record |= {"sent": 1, "spent_by_sent": 1.0, "level": 0.5}
        Pace(signal="s", ladder=(0.0, 1.0), expected_calls=calls).moved(
            record, 0.0, calls * 0.995 / 2, sent=True
        )
        assert record["trim"] == pytest.approx(gain / 2)


def test_leases_by_hand():
    """Of 10: 4 set aside for five seconds are charged in full when these are over, and what came of the call no more."""
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
    # A new window's money is whole, but for what is on its way.
    assert budget.left(budget.current(record, 100.0)) == 9
    assert settle([record], free, [0.0]) == [0.0]
    assert (record["spent"], record["sent"], record["spent_by_sent"]) == (0, 0, 0)


def test_what_does_not_fit_into_one_budget_is_set_aside_in_none():
    """The error names that one, what it has left and when it is renewed: its windows begin at 30, 130, ..."""
    wide, tight = Budget(limit=10, name="wide"), Budget(limit=3, name="tight", window_s=100, offset_s=30)
    records = [budget.current(None, 55.0) for budget in (wide, tight)]
    with pytest.raises(BudgetSpentError) as caught:
        reserve([wide, tight], records, [4, 4], now=55.0, lease_s=60, keeps_draft=True)
    error = caught.value
    assert (error.budget, error.wanted, error.left, error.renewed_in_s) == ("tight", 4, 3, 75)
    assert [record["held"] for record in records] == [{}, {}]
    soft = Budget(limit=3, hard=False)
    assert reserve([soft], [soft.current(None, 55.0)], [4], now=55.0, lease_s=60, keeps_draft=True)


@pytest.mark.parametrize("given", [{"limit": 0}, {"window_s": 0}, {"unit": "euro"}])
def test_budgets_that_cannot_be_are_refused(given):
    """Nothing to spend, no time, another currency."""
    with pytest.raises(PolicyError, match="expected"):
        Budget(**{"limit": 1, **given})


@pytest.mark.parametrize(
    "given",
    [
        {"ladder": (1.0, 0.0)},
        {"ladder": (1.0,)},
        {"ladder": (0.0, float("inf"))},
        {"start": 1.1},
        {"step": 0},
        {"profile": (1.0, -1.0)},
        {"profile": (0.0, 0.0)},
    ],
)
def test_paces_that_cannot_be_are_refused(given):
    """A ladder that does not rise or end, a start or a step out of range, traffic below 0 or none."""
    with pytest.raises(PolicyError, match="expected"):
        Pace(**{"signal": "s", "ladder": (0.0, 1.0), **given})


def test_a_clock_that_is_set_back_brings_no_money_back():
    """An hour before midnight after midnight, the window that has begun goes on."""
    budget = Budget(limit=10, unit="calls", window_s=100)
    record = budget.current(None, 250.0)
    record["spent"] = 7.0
    assert budget.current(record, 199.0)["spent"] == 7.0
    assert budget.current(record, 299.0)["spent"] == 7.0
    assert budget.current(record, 300.0)["spent"] == 0.0


def test_a_new_window_begins_at_the_share_of_the_last():
    """Not at the level that its last calls were given."""
    pace = Pace(signal="s", ladder=(0.0, 1.0))
    budget = Budget(limit=400, unit="calls", window_s=100, pace=pace)
    record = fed(pace, budget, None, [k / 1000 for k in range(1000)])
    record |= {"level": 0.0, "trim": 0.1}
    assert budget.current(record, 100.0)["level"] == pytest.approx(2 / 3 + 0.1, abs=0.01)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60))
def test_amounts_that_fit_exactly_are_not_refused_for_rounding(parts):
    """Sums of decimal fractions: the last call that fits to the cent is made, one cent more is not."""
    budget = Budget(limit=sum(parts) / 100, window_s=1e9)
    record = budget.current(None, 0.0)
    for part in parts:
        lease = reserve([budget], [record], [part / 100], now=0.0, lease_s=60, keeps_draft=False)
        settle([record], lease, [part / 100])
    assert record["spent"] == pytest.approx(budget.limit, rel=1e-9)
    with pytest.raises(BudgetSpentError):
        reserve([budget], [record], [0.01], now=0.0, lease_s=60, keeps_draft=False)


class Flaky(MemoryStore):
    """A store that cannot be reached at the changes it is told."""

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
    """Level, settlement and count of an answered call: it is returned, and the reservation stays until its lease ends."""
    store = Flaky(broken)
    policy = Paced(policy=SENDS, budgets=(Budget(limit=10, unit="calls"),), store=store)
    calls = calls_of()
    assert run(policy, ask(), calls.call(ask()), ONCE).decision.route == "cloud"
    held, spent = store.change(
        ["budget/cloud"], lambda found: (found, (len(found[0]["held"]), found[0]["spent"]))
    )
    assert (held, spent) == ((1, 0.0) if broken == 3 else (0, 1.0))


def test_nothing_is_sent_that_could_not_be_reserved():
    """The draft is judged and kept as ever; a call that needs the cloud fails as if the cloud had."""
    store = Flaky(1, 2, 3, 4, 5, 6)
    policy = Paced(policy=SENDS, budgets=(Budget(limit=10, unit="calls"),), store=store)
    calls = calls_of()
    with pytest.raises(TierError, match="StateError"):
        run(policy, ask(), calls.call(ask()), ONCE)
    assert calls.models["cloud"].heard == []
    sure = calls_of(edge=Reply(text="4", logprob=-0.01))
    assert run(policy, ask(), sure.call(ask()), ONCE).decision.route == "edge"


def test_a_file_that_is_no_database_is_named(tmp_path):
    """The error is one of confroute's."""
    (tmp_path / "b.db").write_text("no database at all, but long enough to be looked at" * 20)
    store = SQLiteStore(tmp_path / "b.db")
    with pytest.raises(StateError, match=r"b\.db cannot be changed"):
        store.change(["a"], lambda found: ([{}], None))
    store.close()


def test_an_audit_that_cannot_be_paid_costs_no_answer():
    """The kept answer comes back, and its decision says that no audit was possible."""
    audited = Audited(
        policy=Cascade.of(TokenLogprob(), 0.3), test=DriftTest(level=0.05), share=1.0, store=MemoryStore()
    )
    policy = Paced(policy=audited, budgets=(Budget(limit=0.5, unit="calls"),), store=MemoryStore())
    calls = calls_of(edge=Reply(text="4", logprob=-0.01))
    note = run(policy, ask(), calls.call(ask()), ONCE).decision.layers["audit"]
    assert note == {"propensity": 0.0, "audited": False, "skipped": "BudgetSpentError"}
    assert calls.models["cloud"].heard == []


def test_a_budget_around_a_budget_is_refused():
    """It would pay twice."""
    inner = Paced(policy=SENDS, budgets=(Budget(limit=1, unit="calls"),))
    with pytest.raises(PolicyError, match="twice"):
        Paced(policy=inner, budgets=(Budget(limit=1, unit="calls"),))
