"""The router as an object of the host: metadata, callbacks, copies, serialised forms, concurrency."""

import asyncio
import copy
import pickle
import subprocess
import sys
import threading

import pytest
from llama_index.core import Settings
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.extractors import TitleExtractor
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.llms import ChatMessage, LLMMetadata, MockLLM
from llama_index.core.schema import TextNode

from confroute import Cascade, Limits, SelfConsistency, TokenLogprob
from confroute.errors import PolicyError
from confroute.testing import Reply
from llamaindex_confroute import ConfRouteLLM, LocalEmbedding
from llamaindex_confroute.local import LocalLLM
from llamaindex_confroute.models import ChildModel

USER = [ChatMessage(role="user", content="Which city?")]


class Curious(MockLLM):
    """A model that asks its server for its metadata, as Ollama does."""

    context_window: int = -1
    _asked: list = PrivateAttr(default_factory=list)

    @property
    def metadata(self):
        if self.context_window == -1:
            self._asked.append("asked the server")
            raise ConnectionError
        return LLMMetadata(context_window=self.context_window, model_name="curious")


@pytest.mark.parametrize(("edge", "cloud"), [(512, 9000), (9000, 512)])
def test_metadata_joins_both(kit, edge, cloud):
    """The cloud's window, since any prompt may end there, the larger answer, a chat model, tools if either has them."""
    small = kit.sure(context_window=edge, num_output=300, is_function_calling_model=False)
    said = kit.router(small, kit.cloud(context_window=cloud, num_output=200)).metadata
    assert (said.context_window, said.num_output) == (cloud, 300)
    assert said.is_chat_model
    assert said.is_function_calling_model
    assert said.model_name == "confroute(small->large)"


def test_metadata_without_a_server(kit):
    """A dead edge must not break a query engine at its start; what it does not say is not guessed."""
    edge = Curious()
    llm = kit.router(edge, kit.cloud(context_window=9000))
    assert (llm.metadata.context_window, edge._asked) == (9000, [])
    assert kit.decision(llm.complete("word " * 20_000))["route"] == "cloud"
    assert kit.router(LocalLLM(model="not-there")).metadata.context_window == 8192


def test_metadata_of_a_model_that_cannot_say(kit):
    """Unknown, not an error: the model's calls will tell."""

    class Broken(MockLLM):
        @property
        def metadata(self):
            raise ValueError("unknown model")

    assert kit.router(Broken(), kit.cloud()).metadata.context_window == 8192
    assert kit.router(kit.sure(), Broken()).metadata.context_window == DEFAULT_CONTEXT_WINDOW


@pytest.mark.parametrize("edge", ["sure", "unsure"])
@pytest.mark.parametrize("form", ["chat", "stream_chat", "complete"])
def test_token_counting_is_exact(kit, edge, form):
    """Every call of a child counts once, and the router adds none; the children were built before."""
    llm = kit.router(getattr(kit, edge)())
    counter = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([counter])
    Settings.llm = llm
    called = getattr(Settings.llm, form)(USER if "chat" in form else "Which city?")
    last = list(called)[-1] if form == "stream_chat" else called
    usage = kit.decision(last)["usage"].values()
    assert len(counter.llm_token_counts) == len(usage) == (1 if edge == "sure" else 2)
    assert counter.prompt_llm_token_count == sum(one["input_tokens"] for one in usage)
    assert counter.completion_llm_token_count == sum(one["output_tokens"] for one in usage)


def test_events_are_the_children_s(kit, seen):
    """One start and one end a call of a child; spans nest once."""
    kit.router(kit.unsure()).predict(_template(), query_str="Which city?")
    assert len(seen.of("LLMChatStartEvent")) == len(seen.of("LLMChatEndEvent")) == 2
    assert len(seen.of("LLMPredictStartEvent")) == len(seen.of("LLMPredictEndEvent")) == 1


def test_spans_are_single(kit):
    """The host wraps every override of a method with a span: `predict` must not appear twice."""
    from llama_index_instrumentation import root_dispatcher
    from llama_index_instrumentation.span_handlers import SimpleSpanHandler

    handler = SimpleSpanHandler()
    root_dispatcher.add_span_handler(handler)
    try:
        kit.router(kit.unsure()).predict(_template(), query_str="x")
    finally:
        root_dispatcher.span_handlers.remove(handler)
    names = sorted(span.id_.split("-")[0] for span in handler.completed_spans)
    assert names == ["ConfRouteLLM.chat", "ConfRouteLLM.predict", "ScriptedLLM.chat", "ScriptedLLM.chat"]


def test_own_callback_managers_stay(kit):
    """Unless one is set on the router."""
    mine = CallbackManager([TokenCountingHandler()])
    edge = kit.sure(callback_manager=mine)
    kit.router(edge)
    assert edge.callback_manager is mine
    ours = CallbackManager([TokenCountingHandler()])
    kit.router(edge, callback_manager=ours)
    assert edge.callback_manager is ours


def _small():
    policy = Cascade(gates=Cascade().gates[:1], on_no_signal="edge")
    return ConfRouteLLM(
        edge=MockLLM(max_tokens=2),
        cloud=MockLLM(max_tokens=9),
        policy=policy,
        edge_limits=Limits(timeout_s=3),
        system_prompt="Be brief.",
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm)), copy.copy])
def test_copies_route_alike(kit, copied):
    """Policy, limits and children survive."""
    llm = copied(_small())
    assert llm.policy == _small().policy
    assert llm.edge_limits.timeout_s == 3
    assert llm.system_prompt == "Be brief."
    response = llm.complete("a b c d e")
    assert (kit.decision(response)["route"], len(response.text.split())) == ("edge", 2)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))])
def test_copies_of_scripted_models(kit, copied):
    """Children of the user's test suite survive too, and share nothing with the original."""
    llm = copied(kit.router(kit.unsure()))
    assert kit.decision(llm.chat(USER))["route"] == "cloud"
    assert len(llm.edge.model.calls) == 1


def test_serialised_form_leaks_nothing():
    """No key of a child, no policy; it can be loaded again with live children."""
    from llama_index.llms.openai_like import OpenAILike

    edge = OpenAILike(model="m", api_key="SECRET-1", api_base="http://127.0.0.1:1/v1")
    llm = ConfRouteLLM(edge=edge, cloud=OpenAILike(model="n", api_key="SECRET-2"), system_prompt="Be brief.")
    assert "SECRET" not in llm.to_json() + str(llm.to_payload()) + str(llm.model_dump())
    again = ConfRouteLLM.from_dict(llm.to_dict(), edge=edge, cloud=llm.cloud)
    assert again.system_prompt == "Be brief."
    with pytest.raises(PolicyError, match="edge is a dict: expected a LlamaIndex LLM"):
        ConfRouteLLM.from_dict(llm.to_dict())


def test_calls_leave_ingestion_cache_keys_alone(kit):
    """The key of a transformation depends on the models, not on what they were asked."""
    llm = kit.router()
    nodes, extractor = [TextNode(text="x")], TitleExtractor(llm=llm)
    before = get_transformation_hash(nodes, extractor)
    llm.complete("x")
    assert get_transformation_hash(nodes, extractor) == before
    other = TitleExtractor(llm=kit.router(large=kit.scripted("x", name="other")))
    assert get_transformation_hash(nodes, other) != before


@pytest.mark.parametrize("blocking", [False, True])
async def test_async_is_concurrent(kit, meeting, blocking):
    """None of five calls ends before all have begun, with a blocking edge in threads as well."""
    place = meeting(5)
    llm = kit.router(kit.held("one two", thread=place.wait, task=place.await_all), edge_in_thread=blocking)
    answers = await asyncio.gather(*[llm.acomplete("x") for _ in range(5)])
    assert [answer.text for answer in answers] == ["one two"] * 5


async def test_samples_are_concurrent(kit, meeting):
    """None of the samples of one ask ends before all have begun."""
    edge = kit.held(Reply(text="Bern", logprob=None), task=meeting(5).await_all, samples_only=True)
    llm = kit.router(edge, policy=Cascade.of(SelfConsistency(n=5, step=5), 0.4))
    assert kit.decision(await llm.achat(USER))["route"] == "edge"


@pytest.mark.parametrize("safe", [True, False])
def test_samples_of_synchronous_calls_are_concurrent_where_threads_may_be_used(kit, safe):
    """A class says whether they may; a `CustomLLM` that says nothing is asked in turn, in the caller's own thread."""
    threads = []

    class Edge(type(kit.sure())):
        thread_safe = safe

        def chat(self, *args, **kwargs):
            threads.append(threading.current_thread())
            return super().chat(*args, **kwargs)

    samples = [Reply(text="Bern")]
    edge = Edge(model=kit.scripted(Reply(text="Bern", logprob=None), name="small", samples=samples).model)
    llm = kit.router(edge, policy=Cascade.of(SelfConsistency(n=5, step=5), 0.4))
    assert kit.decision(llm.chat(USER))["route"] == "edge"
    assert len(threads) == 6
    assert all(thread is threading.current_thread() for thread in threads) == (not safe)
    assert not ChildModel(MockLLM()).facts.thread_safe


async def test_blocking_edge_leaves_the_loop_free(kit):
    """The edge answers once another task has run; streams too."""
    loop, turned = asyncio.get_running_loop(), []

    def wait_for_the_loop():
        ran = threading.Event()
        loop.call_soon_threadsafe(ran.set)
        turned.append(ran.wait(20))

    llm = kit.router(kit.held("one two", thread=wait_for_the_loop), edge_in_thread=True)
    await llm.achat(USER)
    chunks = [chunk async for chunk in await llm.astream_chat(USER, confroute_route="edge")]
    assert turned == [True, True]
    assert "".join(chunk.delta for chunk in chunks) == "one two"


def test_import_is_light():
    """Neither torch nor the other host."""
    code = "import sys, llamaindex_confroute; print([m for m in ('torch', 'langchain_core', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_tokenizer_is_loaded(kit, monkeypatch):
    """LlamaIndex's default one wants to download its vocabulary."""
    import llama_index.core

    def refuse(_text):
        raise AssertionError("a tokenizer was used")

    monkeypatch.setattr(llama_index.core, "global_tokenizer", refuse)
    assert (
        kit.decision(kit.router(policy=Cascade.of(TokenLogprob(), 0.3)).complete("x" * 40_000))["route"]
        == "cloud"
    )


def _template():
    from llama_index.core.prompts import PromptTemplate

    return PromptTemplate("Context. {query_str}")


def test_misspelt_arguments_are_refused(kit):
    """pydantic would drop them and leave the default policy in place."""
    with pytest.raises(TypeError, match="polcy"):
        kit.router(kit.sure(), polcy=1)
    with pytest.raises(TypeError, match="expected model_name"):
        LocalEmbedding(model="x")
