"""What an edge and a cloud of LangChain can really do: asked, not believed. See `diagnose`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.globals import get_llm_cache

from confroute import doctor
from confroute.doctor import QUESTION, SCHEMA, TOOL_QUESTION, Diagnosis, Trial
from langchain_confroute.models import Model, TierModel, resolve_model

_NAME = "Invent a name for a robot. Reply with the name only."
_COUNT = "Count from 1 to 8, separated by spaces."
_SAMPLES = 4


def add(first: int, second: int) -> int:
    """Add two whole numbers."""
    return first + second


def diagnose(*, edge: Model | str, cloud: Model | str) -> Diagnosis:
    """`confroute.doctor.diagnose` with LangChain's models, tools and structured output included.

    Parameters
    ----------
    edge, cloud : chat model, bound chat model, or name for `init_chat_model`

    Examples
    --------
    >>> from langchain_confroute.testing import ScriptedChat
    >>> found = diagnose(edge=ScriptedChat.of("4", logprob=-0.01), cloud=ScriptedChat.of("4"))
    >>> found.ok, found.works("edge", "logprobs"), found.works("edge", "sampling")
    (True, True, False)
    """
    return doctor.diagnose(edge=resolve_model(edge, "edge"), cloud=resolve_model(cloud, "cloud"))


def trials(tier: TierModel) -> Mapping[str, Trial]:
    """What LangChain's models are tried at in LangChain's own way."""
    return {
        "sampling": lambda: _sampling(tier),
        "streaming": lambda: doctor.streamed(sum(bool(chunk.text) for chunk in tier.source.stream(_COUNT))),
        "tools": lambda: _tools(tier),
        "structured output": lambda: _structured(tier),
    }


def _sampling(tier: TierModel) -> tuple[bool, str]:
    texts = [message.text for message in tier.sampler(1.0).batch([_NAME] * _SAMPLES)]
    cached = get_llm_cache() is not None
    hint = " LangChain's global cache is set, though samples go round it;" if cached else ""
    return doctor.sampled(texts, hint=hint)


def _tools(tier: TierModel) -> tuple[bool, str]:
    bound: Any = tier.source
    calls = bound.bind_tools([add]).invoke(TOOL_QUESTION).tool_calls
    return doctor.called(calls[0]["name"], calls[0]["args"]) if calls else doctor.called(None, ())


def _structured(tier: TierModel) -> tuple[bool, str]:
    source: Any = tier.source
    return doctor.filled(source.with_structured_output(SCHEMA).invoke(QUESTION))
