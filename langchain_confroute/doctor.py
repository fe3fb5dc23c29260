"""What an edge and a cloud can really do: asked, not believed. See `diagnose`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.messages import AIMessage, HumanMessage

from confroute.doctor import Check, Diagnosis
from confroute.errors import BadLogprobsError, ConfrouteError, MissingExtraError, PolicyError
from confroute.prices import Price
from confroute.remediation import next_step
from confroute.types import checked_logprobs
from confroute.views.html import counted
from langchain_confroute._given import resolved
from langchain_confroute._tiers import Model, TierModel
from langchain_confroute.local import ChatLocal
from langchain_confroute.logprobs import extract_token_logprobs

_SUM = [HumanMessage("What is 2 + 2? Reply with the number only.")]
_NAME = [HumanMessage("Invent a name for a robot. Reply with the name only.")]
_COUNT = [HumanMessage("Count from 1 to 8, separated by spaces.")]
_ADD = [HumanMessage("Use the tool to add 17 and 25.")]
_SAMPLES = 4


def add(first: int, second: int) -> int:
    """Add two whole numbers."""
    return first + second


def diagnose(*, edge: Model | str, cloud: Model | str) -> Diagnosis:
    """Ask both models some ten short questions and say what works.

    Parameters
    ----------
    edge, cloud : chat model, bound chat model, or name for `init_chat_model`

    Returns
    -------
    Diagnosis
        A notebook shows it as a table; `to_dict()` is JSON; `policy` is what to start with.

    Notes
    -----
    Costs about ten calls of a few tokens a model. Nothing is set on the models: copies are asked. A failure of a
    model is a finding, not an error.

    Examples
    --------
    >>> from langchain_confroute.testing import ScriptedChat
    >>> found = diagnose(edge=ScriptedChat.of("4", logprob=-0.01), cloud=ScriptedChat.of("4"))
    >>> found.ok, found.works("edge", "logprobs"), found.works("edge", "sampling")
    (True, True, False)
    """
    tiers = {
        "edge": TierModel("edge", resolved(edge, "edge")),
        "cloud": TierModel("cloud", resolved(cloud, "cloud")),
    }
    checks = {name: _examined(tier) for name, tier in tiers.items()}
    return Diagnosis(
        models={name: tier.model_name for name, tier in tiers.items()},
        checks=checks,
        signals=_signals(checks["edge"], inside=isinstance(tiers["edge"].chat, ChatLocal)),
    )


def _examined(tier: TierModel) -> tuple[Check, ...]:
    start = time.perf_counter()
    try:
        answer = tier.draft().invoke(_SUM)
    except ConfrouteError as error:
        return (Check(name="answers", ok=False, detail=str(error)),)
    except Exception as error:  # noqa: BLE001  whatever a provider raises is the finding
        return (Check(name="answers", ok=False, detail=_told(error)),)
    seconds = time.perf_counter() - start
    first = Check(
        name="answers",
        ok=bool(answer.text.strip()),
        detail=f"{answer.text.strip()[:40]!r} in {seconds:.2f} s, the first call",
    )
    return (
        first,
        _logprobs(tier, answer),
        _usage(answer),
        *(_tried(name, check, tier) for name, check in _TRIALS.items()),
        _window(tier),
        _price(tier),
    )


def _tried(name: str, check: Callable[[TierModel], tuple[bool, str]], tier: TierModel) -> Check:
    try:
        ok, detail = check(tier)
    except Exception as error:  # noqa: BLE001  whatever a provider raises is the finding
        ok, detail = False, _told(error)
    return Check(name=name, ok=ok, detail=detail)


def _told(error: Exception) -> str:
    """The error in a line, and the next step where it is known."""
    said = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
    if step := next_step(error):
        return f"{text}; {step}"
    if isinstance(error, NotImplementedError):
        return f"{text}; this model has no such method"
    return text


def _logprobs(tier: TierModel, answer: AIMessage) -> Check:
    usage = answer.usage_metadata
    try:
        found = checked_logprobs(
            extract_token_logprobs(answer), output_tokens=usage["output_tokens"] if usage else None
        )
    except BadLogprobsError as error:
        return Check(name="logprobs", ok=False, detail=f"returned, but unusable: {error}")
    if found is None:
        asked = "asked for" if tier.asks_logprobs else "not asked for, since this class has no such setting"
        return Check(
            name="logprobs", ok=False, detail=f"none returned ({asked}): use signals that draw samples"
        )
    return Check(name="logprobs", ok=True, detail=counted(len(found), "token"))


def _usage(answer: AIMessage) -> Check:
    usage = answer.usage_metadata
    if not usage:
        return Check(name="usage", ok=False, detail="no token counts: costs of this model cannot be counted")
    return Check(name="usage", ok=True, detail=f"{usage['input_tokens']} in, {usage['output_tokens']} out")


def _sampling(tier: TierModel) -> tuple[bool, str]:
    answers = [message.text.strip() for message in tier.sampler(1.0).batch([_NAME] * _SAMPLES)]
    distinct = len(set(answers))
    if distinct > 1:
        return True, f"{distinct} different answers of {_SAMPLES} at temperature 1"
    cache = (
        " LangChain's global cache is set, though samples go round it;" if get_llm_cache() is not None else ""
    )
    return False, (
        f"{_SAMPLES} samples at temperature 1 are all the same:{cache} a caching proxy, a fixed seed or an ignored "
        "temperature makes every answer look consistent"
    )


def _streaming(tier: TierModel) -> tuple[bool, str]:
    chunks = [chunk for chunk in tier.final.stream(_COUNT) if chunk.text]
    return len(chunks) > 1, counted(len(chunks), "chunk") + (
        "" if len(chunks) > 1 else ": the answer comes in one piece"
    )


def _tools(tier: TierModel) -> tuple[bool, str]:
    bound: Any = tier.source
    calls = bound.bind_tools([add]).invoke(_ADD).tool_calls
    if not calls:
        return (
            False,
            "bound, but not called when asked to: tool calls of this model would come from the other",
        )
    return calls[0]["name"] == "add", f"called {calls[0]['name']} with {sorted(calls[0]['args'])}"


def _structured(tier: TierModel) -> tuple[bool, str]:
    schema = {
        "title": "Sum",
        "description": "A sum.",
        "type": "object",
        "properties": {"value": {"type": "integer"}},
        "required": ["value"],
    }
    source: Any = tier.source
    value = source.with_structured_output(schema).invoke(_SUM)
    ok = isinstance(value, dict) and isinstance(value.get("value"), int)
    return ok, "a value of the schema" if ok else "no value of the schema came back"


def _window(tier: TierModel) -> Check:
    window = tier.facts(_SUM, ()).context_window
    if window is None:
        return Check(
            name="context",
            ok=None,
            detail="not said: a prompt that is too long is noticed only when it fails",
        )
    return Check(name="context", ok=True, detail=counted(window, "token"))


def _price(tier: TierModel) -> Check:
    if isinstance(tier.chat, ChatLocal):
        return Check(name="price", ok=True, detail="runs in this process: nothing a token")
    give = "give Price(input_usd=..., output_usd=...), or --edge-price and --cloud-price"
    try:
        price = Price.listed(tier.model_name)
    except (MissingExtraError, PolicyError) as error:
        return Check(name="price", ok=None, detail=f"not known ({error}); {give}")
    return Check(
        name="price",
        ok=True,
        detail=f"{price.input_usd:g} in, {price.output_usd:g} out: USD for a million tokens, by the price list",
    )


_TRIALS: dict[str, Callable[[TierModel], tuple[bool, str]]] = {
    "sampling": _sampling,
    "streaming": _streaming,
    "tools": _tools,
    "structured output": _structured,
}


def _signals(checks: tuple[Check, ...], *, inside: bool) -> dict[str, str]:
    by_name = {check.name: check for check in checks}
    if not by_name["answers"].ok:
        return {}
    needs = {
        "token_logprob": ("logprobs", "the edge returns no log-probabilities"),
        "self_consistency": ("sampling", "the edge's samples do not differ"),
        "semantic_entropy": ("sampling", "the edge's samples do not differ"),
    }
    found = {name: "possible" if by_name[need].ok else why for name, (need, why) in needs.items()}
    found["mc_dropout"] = "possible" if inside else "the edge's weights are not in this process"
    return found
