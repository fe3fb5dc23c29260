"""Records of labels end with their windows, so that a store does not grow with every label that ever called."""

import sqlite3

import pytest

from confroute import Cascade, Message, Request, TokenLogprob
from confroute.budget import Budget, Pace, Paced
from confroute.executor import run
from confroute.state import MemoryStore, RedisStore, SQLiteStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

DAY = 86_400.0
PLAIN = Cascade.of(TokenLogprob(), 0.3)


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000 * DAY + 0.5 * DAY

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Noon."""
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path, clock):
    """A store by this clock, and how many records it holds."""
    if request.param == "memory":
        made = MemoryStore(clock=clock)
        made.count = lambda: len(made._records)
        yield made
        return
    made = SQLiteStore(tmp_path / "state.db", clock=clock)

    def count():
        with sqlite3.connect(made.path) as file:
            (records,) = file.execute("SELECT count(*) FROM state").fetchone()
        file.close()
        return records

    made.count = count
    yield made
    made.close()


def paced(store, **budget):
    """A budget by user."""
    return Paced(
        policy=PLAIN,
        budgets=(Budget(limit=2, unit="calls", per="user", **budget),),
        store=store,
        lease_s=60.0,
    )


def call(policy, user, logprob=-2.0):
    """One call of a user; what is left to them."""
    models = {"edge": ScriptedModel([Reply(text="4", logprob=logprob)]), "cloud": ScriptedModel(["four"])}
    request = Request(messages=(Message(role="user", text="?"),), tags=frozenset({f"user={user}"}))
    decision = run(policy, request, ScriptedCalls(models=models).call(request), {}).decision
    return decision.layers["budget"]["cloud"]["left"]


@pytest.mark.parametrize(
    "budget", [{}, {"pace": Pace(signal="token_logprob", ladder=(0.1, 0.5))}], ids=["plain", "paced"]
)
def test_records_of_labels_end_with_the_next_window(store, clock, budget):
    """Two hundred users a day leave two days of records, not all of them; until then the money stays spent."""
    policy = paced(store, **budget)
    for day in range(4):
        for user in range(20):
            assert call(policy, f"{day}-{user}") == 1
        assert store.count() == 20 * min(day + 1, 2)
        assert call(policy, f"{day}-0") == 0
        clock.now += DAY
    clock.now += DAY
    assert call(policy, "new") == 1
    assert store.count() == 1


def test_a_clock_that_is_set_back_brings_no_money_back(store, clock):
    """Within a window of its record's own."""
    policy = paced(store)
    assert [call(policy, "a"), call(policy, "a")] == [1, 0]
    clock.now += DAY
    assert call(policy, "b") == 1
    clock.now -= DAY
    assert call(policy, "a") == 0


def test_a_reservation_keeps_its_record(clock):
    """It is charged in the window in which it ends, however long that is after the call's own."""
    budget = Budget(limit=2, unit="calls", per="user", window_s=10.0)
    record = budget.current(None, 1000.0)
    assert budget.kept_until(record, 1000.0) == 1020.0
    record["held"]["lease"] = [1.0, 1055.0]
    assert budget.kept_until(record, 1000.0) == 1070.0
    # A clock that was set back counts from the record's own window.
    assert budget.kept_until(record | {"held": {}}, 900.0) == 1020.0


def test_a_budget_without_labels_never_ends(store, clock):
    """It is one record, which holds what was learned of the traffic."""
    policy = Paced(policy=PLAIN, budgets=(Budget(limit=2, unit="calls"),), store=store)
    call(policy, "a")
    clock.now += 100 * DAY
    call(paced(store), "b")
    assert store.count() == 2


def test_a_label_that_comes_back_is_kept(store, clock):
    """Every call puts the end off."""
    policy = paced(store)
    for _ in range(5):
        assert call(policy, "a") == 1
        clock.now += DAY
    assert store.count() == 1


def test_redis_ends_records_itself(redis_url):
    """By its own clock; a record without an end has none."""
    import redis

    store, raw = RedisStore(redis_url), redis.Redis.from_url(redis_url)
    raw.flushdb()
    assert call(paced(store, window_s=1000.0), "a") == 1
    assert 1000 <= raw.ttl("confroute:budget/cloud/user=a") <= 2000
    assert call(Paced(policy=PLAIN, budgets=(Budget(limit=2, unit="calls"),), store=store), "a") == 1
    assert raw.ttl("confroute:budget/cloud") == -1
    store.close()
    raw.close()
