"""What confroute logs reaches every handler of an application as text of one line, whoever chose the names in it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from confroute import Breaker, Cascade, Limits, Message, Request, TokenLogprob
from confroute.budget import Budget, Paced
from confroute.display import logger
from confroute.drift import Audited, DriftTest
from confroute.errors import StateError, TierError
from confroute.executor import run
from confroute.hosts.requests import ModelFacts, with_one_retry_layer
from confroute.observe.log import read_log
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

EVIL = "edge\x1b]0;pwn\x07\x9b2J\rover\u202eback\nWARNING forged"


class Unreachable(MemoryStore):
    """A store whose errors hold such a name."""

    def change(self, keys, change):
        """Raise."""
        raise StateError(f"{EVIL} is unreachable")


def call(policy):
    """Route one call, whose draft is certain."""
    models = {tier: ScriptedModel([Reply(text="ok", logprob=-0.01)], name=tier) for tier in ("edge", "cloud")}
    request = Request(messages=(Message(role="user", text="hello"),))
    run(policy, request, ScriptedCalls(models=models).call(request), {})


def torn_log(folder: Path) -> None:
    """A log whose file has the name."""
    path = folder / EVIL.replace("/", "")
    path.write_text('{"a')
    assert list(read_log(path)) == []


def opened_breaker(_: Path) -> None:
    """A tier that has it."""
    with pytest.raises(TierError), Breaker(failures=1).watching(EVIL):
        raise TierError("down")


CASCADE = Cascade.of(TokenLogprob(), 0.25)
SAYING = {
    "a torn log": torn_log,
    "a breaker": opened_breaker,
    "a client that retries": lambda _: with_one_retry_layer(
        Limits(attempts=2), ModelFacts(model=EVIL, retries=True), "cloud"
    ),
    "a store of audits": lambda _: call(
        Audited(policy=CASCADE, test=DriftTest(level=0.1), store=Unreachable())
    ),
    "a budget": lambda _: call(
        Paced(policy=CASCADE, budgets=(Budget(limit=1, unit="calls"),), store=Unreachable())
    ),
    "a message of our own": lambda _: logger().warning("%s failed %d times (%.1f)", EVIL, 3, 0.5),
    "an error": lambda _: logger().error("lost: %s", StateError(EVIL)),
}


@pytest.mark.parametrize("say", SAYING.values(), ids=SAYING)
def test_names_and_errors_are_logged_as_text(say, tmp_path, caplog):
    """On one line, with what they say, to a handler of the application's."""
    with caplog.at_level(logging.INFO):
        say(tmp_path)
    assert caplog.messages
    told = "\n\n".join(caplog.messages)
    assert "edge\\u001b]0;pwn\\u0007\\u009b2J\\u000dover\\u202eback\\u000aWARNING forged" in told
    assert all(message.isprintable() for message in caplog.messages)


def test_numbers_and_letters_are_what_they_were(caplog):
    """And the message still is a template with its arguments, by which collectors group."""
    logger().warning("%s took %.2f s, %r", "Straße", 1.5, "é")
    assert caplog.messages == ["Straße took 1.50 s, 'é'"]
    assert caplog.records[0].msg == "%s took %.2f s, %r"
