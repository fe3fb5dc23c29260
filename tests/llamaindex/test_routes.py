"""Which model answers, in all eight forms of a call, and what the caller is told."""

import json

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index_instrumentation.dispatcher import instrument_tags

from confroute import Cascade, KeepPrivate, SelfConsistency, SendTo, TokenLogprob, record
from confroute.errors import RequestError
from confroute.testing import Reply

USER = [ChatMessage(role="user", content="Which city?")]


def text_of(response):
    """Of a chat or a completion."""
    return response.text if hasattr(response, "text") else response.message.content


async def ask(llm, form, **kwargs):
    """Call in one form; the responses, one or a stream of them."""
    given = USER if "chat" in form else "Which city?"
    called = getattr(llm, form)(given, **kwargs)
    if form.startswith("a"):
        called = await called
    if "stream" not in form:
        return [called]
    return [chunk async for chunk in called] if form.startswith("a") else list(called)


FORMS = (
    *("chat", "complete", "stream_chat", "stream_complete"),
    *("achat", "acomplete", "astream_chat", "astream_complete"),
)


@pytest.mark.parametrize("form", FORMS)
async def test_sure_edge_answers(kit, form):
    """A certain draft is returned and the cloud never hears of it."""
    large = kit.cloud()
    *_, last = await ask(kit.router(large=large), form)
    assert (text_of(last), kit.decision(last)["route"]) == ("edge says this", "edge")
    assert large.model.calls == []


@pytest.mark.parametrize("form", FORMS)
async def test_unsure_edge_escalates(kit, form):
    """An uncertain draft is thrown away, and never shown."""
    chunks = await ask(kit.router(kit.unsure()), form)
    assert text_of(chunks[-1]) == "cloud says that"
    assert kit.decision(chunks[-1])["route"] == "cloud"
    assert all("wrong" not in text_of(chunk) + (chunk.delta or "") for chunk in chunks)


@pytest.mark.parametrize("form", [form for form in FORMS if "stream" in form])
@pytest.mark.parametrize("edge", ["sure", "unsure"])
async def test_deltas_make_the_answer(kit, form, edge):
    """Deltas join to the text, texts grow, and the last chunk alone carries the decision."""
    chunks = await ask(kit.router(getattr(kit, edge)("a  b\n\nc d ")), form)
    assert "".join(chunk.delta for chunk in chunks) == text_of(chunks[-1])
    said = ""
    for chunk in chunks:
        said += chunk.delta
        assert text_of(chunk) == said
    assert ["confroute" in chunk.additional_kwargs for chunk in chunks] == [False] * (len(chunks) - 1) + [
        True
    ]
    assert len(chunks) > 2


@pytest.mark.parametrize("form", FORMS)
async def test_same_decision_in_every_form(kit, form):
    """Sync, async, whole and streamed: one policy, one decision."""
    keys = ("route", "stage", "reason", "uncertainty", "threshold", "signals", "rule")
    *_, last = await ask(kit.router(kit.unsure()), form)
    decision = kit.decision(last)
    reference = kit.decision(kit.router(kit.unsure()).chat(USER))
    assert {key: decision[key] for key in keys} == {key: reference[key] for key in keys}
    assert decision["usage"] == reference["usage"]
    json.dumps(decision, allow_nan=False)


@pytest.mark.parametrize("form", FORMS)
async def test_decision_is_recorded_once(kit, form, seen):
    """In the response, in one event, and in `record()`."""
    with record() as decisions:
        *_, last = await ask(kit.router(kit.unsure()), form)
    (event,) = seen.of("ConfRouteDecisionEvent")
    assert [event.decision] == [d.to_dict() for d in decisions] == [kit.decision(last)]


def test_event_lies_in_the_router_s_span(kit, seen):
    """Of a stream as well, whose decision falls after the span was left."""
    kit.router().chat(USER)
    list(kit.router().stream_chat(USER))
    spans = [event.span_id for event in seen.of("ConfRouteDecisionEvent")]
    assert [span.split("-")[0] for span in spans] == ["ConfRouteLLM.chat", "ConfRouteLLM.stream_chat"]


def test_decision_stands_nowhere_else(kit):
    """Not in the message, which is sent to the provider next time, and not in the provider's raw answer."""
    response = kit.router(kit.unsure()).chat(USER)
    assert "confroute" not in response.message.additional_kwargs
    assert "confroute" not in response.raw
    assert "confroute" not in response.message.model_dump_json()


def test_nothing_of_the_caller_is_changed(kit):
    """Messages and keyword arguments."""
    messages = [ChatMessage(role="user", content="Which city?", additional_kwargs={"a": [1]})]
    before = [message.model_copy(deep=True) for message in messages]
    kwargs = {"confroute_threshold": 2.0, "stop": ["x"]}
    kit.router().chat(messages, **kwargs)
    assert messages == before
    assert kwargs == {"confroute_threshold": 2.0, "stop": ["x"]}


def test_route_and_threshold_of_one_call(kit):
    """Set by keyword, hidden from the models."""
    heard = []

    class Listening(type(kit.sure())):
        def _response(self, reply, messages, kwargs):
            heard.append(dict(kwargs))
            return super()._response(reply, messages, kwargs)

    edge = Listening(model=kit.unsure().model)
    llm = kit.router(edge)
    assert kit.decision(llm.chat(USER, confroute_threshold=2.0, stop=["."]))["route"] == "edge"
    assert kit.decision(llm.complete("x", confroute_route="edge"))["stage"] == "forced"
    assert kit.decision(llm.chat(USER, confroute_route="cloud"))["route"] == "cloud"
    assert heard == [{"stop": ["."], "logprobs": True, "top_logprobs": 1}, {}]


def test_instrument_tags_set_calls_inside(kit):
    """The host's own channel reaches calls deep inside engines and agents."""
    llm = kit.router(policy=Cascade.of(TokenLogprob(), 0.3, rules=(SendTo(tier="cloud", tags=("hard",)),)))
    with instrument_tags({"confroute": {"tags": ["hard"]}}):
        assert kit.decision(llm.chat(USER))["rule"] == "send_to"
    with instrument_tags({"confroute": {"route": "cloud", "threshold": 0.1}}):
        assert kit.decision(llm.chat(USER))["route"] == "cloud"
        assert kit.decision(llm.chat(USER, confroute_route="edge"))["route"] == "edge"
    assert kit.decision(llm.chat(USER))["route"] == "edge"


@pytest.mark.parametrize("given", ["edge", {"rout": "edge"}, {"tags": "hard"}, {"tags": [1]}])
def test_wrong_instrument_tags_are_named(kit, given):
    """Rather than ignored."""
    with instrument_tags({"confroute": given}), pytest.raises(RequestError, match="instrument_tags"):
        kit.router().chat(USER)


def test_unknown_route_is_refused(kit):
    """With the routes there are."""
    with pytest.raises(RequestError, match="expected one of edge, cloud"):
        kit.router().chat(USER, confroute_route="moon")


def test_auto_gives_a_call_back_to_the_policy(kit):
    """Where a route is set around it."""
    llm = kit.router()
    with instrument_tags({"confroute": {"route": "cloud", "tags": ["hard"]}}):
        assert kit.decision(llm.chat(USER, confroute_route="auto"))["stage"] == "draft"
        assert kit.decision(llm.complete("x", confroute_route="auto"))["route"] == "edge"


@pytest.mark.parametrize(
    "given",
    [
        {"confroute_threshold": True},
        {"confroute_threshold": "0.1"},
        {"confroute_rout": "edge"},
        {"confroute_tags": "hard"},
    ],
)
@pytest.mark.parametrize("form", FORMS)
async def test_wrong_options_are_refused(kit, form, given):
    """None of them reaches a model."""
    edge = kit.sure()
    with pytest.raises(RequestError, match="expected"):
        await ask(kit.router(edge), form, **given)
    assert edge.model.calls == []


def test_wrong_options_of_values_and_tools_are_refused(kit):
    """In every kind of call."""
    from llama_index.core.prompts import PromptTemplate
    from pydantic import BaseModel

    llm = kit.router()
    with pytest.raises(RequestError, match="confroute_rout"):
        llm.structured_predict(BaseModel, PromptTemplate("x"), llm_kwargs={"confroute_rout": "edge"})
    with pytest.raises(RequestError, match="confroute_rout"):
        llm.chat_with_tools([], "x", confroute_rout="edge")


def test_the_context_of_a_call_can_be_given(kit):
    """Texts, nodes, or pairs with scores, as in the other host."""
    seen = []

    class Looking:
        def flow(self, request):
            seen.append(request)
            return Cascade.of(TokenLogprob(), 0.3).flow(request)

    documents = [NodeWithScore(node=TextNode(text="Bern lies on the Aare."), score=0.8), ("So it does.", 0.6)]
    context = {"question": "Where?", "documents": documents}
    kit.router(policy=Looking()).chat(USER, confroute_context=context, confroute_purpose="text_qa")
    (request,) = seen
    assert (request.question, request.purpose) == ("Where?", "text_qa")
    assert request.context.passages == ("Bern lies on the Aare.", "So it does.")
    assert request.context.scores == (0.8, 0.6)


def test_private_text_stays(kit):
    """Whoever asks for the cloud; tool calls and thoughts in the history are looked at too."""
    large = kit.cloud()
    llm = kit.router(
        kit.unsure(),
        large,
        policy=Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("salary",)),)),
    )
    assert kit.decision(llm.complete("My salary?", confroute_route="cloud"))["private"]
    from llama_index.core.base.llms.types import ToolCallBlock

    call = ChatMessage(
        role="assistant", blocks=[ToolCallBlock(tool_name="look", tool_kwargs={"key": "salary"})]
    )
    assert kit.decision(llm.chat([*USER, call]))["private"]
    assert large.model.calls == []


@pytest.mark.parametrize("form", ["chat", "achat"])
async def test_samples_decide_without_logprobs(kit, form):
    """Samples are drawn at the signal's temperature, from the same conversation."""
    edge = kit.scripted(Reply(text="Bern", logprob=None), name="small", samples=["Bern", "Rome"])
    llm = kit.router(edge, policy=Cascade.of(SelfConsistency(n=4, temperature=0.7, step=4), 0.4))
    (response,) = await ask(llm, form)
    assert kit.decision(response)["route"] == "cloud"
    assert kit.decision(response)["uncertainty"] == 0.5
    assert [heard.temperature for heard in edge.model.calls] == [0.0] + [0.7] * 4
    assert len({heard.prompt for heard in edge.model.calls}) == 1
    assert edge.temperature == 0.0


@pytest.mark.parametrize("form", FORMS)
async def test_the_majority_of_the_samples_is_returned(kit, form):
    """Where the policy says so, in every form: the first of the samples that agree, billed once."""
    edge = kit.scripted("Rome", name="small", samples=["Bern.", "bern", "Oslo"])
    policy = Cascade(gates=Cascade.of(SelfConsistency(n=3, step=3), 1.0).gates, returns="majority")
    llm = kit.router(edge, policy=policy)
    last = (await ask(llm, form))[-1]
    decision = kit.decision(last)
    assert (text_of(last), decision["route"], decision["sampled"]) == ("Bern.", "edge", True)
    assert decision["usage"]["edge"]["output_tokens"] == 1 + 3


def test_no_logprobs_and_no_samples_is_no_confidence(kit):
    """A child without either: the policy's `on_no_signal` decides and says why."""
    from llama_index.core.llms import MockLLM

    decision = kit.decision(kit.router(MockLLM(max_tokens=4), policy=Cascade()).complete("Which city?"))
    assert (decision["route"], decision["stage"]) == ("cloud", "no_signal")
    assert set(decision["skipped"]) == {"token_logprob", "self_consistency"}


def test_private_text_is_found_in_a_providers_own_tool_calls(kit):
    """Calls that stand in `additional_kwargs`, as OpenAI writes them, are sent to models: rules see them."""
    large = kit.cloud()
    rules = (KeepPrivate(patterns=("salary",)),)
    llm = kit.router(kit.unsure(), large=large, policy=Cascade.of(TokenLogprob(), 0.3, rules=rules))
    call = {"id": "1", "type": "function", "function": {"name": "store", "arguments": '{"salary": 4000}'}}
    said = ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]})
    response = llm.chat([*USER, said, *USER])
    assert kit.decision(response)["rule"] == "keep_private"
    assert large.model.calls == []
