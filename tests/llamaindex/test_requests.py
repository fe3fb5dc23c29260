"""What each model is asked: with what it can do, in copies of its own, and not again with what it refused."""

import asyncio
import warnings

import pytest
from llama_index.core.base.llms.types import CacheControl, CachePoint
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from confroute import Cascade, Gate, Prefix, SelfConsistency, Threshold, TokenLogprob, record
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from llamaindex_confroute.messages import portable
from llamaindex_confroute.testing import ScriptedLLM

USER = [ChatMessage(role="user", content="Which city?")]
FORMS = (
    *("chat", "complete", "stream_chat", "stream_complete"),
    *("achat", "acomplete", "astream_chat", "astream_complete"),
)
EVIDENCE = (TokenLogprob(), SelfConsistency(n=2, step=2))
GATES = tuple(Gate(signal=signal, threshold=Threshold(value=0.3)) for signal in EVIDENCE)
EAGER = Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0), tokens=1, least=1)


class Refusing(ScriptedLLM):
    """A model that refuses requests for log-probabilities, or for alternatives only, in the words of a server."""

    refused: str = "logprobs"
    asked: list = Field(default_factory=list)

    def _reply(self, messages, kwargs):
        self.asked.append(dict(kwargs))
        if kwargs.get(self.refused):
            msg = f"400: {self.refused} is not supported by this model"
            raise ValueError(msg)
        return super()._reply(messages, kwargs)


async def ask(llm, form):
    """The last response of a call in one form."""
    called = getattr(llm, form)(USER if "chat" in form else "Which city?")
    called = await called if form.startswith("a") else called
    if "stream" not in form:
        return called
    return [chunk async for chunk in called][-1] if form.startswith("a") else list(called)[-1]


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("prefix", [None, EAGER])
@pytest.mark.parametrize("form", FORMS)
async def test_refused_log_probabilities_are_asked_for_once(kit, form, prefix, threaded):
    """Asked again without, and remembered: samples decide, and the cloud is not the answer to everything."""
    edge = Refusing(model=ScriptedModel(["Bern"], samples=["Bern"], name="small"))
    llm = kit.router(edge, policy=Cascade(gates=GATES, prefix=prefix), edge_in_thread=threaded)
    for _ in range(2):
        decision = kit.decision(await ask(llm, form))
        assert (decision["route"], decision["signal"]) == ("edge", "self_consistency")
    refused = [at for at, kwargs in enumerate(edge.asked) if kwargs.get("logprobs")]
    assert refused == [0, 1]  # with alternatives, without, and then no more


async def test_refused_alternatives_leave_the_log_probabilities(kit):
    """Less is asked for, not nothing."""
    edge = Refusing(model=ScriptedModel([Reply(text="Bern")], name="small"), refused="top_logprobs")
    llm = kit.router(edge)
    for form in ("chat", "achat"):
        assert kit.decision(await ask(llm, form))["signal"] == "token_logprob"
    assert [kwargs.get("top_logprobs") for kwargs in edge.asked] == [1, None, None]


@pytest.mark.parametrize("form", FORMS)
async def test_other_errors_do_not_stop_the_asking(kit, form):
    """Only an error about log-probabilities does."""
    edge = kit.down(ValueError("bad request"))
    llm = kit.router(edge)
    assert kit.decision(await ask(llm, form))["stage"] == "fallback"
    assert llm._fallback._refusals == {}
    assert len(edge.model.calls) == 1


def test_a_real_refusal_of_a_real_client(kit):
    """HTTP 400 as OpenAI words it."""

    class Server(ScriptedServer):
        def reply(self, body):
            found = super().reply(body)
            return None if body.get("logprobs") else found

    models = {"logprobs-less": ScriptedModel(["Bern"], samples=["Bern"]), "large": ScriptedModel(["Basel"])}
    with Server(models) as server:
        edge, cloud = (
            OpenAILike(model=name, api_base=server.url, api_key="none", is_chat_model=True, max_retries=0)
            for name in models
        )
        # The server's words are "no scripted model 'logprobs-less'", a 404 that names them.
        decision = kit.decision(kit.router(edge, cloud, policy=Cascade(gates=GATES)).chat(USER))
    assert (decision["route"], decision["signal"]) == ("edge", "self_consistency")


def test_models_cannot_write_into_each_other_s_arguments(kit):
    """Nor into the caller's, however deep."""

    class Writing(ScriptedLLM):
        def _reply(self, messages, kwargs):
            assert kwargs["extra_body"] == {"a": [1]}
            kwargs["extra_body"]["a"].append(2)
            messages[0].blocks.clear()
            return super()._reply(messages, kwargs)

    edge = Writing(model=kit.unsure().model)
    large = Writing(model=kit.cloud().model)
    given, messages = {"extra_body": {"a": [1]}}, [ChatMessage(role="user", content="Which city?")]
    llm = kit.router(edge, large)
    assert kit.decision(llm.chat(messages, **given))["route"] == "cloud"
    assert kit.decision(list(llm.stream_chat(messages, **given))[-1])["route"] == "cloud"
    asyncio.run(llm.achat(messages, **given))
    assert (given, messages) == (
        {"extra_body": {"a": [1]}},
        [ChatMessage(role="user", content="Which city?")],
    )


def test_cache_points_go_to_models_that_know_them(kit):
    """Others refuse the whole message: a copy without them is sent, the caller's stays."""
    point = CachePoint(cache_control=CacheControl(type="ephemeral"))
    message = ChatMessage(role="user", content="Which city?")
    message.blocks.append(point)
    knowing = type("Anthropic", (ScriptedLLM,), {"__module__": "llama_index.llms.anthropic.base"})
    assert portable([message], knowing(model=kit.sure().model))[0].blocks[-1] == point
    with ScriptedServer(ScriptedModel(["Bern"])) as server:
        edge = OpenAILike(model="m", api_base=server.url, api_key="none", is_chat_model=True, max_retries=0)
        assert kit.decision(kit.router(edge).chat([message]))["stage"] != "fallback"
    assert server.bodies[0]["messages"][0]["content"]
    assert message.blocks[-1] == point


class City(BaseModel):
    """A city."""

    name: str


@pytest.mark.parametrize("route", ["edge", "cloud"])
async def test_the_way_to_make_values_can_be_set_on_the_router(kit, route):
    """`pydantic_program_mode`, which models with tools would otherwise choose by themselves; they keep their own."""
    text = Reply(text='{"name": "Bern"}')  # not a tool call
    edge = kit.scripted(text, name="small") if route == "edge" else kit.unsure()
    llm = kit.router(edge, kit.scripted(text, name="large"), pydantic_program_mode=PydanticProgramMode.LLM)
    prompt = PromptTemplate("Which?")
    with record() as decisions:
        assert llm.structured_predict(City, prompt).name == "Bern"
        assert (await llm.astructured_predict(City, prompt)).name == "Bern"
        assert list(llm.stream_structured_predict(City, prompt))[-1].name == "Bern"
    assert {decision.route for decision in decisions} == {route}
    assert edge.pydantic_program_mode == PydanticProgramMode.DEFAULT


def test_a_rate_limiter_of_the_router_is_told_to_be_useless(kit):
    """The models make the calls."""
    from llama_index.core.rate_limiter import TokenBucketRateLimiter

    with pytest.warns(UserWarning, match="give one to each of them"):
        kit.router(rate_limiter=TokenBucketRateLimiter(requests_per_minute=60))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kit.router(kit.sure(rate_limiter=TokenBucketRateLimiter(requests_per_minute=60)))
