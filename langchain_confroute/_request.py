"""What a policy is told of one call: the conversation, the caller's wishes, facts about both models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec

from confroute.errors import PolicyError, RequestError
from confroute.flow import Policy
from confroute.policy.files import refuse_path
from confroute.types import Message, Request
from langchain_confroute._context import CONTEXT, found, told
from langchain_confroute._messages import kinds_of, to_core
from langchain_confroute._tiers import TierModel

ROUTE = "confroute_route"
THRESHOLD = "confroute_threshold"
TIERS = ("edge", "cloud")
_KNOWN = (ROUTE, THRESHOLD, CONTEXT)


def config_specs() -> list[ConfigurableFieldSpec]:
    """What a call may override through `config["configurable"]`."""
    return [
        ConfigurableFieldSpec(
            id=ROUTE,
            annotation=str,
            name="Route",
            description="Tier of this call: 'edge', 'cloud', or 'auto' to let the policy decide.",
            default="auto",
        ),
        ConfigurableFieldSpec(
            id=THRESHOLD,
            annotation=object,
            name="Threshold",
            description="Threshold of this call: a number, or numbers by signal; None for the policy's own.",
            default=None,
        ),
        ConfigurableFieldSpec(
            id=CONTEXT,
            annotation=object,
            name="Context",
            description="What was retrieved: {'question': str, 'documents': [...]}, for signals that look at it.",
            default=None,
        ),
    ]


def build(
    messages: Sequence[BaseMessage],
    tiers: Mapping[str, TierModel],
    config: RunnableConfig,
    *,
    tags: Sequence[str] | None = None,
    tools: bool = False,
    tool_names: frozenset[str] = frozenset(),
    beside: str = "",
    whole: bool = False,
) -> Request:
    """The request of one call of a chat model.

    Raises
    ------
    RequestError
        A route that is none, a threshold that is no number, or a context that cannot be read.
    """
    kinds = kinds_of(messages)
    needs = ("tools", *kinds) if tools else kinds
    facts = overrides(config)
    if facts.get("context") is None:
        facts["context"] = found(messages)
    return Request(
        messages=to_core(messages),
        tiers={name: tier.facts(messages, needs) for name, tier in tiers.items()},
        tags=tags_of(config, tags),
        tools=tool_names,
        beside=beside,
        attachments=bool(kinds),
        whole=whole,
        **facts,
    )


def build_plain(messages: tuple[Message, ...], config: RunnableConfig, **facts: Any) -> Request:
    """The request of one call of a chain, whose models are not known."""
    return Request(messages=messages, tags=tags_of(config, None), **overrides(config), **facts)


def check_tiers(policy: Policy) -> None:
    """Refuse a policy for other tiers than edge and cloud.

    Raises
    ------
    PolicyError
    """
    refuse_path(policy)
    named = getattr(policy, "tiers", TIERS)
    if set(named) != set(TIERS):
        msg = f"the policy's tiers are {named}: expected {TIERS}, the two of this router"
        raise PolicyError(msg)


def overrides(config: RunnableConfig) -> dict[str, Any]:
    """Route, threshold, question and context that the caller gave for this call."""
    given = config.get("configurable")
    if not given:
        return {}
    unknown = [name for name in given if str(name).startswith("confroute_") and name not in _KNOWN]
    if unknown:
        msg = f"{', '.join(unknown)} in config['configurable']: expected one of {', '.join(_KNOWN)}"
        raise RequestError(msg)
    route, threshold = given.get(ROUTE), given.get(THRESHOLD)
    if route not in {None, "auto", *TIERS}:
        msg = f"{ROUTE} is {route!r}: expected 'edge', 'cloud' or 'auto'"
        raise RequestError(msg)
    if not (threshold is None or _is_number(threshold) or _are_numbers(threshold)):
        msg = f"{THRESHOLD} is {threshold!r}: expected a number, or a dictionary of numbers by signal"
        raise RequestError(msg)
    return {"route": None if route == "auto" else route, "threshold": threshold, **told(given.get(CONTEXT))}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_numbers(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_number(number) for number in value.values())


def tags_of(config: RunnableConfig, own: Iterable[str] | None) -> frozenset[str]:
    """The call's tags, the model's own, and the metadata: `{"private": True}` as "private", `{"user": "a"}` as "user=a"."""
    labels = {*(config.get("tags") or ()), *(own or ())}
    for name, value in (config.get("metadata") or {}).items():
        if value is True:
            labels.add(name)
        elif isinstance(value, (str, int)) and value is not False:
            labels.add(f"{name}={value}")
    return frozenset(labels)
