"""Structured output, by each model's own method: an edge's value counts only if it validates."""

import asyncio

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, ValidationError

from confroute import Cascade, SelfConsistency, TokenLogprob, record
from confroute.errors import TierError
from confroute.testing import Reply
from llamaindex_confroute.testing import ScriptedLLM, ToolReply


class City(BaseModel):
    """A city."""

    name: str
    people: int


PROMPT = PromptTemplate("Which city? {hint}")
ROME = City(name="Rome", people=3)
FORMS = (
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)


def saying(kit, text, *, name="small", logprob=-0.05, calls=None, tools=False, samples=()):
    """A model that writes JSON, or calls the output's tool."""
    reply = Reply(text=text, logprob=logprob) if calls is None else ToolReply(calls=calls, logprob=logprob)
    return kit.scripted(reply, name=name, is_function_calling_model=tools, samples=samples)


def rome(kit, name="large", **fields):
    """One that is right."""
    return saying(kit, ROME.model_dump_json(), name=name, **fields)


async def ask(llm, form, **kwargs):
    """Call in one form; the values."""
    called = getattr(llm, form)(City, PROMPT, hint="old", **kwargs)
    if form.startswith("a"):
        called = await called
    if "stream" not in form:
        return [called]
    return [value async for value in called] if form.startswith("a") else list(called)


async def asked(llm, form, **kwargs):
    """The last value, and the decision."""
    with record() as decisions:
        values = await ask(llm, form, **kwargs)
    (decision,) = decisions
    return values[-1], decision


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tools", [False, True])
async def test_valid_and_sure(kit, form, tools):
    """The edge's value, as JSON in text or as a tool call, its log-probabilities found behind it."""
    calls = (("City", ROME.model_dump()),) if tools else None
    edge = saying(kit, "" if tools else ROME.model_dump_json(), calls=calls, tools=tools)
    policy = Cascade(on_no_signal="edge") if tools else None
    value, decision = await asked(kit.router(edge, rome(kit), policy=policy), form)
    assert (value, decision.route) == (ROME, "edge")
    assert decision.usage["edge"].total_tokens > 0
    if not tools:
        assert decision.uncertainty == 0.05


@pytest.mark.parametrize("form", FORMS)
async def test_valid_and_unsure(kit, form):
    """The cloud's value, streamed as it grows."""
    edge = saying(kit, City(name="Bern", people=1).model_dump_json(), logprob=-1.0)
    value, decision = await asked(kit.router(edge, rome(kit)), form)
    assert (value, decision.route) == (ROME, "cloud")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["no JSON", '{"name": "Bern"}', '{"name": "Bern", "people": "many"}'])
async def test_invalid_and_sure(kit, form, text):
    """Escalates; what was billed is counted."""
    value, decision = await asked(kit.router(saying(kit, text), rome(kit)), form)
    assert (value, decision.route) == (ROME, "cloud")
    assert "edge answer cannot be used: no valid City" in decision.reason
    assert "Bern" not in decision.reason
    assert decision.usage["edge"].output_tokens > 0


@pytest.mark.parametrize("form", FORMS[:2])
async def test_both_invalid(kit, form):
    """The last model's error, with what became of the draft."""
    llm = kit.router(saying(kit, "no"), saying(kit, "neither", name="large"))
    with pytest.raises(
        TierError, match=r"cloud failed .* after the draft was rejected: edge answer cannot be used"
    ) as caught:
        await ask(llm, form)
    assert isinstance(caught.value.__cause__, ValueError)


def test_invalid_draft_is_never_returned(kit):
    """Not even degraded."""
    policy = Cascade.of(TokenLogprob(), 0.3, on_cloud_error="edge")
    with pytest.raises(TierError):
        kit.router(saying(kit, "no"), kit.down(name="large"), policy=policy).structured_predict(
            City, PROMPT, hint=""
        )


def test_edge_down(kit):
    """No answer is no invalid answer: the decision names the error."""
    edge = kit.down()
    edge.is_function_calling_model = False
    with record() as decisions:
        assert kit.router(edge, rome(kit)).structured_predict(City, PROMPT, hint="") == ROME
    assert "edge failed (ConnectionError; nothing answers there" in decisions[0].reason


def test_samples_compare_values(kit):
    """Not their spelling."""
    spelled = ['{"people": 3, "name": "Rome"}', '{ "name":"Rome","people":3 }']
    edge = saying(kit, ROME.model_dump_json(), logprob=None, samples=spelled)
    llm = kit.router(edge, policy=Cascade.of(SelfConsistency(n=2, step=2), 0.4))
    with record() as decisions:
        assert llm.structured_predict(City, PROMPT, hint="") == ROME
    assert (decisions[0].route, decisions[0].uncertainty) == ("edge", 0.0)


def test_several_responses_behind_one_value(kit):
    """Their tokens all count, and the log-probabilities of the last are no evidence for the whole."""

    class Twice(ScriptedLLM):
        def structured_predict(self, *args, **kwargs):
            self.chat([ChatMessage(role="user", content="Think first.")])
            return super().structured_predict(*args, **kwargs)

    edge = Twice(model=rome(kit, "small").model, is_function_calling_model=False)
    with record() as decisions:
        kit.router(edge, rome(kit)).structured_predict(City, PROMPT, hint="")
    assert decisions[0].stage == "no_signal"
    assert decisions[0].usage["edge"].output_tokens == 2


async def test_concurrent_calls_stay_apart(kit):
    """Each value is judged by its own response."""

    def answer(prompt):
        return Reply(text=ROME.model_dump_json(), logprob=-0.05 if "easy" in prompt else -1.0, latency_s=0.01)

    edge = rome(kit, "small")
    edge.model.replies = answer
    llm = kit.router(edge, rome(kit))

    async def ask_one(hint):
        with record() as decisions:
            await llm.astructured_predict(City, PROMPT, hint=hint)
        return decisions[0].route

    assert await asyncio.gather(*map(ask_one, ("easy", "hard", "easy"))) == ["edge", "cloud", "edge"]


@pytest.mark.parametrize("edge", [-0.05, -1.0])
async def test_structured_llm(kit, edge):
    """`as_structured_llm`: chat and completion, sync and async, streamed."""
    llm = kit.router(saying(kit, ROME.model_dump_json(), logprob=edge), rome(kit)).as_structured_llm(City)
    messages = [ChatMessage(role="user", content="Braces {stay} as {they: 1} are?")]
    assert llm.chat(messages).raw == ROME
    assert llm.complete("Which?").raw == ROME
    assert (await llm.achat(messages)).raw == ROME
    assert (await llm.acomplete("Which?")).raw == ROME
    assert list(llm.stream_chat(messages))[-1].raw == ROME
    assert [chunk async for chunk in await llm.astream_chat(messages)][-1].raw == ROME
    heard = llm.llm.edge.model.calls[0].prompt
    assert "Braces {stay} as {they: 1} are?" in heard


def test_system_prompt_and_question(kit):
    """The router's prompt, once; overrides of one call in `llm_kwargs`, which stay the caller's."""
    edge = saying(kit, ROME.model_dump_json())
    llm = kit.router(edge, rome(kit), system_prompt="Be brief.")
    kwargs = {"confroute_route": "edge"}
    llm.structured_predict(City, PROMPT, llm_kwargs=kwargs, hint="x")
    assert edge.model.calls[0].prompt.count("Be brief.") == 1
    assert kwargs == {"confroute_route": "edge"}


def test_query_engine_with_output_class(kit, index):
    """`output_cls` of a query engine, whose template keeps the question apart."""
    llm = kit.router(saying(kit, ROME.model_dump_json()), rome(kit))
    with record() as decisions:
        response = index.as_query_engine(llm=llm, output_cls=City).query("Which city?")
    assert (response.response, decisions[0].route) == (ROME, "edge")


async def test_agent_with_output_class(kit):
    """`output_cls` of an agent."""
    edge = kit.scripted(
        Reply(text="It is Rome."), ToolReply(calls=(("City", ROME.model_dump()),)), name="small"
    )
    policy = Cascade(on_no_signal="edge")
    output = await FunctionAgent(llm=kit.router(edge, policy=policy), output_cls=City, tools=[]).run(
        "Which city?"
    )
    assert output.structured_response == ROME.model_dump()


def test_openai_like_uses_its_own_method(kit, openai_server):
    """`response_format` on the wire, log-probabilities asked for and read."""
    openai_server.answer = '{"name":"Rome","people":3}'
    edge = OpenAILike(
        model="small",
        api_base=openai_server.url,
        api_key="k",
        is_chat_model=True,
        should_use_structured_outputs=True,
        max_retries=0,
    )
    with record() as decisions:
        assert kit.router(edge, rome(kit)).structured_predict(City, PROMPT, hint="") == ROME
    assert (decisions[0].route, decisions[0].uncertainty) == ("edge", 0.01)
    (body,) = openai_server.bodies
    assert (body["response_format"]["type"], body["logprobs"]) == ("json_schema", True)


def test_validation_error_of_a_forced_model(kit):
    """As it came."""
    llm = kit.router(saying(kit, '{"name": "Bern"}'), rome(kit))
    with pytest.raises((ValidationError, ValueError)):
        llm.structured_predict(City, PROMPT, llm_kwargs={"confroute_route": "edge"}, hint="")
