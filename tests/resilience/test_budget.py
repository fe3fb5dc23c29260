"""Budgets: exact under many workers, never over a hard cap, lasting their window."""

import random
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from confroute import Cascade, KeepPrivate, Limits, Message, Request, TokenLogprob
from confroute.budget import Budget, Pace, Paced
from confroute.errors import BudgetSpentError, PolicyError
from confroute.prices import Price
from confroute.runtime import arun, run
from confroute.state import MemoryStore, RedisStore, SQLiteStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

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


@pytest.fixture
def redis_url():
    """A Redis server of this test's own."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


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


def spent_in_a_window(profile, seed=1):
    """Cloud calls of 3,000 in a window with a busy middle, 750 of them paid for."""
    clock, chance = {"now": 0.0}, random.Random(seed)
    store = MemoryStore(clock=lambda: clock["now"])
    pace = Pace.fit(
        "token_logprob", [chance.expovariate(1) for _ in range(500)], cloud_share=0.6, profile=profile
    )
    budget = Budget(limit=750, unit="calls", window_s=3000, pace=pace)
    policy = Paced(policy=Cascade.of(TokenLogprob(), 1.0), budgets=(budget,), store=store)
    sent = 0
    for now in sorted(chance.betavariate(2, 2) * 3000 for _ in range(3000)):
        clock["now"] = now
        draft = Reply(text="5", logprob=-chance.expovariate(1))
        sent += run(policy, ask(), calls_of(edge=draft).call(ask()), ONCE).decision.route == "cloud"
    return sent


def test_the_pace_makes_the_budget_last():
    """With the traffic's profile what is spent lands within 2 % of the budget, and never above it."""
    busy_middle = tuple(6 * x * (1 - x) for x in (0.05 + 0.1 * k for k in range(10)))
    assert 0.98 * 750 <= spent_in_a_window(busy_middle) <= 750


def test_a_pace_without_a_profile_still_keeps_the_cap():
    """Traffic that dies away before the window ends leaves a few per cent unspent, and nothing overspent."""
    assert 0.93 * 750 <= spent_in_a_window(()) <= 750


def test_a_budget_around_a_budget_is_refused():
    """It would pay twice."""
    inner = Paced(policy=SENDS, budgets=(Budget(limit=1, unit="calls"),))
    with pytest.raises(PolicyError, match="twice"):
        Paced(policy=inner, budgets=(Budget(limit=1, unit="calls"),))
