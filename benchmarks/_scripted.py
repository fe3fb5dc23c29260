"""Each host over scripted models, that a benchmark counts or times one and the same call in all of them.

Public names alone, so that a script that uses it runs on earlier versions too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import confroute
from confroute import Cascade, Generation, TokenLogprob
from confroute.testing import Reply, ScriptedModel

PROMPT = "What is the capital of France? Answer in one word."
THRESHOLD = 0.3
# Nats per token: an answer that is kept, and one that is sent to the cloud.
LOGPROBS = {"kept": -0.05, "escalated": -1.0}


@dataclass(frozen=True, kw_only=True)
class Calls:
    """One call of a router in both forms."""

    sync: Callable[[], Any]
    asynchronous: Callable[[], Awaitable[Any]]


def scripts(route: str) -> tuple[ScriptedModel, ScriptedModel]:
    """Edge and cloud of a call that takes this route."""
    edge = ScriptedModel([Reply(text="Paris it is", logprob=LOGPROBS[route])], name="small")
    return edge, ScriptedModel(["Paris"], name="large")


def policy() -> Cascade:
    """One gate, on the draft's own log-probabilities."""
    return Cascade.of(TokenLogprob(), THRESHOLD)


def langchain(route: str) -> Calls:
    """`ChatConfRoute`."""
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    edge, cloud = (ScriptedChat(script=script, model=script.name) for script in scripts(route))
    router = ChatConfRoute(edge=edge, cloud=cloud, policy=policy())
    return Calls(sync=lambda: router.invoke(PROMPT), asynchronous=lambda: router.ainvoke(PROMPT))


def llamaindex(route: str) -> Calls:
    """`ConfRouteLLM`."""
    from llama_index.core.llms import ChatMessage

    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    edge, cloud = (ScriptedLLM(model=script) for script in scripts(route))
    router = ConfRouteLLM(edge=edge, cloud=cloud, policy=policy())
    messages = [ChatMessage(role="user", content=PROMPT)]
    return Calls(sync=lambda: router.chat(messages), asynchronous=lambda: router.achat(messages))


class Instant:
    """A `TextModel` over a script."""

    remote = True

    def __init__(self, script: ScriptedModel) -> None:
        self.script, self.name = script, script.name

    def generate(self, messages: Sequence[Any], **settings: Any) -> tuple[Generation, ...]:
        return (self.script.reply(PROMPT).generation(PROMPT, model=self.name),)

    async def agenerate(self, messages: Sequence[Any], **settings: Any) -> tuple[Generation, ...]:
        return self.generate(messages)


def plain(route: str) -> Calls:
    """`confroute.Router`."""
    edge, cloud = (Instant(script) for script in scripts(route))
    router = confroute.Router(edge=edge, cloud=cloud, policy=policy())
    return Calls(sync=lambda: router.ask(PROMPT), asynchronous=lambda: router.aask(PROMPT))


def hosts() -> dict[str, Callable[[str], Calls]]:
    """Every host that this version has, by its router's name."""
    found = {"ChatConfRoute": langchain, "ConfRouteLLM": llamaindex}
    return {**found, "Router": plain} if hasattr(confroute, "Router") else found
