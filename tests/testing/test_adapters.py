"""The contract that every adapter inherits, on the core without a host and on both hosts."""

import asyncio

from langchain_core.messages import HumanMessage
from llama_index.core.llms import ChatMessage

from confroute import Limits, Message, Request, Tier, record
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.testing import AdapterContract, Answered, ScriptedCalls
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
NONE = {"edge": ONCE, "cloud": ONCE}


def finished(awaitable):
    """The result of a coroutine, in a loop of its own."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def gathered(items):
    """An async stream as a list."""
    return [item async for item in items]


class TestCore(AdapterContract):
    """The core itself: what adapters are held against."""

    forms = ("call", "acall", "stream", "astream")

    def send(self, form, question, *, edge, cloud, policy, route=None):
        """Through `confroute.executor`."""
        models = {"edge": edge, "cloud": cloud}
        tiers = {name: Tier(name=name, model=model.name) for name, model in models.items()}
        asked = Request(messages=(Message(role="user", text=question),), tiers=tiers, route=route)
        calls = ScriptedCalls(models=models)
        if form == "call":
            routed, chunks = run(policy, asked, calls.call(asked), NONE), []
        elif form == "acall":
            routed, chunks = finished(arun(policy, asked, calls.acall(asked), NONE)), []
        elif form == "stream":
            *chunks, routed = run_stream(policy, asked, calls.call(asked), calls.stream(asked), NONE)
        else:
            items = arun_stream(policy, asked, calls.acall(asked), calls.astream(asked), NONE)
            *chunks, routed = finished(gathered(items))
        return Answered(text=routed.generation.text, decision=routed.decision.to_dict(), chunks=chunks)


class TestLangChain(AdapterContract):
    """`ChatConfRoute`."""

    forms = ("invoke", "ainvoke", "stream", "astream", "batch")

    def send(self, form, question, *, edge, cloud, policy, route=None):
        """As a chat model."""
        models = {
            name: ScriptedChat(script=model, model=model.name)
            for name, model in (("edge", edge), ("cloud", cloud))
        }
        router = ChatConfRoute(**models, policy=policy, edge_limits=ONCE, cloud_limits=ONCE)
        config = {"configurable": {"confroute_route": route}} if route else {}
        messages = [HumanMessage(question)]
        if form in {"stream", "astream"}:
            with record() as decisions:
                streamed = getattr(router, form)(messages, config)
                chunks = [
                    chunk.text
                    for chunk in (list(streamed) if form == "stream" else finished(gathered(streamed)))
                ]
            return Answered(text="".join(chunks), decision=decisions[0].to_dict(), chunks=chunks)
        if form == "batch":
            (answer,) = router.batch([messages], config)
        else:
            called = getattr(router, form)(messages, config)
            answer = finished(called) if form == "ainvoke" else called
        return Answered(text=answer.text, decision=answer.response_metadata["confroute"])


class TestLlamaIndex(AdapterContract):
    """`ConfRouteLLM`."""

    forms = (
        *("chat", "achat", "stream_chat", "astream_chat"),
        *("complete", "acomplete", "stream_complete", "astream_complete"),
        *("chat_with_tools", "achat_with_tools"),
    )

    def send(self, form, question, *, edge, cloud, policy, route=None):
        """As a function-calling LLM."""
        models = {"edge": ScriptedLLM(model=edge), "cloud": ScriptedLLM(model=cloud)}
        llm = ConfRouteLLM(**models, policy=policy, edge_limits=ONCE, cloud_limits=ONCE)
        given = {} if route is None else {"confroute_route": route}
        asked = question if "complete" in form else [ChatMessage(role="user", content=question)]
        if "tools" in form:
            given |= {"chat_history": asked}
            asked = []
        called = getattr(llm, form)(asked, **given)
        if "stream" not in form:
            answer, chunks = finished(called) if form.startswith("a") else called, []
        else:
            streamed = finished(streaming(called)) if form.startswith("a") else list(called)
            answer, chunks = streamed[-1], [chunk.delta or "" for chunk in streamed]
        text = answer.text if "complete" in form else answer.message.content
        if chunks:
            assert text == "".join(chunks)
        return Answered(text=text, decision=answer.additional_kwargs["confroute"], chunks=chunks)


async def streaming(called):
    """LlamaIndex's async streams come from a coroutine."""
    return await gathered(await called)
