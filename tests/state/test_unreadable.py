"""A record that cannot be used is named, costs no answer that is there, and is started again by one command."""

import json
import sqlite3

import pytest

from confroute import Cascade, Message, Request, TokenLogprob
from confroute.budget import Budget, Pace, Paced
from confroute.cli import main
from confroute.drift import Audited, DriftTest
from confroute.errors import StateError
from confroute.executor import run
from confroute.learning import LearnOnline
from confroute.state import MemoryStore, RedisStore, SQLiteStore, open_store
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

PLAIN = Cascade.of(TokenLogprob(), 0.3)
PACE = Pace(signal="token_logprob", ladder=(0.1, 0.5))
WRAPPERS = {
    "budget/cloud": lambda store: Paced(
        policy=PLAIN, budgets=(Budget(limit=10, unit="calls", pace=PACE),), store=store, on_spent="raise"
    ),
    "audit/edge": lambda store: Audited(policy=PLAIN, test=DriftTest(level=0.05), share=1.0, store=store),
    "learn/edge/token_logprob": lambda store: LearnOnline(policy=PLAIN, share=1.0, store=store),
}
DAMAGED = {
    "no JSON": "not json",
    "half": '{"window": 0, "sp',
    "nothing": "",
    "a list": "[]",
    "a number": "3",
    "deep": "[" * 100_000,
    "400 digits": '{"window": ' + "1" * 400 + "}",
    "a key twice": '{"window": 1, "window": 2}',
    "part of it": '{"window": 0, "audits": 0, "labels": 0}',
    "all but one": '{"audits": 0, "lost": 0.0, "wealth": [0, 0, 0, 0, 0, 0], "window": 0, "labels": 0, "threshold": null}',
    "another version": '{"_v": 7}',
    "true for a version": '{"_v": true}',
    "other types": '{"window": "0", "audits": "0", "labels": "0"}',
}
EACH_KEY = pytest.mark.parametrize("key", WRAPPERS)
EACH_DAMAGE = pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)


def routed(policy, logprob=-0.01):
    """One call."""
    models = {"edge": ScriptedModel([Reply(text="4", logprob=logprob)]), "cloud": ScriptedModel(["four"])}
    request = Request(messages=(Message(role="user", text="2 + 2?"),))
    calls = ScriptedCalls(models=models)
    return run(policy, request, calls.call(request), {})


@pytest.fixture
def store(tmp_path):
    """A SQLite store, and a function that writes a text under a key as no store would."""
    made = SQLiteStore(tmp_path / "state.db")

    def write(key, text):
        made.change([key], lambda records: ([{}], None))
        with sqlite3.connect(made.path) as file:
            file.execute("UPDATE state SET value = ? WHERE key = ?", (text, key))
        file.close()

    made.write = write
    yield made
    made.close()


@EACH_KEY
@EACH_DAMAGE
def test_a_kept_draft_does_not_need_the_record(store, key, text, caplog):
    """It is there and has been paid for; the log names the record and the command."""
    store.write(key, text)
    policy = WRAPPERS[key](store)
    assert routed(policy).decision.route == "edge"
    assert f"the record {key!r} cannot be used: " in caplog.text
    assert f"`confroute reset STORE {key}` starts it again" in caplog.text


@EACH_DAMAGE
def test_a_call_that_has_to_be_paid_is_not_made(store, text):
    """Without the record nobody knows what is left; the error names it."""
    store.write("budget/cloud", text)
    with pytest.raises(StateError, match="the record 'budget/cloud' cannot be used"):
        routed(WRAPPERS["budget/cloud"](store), logprob=-2.0)


@EACH_KEY
@EACH_DAMAGE
def test_the_command_starts_it_again(store, key, text, capsys):
    """Whatever stands there; a record that is not there is said not to be."""
    store.write(key, text)
    address = f"sqlite:{store.path}"
    assert main(["reset", address, key]) == 0
    assert main(["reset", address, key, "no/such"]) == 1
    assert capsys.readouterr().out == (
        f"{key}: removed\n{key}: there is no such record\nno/such: there is no such record\n"
    )
    open_store(address).close()
    assert routed(WRAPPERS[key](store), logprob=-2.0).decision.route == "cloud"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory:x", "end that process"),
        ("sqlite:no/such.db", "no such file"),
        ("file.db", "expected 'memory:NAME'"),
    ],
)
def test_a_store_that_is_not_there_is_not_made(address, words, tmp_path, monkeypatch, capsys):
    """Nothing is written by a wrong address."""
    monkeypatch.chdir(tmp_path)
    assert main(["reset", address, "budget/cloud"]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_audits_and_learning_reset_what_they_cannot_read(store):
    """Their own `reset` reads nothing."""
    for key in ("audit/edge", "learn/edge/token_logprob"):
        policy = WRAPPERS[key](store)
        store.write(key, "not json")
        with pytest.raises(StateError, match=key):
            policy.state()
        policy.reset()
        assert policy.state()


def test_labels_that_are_lost_prove_nothing(store):
    """A state that counts more labels than there are is refused: its next look would be at too few."""
    policy = WRAPPERS["learn/edge/token_logprob"](store)
    policy.add("token_logprob", 0.1, 0.0)
    policy.add("token_logprob", 0.2, 1.0)
    store.remove("learn/edge/token_logprob/rows")
    with pytest.raises(StateError, match=r"holds 0 labels and .* counts 2: reset both"):
        policy.add("token_logprob", 0.3, 0.0)
    for rows in ('{"rows": [[1], 2]}', '{"rows": [[1, true], [1, 2]]}', '{"rows": 3}'):
        store.write("learn/edge/token_logprob/rows", rows)
        with pytest.raises(StateError, match="token_logprob/rows"):
            policy.add("token_logprob", 0.3, 0.0)


def test_records_hold_their_version_and_older_ones_are_read(store):
    """Those of the time before versions are of the first."""
    store.change(["n"], lambda _: ([{"n": 1}], None))
    with sqlite3.connect(store.path) as file:
        (text,) = file.execute("SELECT value FROM state WHERE key = 'n'").fetchone()
    file.close()
    assert json.loads(text) == {"_v": 1, "n": 1}
    store.write("n", '{"n": 2}')
    assert store.change(["n"], lambda records: (records, records[0])) == {"n": 2}


def test_every_store_removes_and_names(tmp_path, request):
    """In memory and in Redis as in a file."""
    stores = [MemoryStore(), SQLiteStore(tmp_path / "s.db")]
    for store in stores:
        assert not store.remove("a")
        store.change(["a"], lambda _: ([{"n": 1}], None))
        assert store.remove("a")
        assert store.change(["a"], lambda records: ([{}], records[0])) is None
    stores[1].close()


def test_redis_names_the_record_and_removes_it(redis_url):
    """Text that is no JSON, and bytes that are no text."""
    import redis

    store, raw = RedisStore(redis_url), redis.Redis.from_url(redis_url)
    for content in (b"not json", b"\xff", b""):
        raw.set("confroute:budget/cloud", content)
        with pytest.raises(StateError, match="the record 'budget/cloud' cannot be used"):
            store.change(["budget/cloud"], lambda records: (records, None))
        assert store.remove("budget/cloud")
        assert not store.remove("budget/cloud")
    store.close()
    raw.close()
