"""The contract that every adapter inherits, on the core without a host and on both hosts."""

import asyncio

from langchain_core.messages import HumanMessage
from llama_index.core.llms import ChatMessage

from confroute import Limits, Message, Request, Tier, record
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.testing import AdapterAnswer, ScriptedCalls, TieredAdapterContract
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
NONE = {"edge": ONCE, "mid": ONCE, "cloud": ONCE}


def settings(models):
    """Two models by their own arguments, more of them as tiers; one attempt for each."""
    if len(models) == 2:
        return {**models, "edge_limits": ONCE, "cloud_limits": ONCE}
    return {"tiers": models, "limits": dict.fromkeys(models, ONCE)}


def run_async(awaitable):
    """The result of a coroutine, in its own event loop."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def to_list(items):
    """An async stream as a list."""
    return [item async for item in items]


class TestCore(TieredAdapterContract):
    """The core itself, without an adapter."""

    forms = ("call", "acall", "stream", "astream")

    def send_tiers(self, form, question, *, models, policy, route=None):
        """Call `confroute.executor`."""
        tiers = {name: Tier(name=name, model=model.name) for name, model in models.items()}
        request = Request(messages=(Message(role="user", text=question),), tiers=tiers, route=route)
        calls = ScriptedCalls(models=models)
        if form == "call":
            routed, chunks = run(policy, request, calls.call(request), NONE), []
        elif form == "acall":
            routed, chunks = run_async(arun(policy, request, calls.acall(request), NONE)), []
        elif form == "stream":
            *chunks, routed = run_stream(policy, request, calls.call(request), calls.stream(request), NONE)
        else:
            items = arun_stream(policy, request, calls.acall(request), calls.astream(request), NONE)
            *chunks, routed = run_async(to_list(items))
        return AdapterAnswer(text=routed.generation.text, decision=routed.decision.to_dict(), chunks=chunks)


class TestLangChain(TieredAdapterContract):
    """`ChatConfRoute`."""

    forms = ("invoke", "ainvoke", "stream", "astream", "batch")

    def send_tiers(self, form, question, *, models, policy, route=None):
        """Call it as a chat model."""
        chats = {name: ScriptedChat(script=model, model=model.name) for name, model in models.items()}
        router = ChatConfRoute(**settings(chats), policy=policy)
        config = {"configurable": {"confroute_route": route}} if route else {}
        messages = [HumanMessage(question)]
        if form in {"stream", "astream"}:
            with record() as decisions:
                streamed = getattr(router, form)(messages, config)
                chunks = [
                    chunk.text
                    for chunk in (list(streamed) if form == "stream" else run_async(to_list(streamed)))
                ]
            return AdapterAnswer(text="".join(chunks), decision=decisions[0].to_dict(), chunks=chunks)
        if form == "batch":
            (answer,) = router.batch([messages], config)
        else:
            result = getattr(router, form)(messages, config)
            answer = run_async(result) if form == "ainvoke" else result
        return AdapterAnswer(text=answer.text, decision=answer.response_metadata["confroute"])


class TestLlamaIndex(TieredAdapterContract):
    """`ConfRouteLLM`."""

    forms = (
        *("chat", "achat", "stream_chat", "astream_chat"),
        *("complete", "acomplete", "stream_complete", "astream_complete"),
        *("chat_with_tools", "achat_with_tools"),
    )

    def send_tiers(self, form, question, *, models, policy, route=None):
        """Call it as a function-calling LLM."""
        llms = {name: ScriptedLLM(model=model) for name, model in models.items()}
        llm = ConfRouteLLM(**settings(llms), policy=policy)
        options = {} if route is None else {"confroute_route": route}
        prompt = question if "complete" in form else [ChatMessage(role="user", content=question)]
        if "tools" in form:
            options |= {"chat_history": prompt}
            prompt = []
        result = getattr(llm, form)(prompt, **options)
        if "stream" not in form:
            answer, chunks = run_async(result) if form.startswith("a") else result, []
        else:
            streamed = run_async(await_stream(result)) if form.startswith("a") else list(result)
            answer, chunks = streamed[-1], [chunk.delta or "" for chunk in streamed]
        text = answer.text if "complete" in form else answer.message.content
        if chunks:
            assert text == "".join(chunks)
        return AdapterAnswer(text=text, decision=answer.additional_kwargs["confroute"], chunks=chunks)


async def await_stream(coroutine):
    """LlamaIndex's async streams are returned by a coroutine."""
    return await to_list(await coroutine)
