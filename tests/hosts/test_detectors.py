"""Detectors take their time beside the event loop, and no longer than the call has."""

import asyncio
import threading

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from confroute import Cascade, KeepPrivate, Router, TokenLogprob, deadline, record
from confroute.errors import ConfrouteError, MissingExtraError
from confroute.policy import HeadFirst
from confroute.policy.rules import PrivateOnly
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

# Long enough for any machine; nothing waits for it unless it fails.
FOR_EVER = 30


class Held:
    """A detector that ends when it is let go."""

    def __init__(self):
        self.asked, self.go = threading.Event(), threading.Event()
        self.let_go, self.ended = False, False

    def __call__(self, text):
        self.asked.set()
        self.let_go = self.go.wait(FOR_EVER)
        self.ended = True
        return "secret" in text


class AlwaysEdge:
    """A head that reads texts."""

    kind = "always"

    def estimate(self, texts):
        raise AssertionError


HOSTS = ("plain", "langchain", "llamaindex")
FORMS = ("whole", "stream")


def calls(host, detect, policy=None):
    """The router's calls by form, async and not, and what its cloud was asked."""
    policy = policy or Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(detect=detect),))
    edge, cloud = ScriptedModel([Reply(text="4", logprob=-0.01)], name="small"), ScriptedModel(["four"])
    if host == "plain":
        router = Router(edge=edge, cloud=cloud, policy=policy)
        forms = router.ask, router.stream, router.aask, router.astream
    elif host == "langchain":
        router = ChatConfRoute(
            edge=ScriptedChat(script=edge, model="small"), cloud=ScriptedChat(script=cloud), policy=policy
        )
        forms = router.invoke, router.stream, router.ainvoke, router.astream
    else:
        router = ConfRouteLLM(edge=ScriptedLLM(model=edge), cloud=ScriptedLLM(model=cloud), policy=policy)
        forms = router.complete, router.stream_complete, router.acomplete, router.astream_complete
    whole, stream, awhole, astream = forms

    async def drained(text):
        items = astream(text)
        return [item async for item in (await items if asyncio.iscoroutine(items) else items)]

    return (
        {"whole": whole, "stream": lambda text: list(stream(text))},
        {"whole": awhole, "stream": drained},
        cloud,
        edge,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
async def test_the_event_loop_goes_on_while_a_detector_works(host, form):
    """The detector waits for something that only the loop can do; several wait at once."""
    detect = Held()
    _, asynchronous, cloud, _ = calls(host, detect)

    async def let_go():
        while not detect.asked.is_set():
            await asyncio.sleep(0)
        detect.go.set()

    with record() as decisions:
        await asyncio.gather(*(asynchronous[form]("a secret") for _ in range(3)), let_go())
    assert detect.let_go
    assert [one.private for one in decisions] == [True] * 3
    assert cloud.calls == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_the_deadline_ends_a_detector_too(host, form, asynchronous):
    """The caller has its error while the detector still works; nothing was asked of a model, and the record says private."""
    detect = Held()
    plain, awaited, cloud, edge = calls(host, detect)
    try:
        with record() as decisions, deadline(0.05), pytest.raises(TimeoutError, match="the rules"):
            await awaited[form]("q") if asynchronous else plain[form]("q")
        assert not detect.ended
    finally:
        detect.go.set()
    assert (cloud.calls, edge.calls) == ([], [])
    assert [(one.stage, one.private) for one in decisions] == [("failed", True)]


@pytest.mark.parametrize("form", FORMS)
async def test_a_head_asks_rules_beside_the_loop_too(form):
    """It asks them before it reads the question."""
    detect = Held()
    cascade = Cascade.of(TokenLogprob(), 0.3, rules=(PrivateOnly(KeepPrivate(detect=detect)),))
    _, asynchronous, cloud, _ = calls(
        "plain", detect, HeadFirst(head=AlwaysEdge(), cascade=cascade, cloud_above=0.5)
    )

    async def let_go():
        while not detect.asked.is_set():
            await asyncio.sleep(0)
        detect.go.set()

    await asyncio.gather(asynchronous[form]("a secret"), let_go())
    assert detect.let_go
    assert cloud.calls == []


def test_a_rule_that_fails_is_recorded():
    """A text that could not be checked counts as private."""

    def missing(text):
        raise MissingExtraError(extra="presidio", needed_for="the detector")

    plain, _, cloud, edge = calls("plain", missing)
    with record() as decisions, pytest.raises(ConfrouteError):
        plain["whole"]("q")
    assert [(one.stage, one.private, one.reason) for one in decisions] == [
        ("failed", True, "the call failed (MissingExtraError)")
    ]
    assert (cloud.calls, edge.calls) == ([], [])
