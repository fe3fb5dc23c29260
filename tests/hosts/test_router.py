"""`confroute.Router`: the contract that every host keeps, and what is its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from confroute import (
    Cascade,
    Context,
    Ensemble,
    Gate,
    KeepPrivate,
    Limits,
    Message,
    Prefix,
    RetrievalScore,
    Router,
    SameEmbedding,
    SelfConsistency,
    SemanticEntropy,
    Threshold,
    TokenLogprob,
    record,
)
from confroute.errors import AllTiersFailedError, PolicyError, RequestError
from confroute.models.openai import OpenAIModel
from confroute.testing import (
    AdapterAnswer,
    Reply,
    ScriptedModel,
    ScriptedServer,
    TieredAdapterContract,
    faults,
)

ONCE = Limits(attempts=1)
QUESTION = "Capital of France?"


def finished(awaitable):
    """The result of a coroutine, in a loop of its own."""
    return asyncio.run(awaitable)


async def gathered(stream):
    """An async stream's texts, and the stream."""
    return [text async for text in stream], stream


class TestRouter(TieredAdapterContract):
    """The same promises as of the other hosts."""

    forms = ("ask", "aask", "stream", "astream")

    def send_tiers(self, form, question, *, models, policy, route=None):
        """Through `Router`."""
        limits = dict.fromkeys(models, ONCE)
        given = models if len(models) == 2 else {"tiers": models}
        router = Router(**given, policy=policy, limits=limits)
        called = getattr(router, form)(question, route=route)
        if form in ("ask", "aask"):
            routed, chunks = (called if form == "ask" else finished(called)), []
        elif form == "stream":
            chunks, routed = [*called], called.routed
        else:
            chunks, stream = finished(gathered(called))
            routed = stream.routed
        if chunks:
            assert "".join(chunks) == routed.text
        return AdapterAnswer(text=routed.text, decision=routed.decision.to_dict(), chunks=chunks)


def router(edge="Paris", cloud="Lyon", **settings):
    """Two scripted models."""
    settings.setdefault("policy", Cascade.of(TokenLogprob(), 0.3))
    return Router(edge=ScriptedModel([edge]), cloud=ScriptedModel([cloud], name="large"), **settings)


UNSURE = Reply(text="Rome?", logprob=-2.0)


def test_whatever_resolves_is_a_model():
    """A function, a chat model of LangChain, an LLM of LlamaIndex, a server by its object."""
    from langchain_confroute.testing import ScriptedChat
    from llamaindex_confroute.testing import ScriptedLLM

    with ScriptedServer(ScriptedModel(["of a server"])) as server:
        for cloud, text in (
            (lambda messages: "of a function", "of a function"),
            (ScriptedChat.of("of LangChain"), "of LangChain"),
            (ScriptedLLM(model=ScriptedModel(["of LlamaIndex"])), "of LlamaIndex"),
            (OpenAIModel(model="m", base_url=server.url), "of a server"),
        ):
            made = Router(edge=ScriptedModel([UNSURE]), cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.3))
            assert made.ask(QUESTION).text == text
            assert asyncio.run(made.aask(QUESTION)).text == text
            assert "".join(made.stream(QUESTION)) == text


def test_one_policy_decides_alike_on_langchain_s_edge():
    """Its log-probabilities are asked for and read."""
    from langchain_confroute.testing import ScriptedChat

    edge = ScriptedChat.of("Paris", logprob=-0.1)
    answer = Router(edge=edge, cloud=ScriptedModel(), policy=Cascade.of(TokenLogprob(), 0.3)).ask(QUESTION)
    assert (answer.decision.route, answer.decision.uncertainty) == ("edge", pytest.approx(0.1))


def test_conversations_are_taken_in_every_common_form():
    """Messages, dictionaries, pairs."""
    turns = [("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"), ("user", "Sure?")]
    for prompt in (
        turns,
        [{"role": role, "content": text} for role, text in turns],
        [Message(role=role, text=text) for role, text in turns],
    ):
        made = router()
        made.ask(prompt)
        (heard,) = made.edge.calls
        assert heard.prompt == "system: Be brief.\nuser: 2 + 2?\nassistant: 4\nuser: Sure?"


@pytest.mark.parametrize(
    "prompt", [[], "", [{"role": "narrator", "content": "x"}], [("user", ["x"])], [7], 7, b"x"]
)
def test_what_is_not_a_conversation_is_refused(prompt):
    """Before any call."""
    made = router()
    with pytest.raises(RequestError):
        made.ask(prompt)
    assert made.edge.calls == []


def test_options_of_a_call():
    """Route, threshold and tags; "auto" is no route, and what cannot be used is refused in the words of all hosts."""
    made = router(UNSURE, policy=Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(tags=("private",)),)))
    assert made.ask(QUESTION, route="edge").decision.stage == "forced"
    assert made.ask(QUESTION, route="auto").decision.route == "cloud"
    assert made.ask(QUESTION, threshold=9).decision.route == "edge"
    assert made.ask(QUESTION, threshold=9).decision.threshold == 9
    assert made.ask(QUESTION, tags=["private"]).decision.private
    for wrong in (
        {"route": "moon"},
        {"threshold": True},
        {"tags": "private"},
        {"purpose": 7},
        {"question": 7},
    ):
        with pytest.raises(RequestError):
            made.ask(QUESTION, **wrong)


def test_retrieved_context_reaches_the_signals():
    """Texts with their scores, and the question apart from the prompt."""
    gate = Gate(signal=RetrievalScore(), threshold=Threshold(value=0.5))
    made = router(policy=Cascade(gates=(gate,)))
    documents = [("Paris is the capital of France.", 0.9), ("Lyon is not.", 0.2)]
    answers = [
        made.ask("Context: ... Question: ...", question=QUESTION, context=given)
        for given in (documents, Context(passages=tuple(t for t, _ in documents), scores=(0.9, 0.2)))
    ]
    assert [*answers[0].decision.signals] == ["retrieval_score"]
    assert answers[0].decision.uncertainty == answers[1].decision.uncertainty
    with pytest.raises(RequestError, match="expected a list"):
        made.ask(QUESTION, context="a text")


def test_a_stream_tells_its_decision_at_the_end():
    """And not before."""
    stream = router(UNSURE, "one two").stream(QUESTION)
    assert next(stream) == "one"
    with pytest.raises(RequestError, match="has not ended"):
        _ = stream.decision
    assert [*stream] == [" two"]
    assert (stream.decision.route, stream.routed.text) == ("cloud", "one two")


def test_a_draft_that_is_kept_comes_in_one_part():
    """Its whole text was needed to judge it."""
    assert [*router("It is Paris").stream(QUESTION)] == ["It is Paris"]


def test_a_draft_streams_once_its_beginning_is_good():
    """From the token at which the prefix commits."""
    prefix = Prefix(commit=Threshold(value=0.3), cut=Threshold(value=1.0), tokens=2, least=2)
    policy = Cascade(gates=Cascade.of(TokenLogprob(), 0.3).gates, prefix=prefix)
    stream = router("It is Paris", policy=policy).stream(QUESTION)
    assert [*stream] == ["It", " is", " Paris"]
    assert (stream.decision.route, stream.decision.stage) == ("edge", "prefix")


def test_a_stream_that_is_left_ends_the_model_s_answer():
    """Sync and async: the server notices."""
    with ScriptedServer(ScriptedModel(["word " * 60]), pause_s=0.02) as server:
        made = Router(edge=lambda messages: "?", cloud=OpenAIModel(model="m", base_url=server.url))
        stream = made.stream(QUESTION, route="cloud")
        next(stream)
        stream.close()

        async def leave():
            astream = made.astream(QUESTION, route="cloud")
            await anext(astream)
            await astream.aclose()
            for _ in range(200):
                if server.abandoned == 2:
                    return
                await asyncio.sleep(0.02)

        asyncio.run(leave())
        assert server.abandoned == 2


def test_a_server_that_refuses_log_probabilities_is_asked_without():
    """Once refused, they are not asked for again; samples decide in their place."""

    class Refusing(ScriptedServer.handler):
        def respond(self, body):
            if body.get("logprobs"):
                self.fail(400, "logprobs are not supported by this model")
            else:
                super().respond(body)

    class RefusingServer(ScriptedServer):
        handler = Refusing

    with RefusingServer(ScriptedModel(["Paris"])) as server:
        edge = OpenAIModel(model="m", base_url=server.url)
        made = Router(edge=edge, cloud=ScriptedModel(), policy=Cascade.of(SelfConsistency(n=2), 0.6))
        assert [made.ask(QUESTION).decision.route for _ in range(2)] == ["edge", "edge"]
    assert [bool(body.get("logprobs")) for body in server.bodies if not body["temperature"]] == [
        True,
        False,
        False,
    ]


def test_samples_are_drawn_by_one_request_where_that_works():
    """`n` of an OpenAI-compatible server; the temperature is the signal's."""
    with ScriptedServer(ScriptedModel(["Paris"])) as server:
        edge = OpenAIModel(model="m", base_url=server.url)
        made = Router(edge=edge, cloud=ScriptedModel(), policy=Cascade.of(SelfConsistency(n=4, step=4), 0.6))
        assert made.ask(QUESTION).decision.route == "edge"
    first, *rest = server.bodies
    assert first["temperature"] == 0.0
    assert (rest[0]["n"], rest[0]["temperature"]) == (4, 0.7)


def test_members_of_an_ensemble_are_asked():
    """By the names under which they are given."""
    members = {name: ScriptedModel(["Paris"], name=name) for name in ("a", "b")}
    made = router(members=members, policy=Cascade.of(Ensemble(members=("a", "b")), 0.5))
    assert made.ask(QUESTION).decision.route == "edge"
    assert [len(member.calls) for member in members.values()] == [1, 1]
    with pytest.raises(PolicyError, match="not a tier's"):
        router(members={"edge": ScriptedModel()})


def test_limits_are_each_tier_s_own():
    """Attempts, counted in the decision."""
    made = router(
        Reply(fault=faults.cut_off()),
        Reply(fault=faults.cut_off()),
        edge_limits=Limits(attempts=2, wait_s=0),
        cloud_limits=ONCE,
    )
    with pytest.raises(AllTiersFailedError):
        made.ask(QUESTION)
    assert (len(made.edge.calls), len(made.cloud.calls)) == (2, 1)


def test_every_call_is_recorded():
    """`record()` sees the decisions, as of every host."""
    with record() as decisions:
        answer = router().ask(QUESTION)
    assert decisions == [answer.decision]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"policy": "policy.json"}, "load a file with load_policy"),
        ({"policy": 7}, "expected Cascade"),
        ({"policy": Cascade(tiers=("small", "large"))}, "expected edge and cloud"),
        ({"edge": 7}, "is not a model"),
        ({"edge": "smollm2-135m"}, "did you mean 'local:smollm2-135m'"),
        ({"edge": "local:smollm2-135m", "cloud": "local:smollm2-135m"}, "the same model"),
    ],
)
def test_what_cannot_route_is_refused_when_it_is_made(settings, says):
    """With what is expected."""
    with pytest.raises(PolicyError, match=says):
        Router(**{"edge": ScriptedModel(), "cloud": "local:smollm2-135m", **settings})


def test_words_stay_out_of_errors_and_reprs():
    """A conversation that cannot be read is not repeated."""
    with pytest.raises(RequestError) as caught:
        router().ask([{"role": "user", "content": ["my salary"]}])
    assert "salary" not in str(caught.value)


def test_it_is_loaded_when_it_is_wanted():
    """`import confroute` stays as light as it was, and loading it loads neither torch nor a host."""
    code = (
        "import sys, confroute; assert 'confroute.hosts.router' not in sys.modules; confroute.Router; "
        "print([n for n in ('torch', 'langchain_core', 'llama_index', 'openai') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def ended(given):
    """Take the next of an iterator that has ended."""
    return next(iter(()))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("form", ["aask", "astream"])
async def test_a_function_that_takes_the_next_of_nothing_does_not_hang(form):
    """No future of an event loop takes a StopIteration: such a call would never end. The edge has failed, and the cloud answers."""
    router = Router(edge=ended, cloud=lambda messages: "four")
    if form == "aask":
        assert (await router.aask("2 + 2?")).decision.steps[0].error == "RuntimeError"
    else:
        assert [text async for text in router.astream("2 + 2?")] == ["four"]


@pytest.mark.timeout(20)
async def test_an_embedding_function_that_takes_the_next_of_nothing_does_not_hang():
    """It is the user's own, and runs in a thread."""
    signal = SemanticEntropy(n=2, step=2, equivalence=SameEmbedding(model=ended))
    edge = ScriptedModel(["An oak."], samples=["A tall tree.", "The beech."])
    routed = await Router(edge=edge, cloud=lambda messages: "four", policy=Cascade.of(signal, 0.1)).aask(
        "Which tree is the tallest?"
    )
    assert routed.decision.skipped == {"semantic_entropy": "RuntimeError while it was measured"}
