"""From what a host knows of its models, and what its caller set, to the request that a policy sees."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from confroute.display import logger
from confroute.errors import PolicyError
from confroute.flow import Policy
from confroute.hosts.model import ModelFacts
from confroute.hosts.options import NO_OPTIONS, CallOptions
from confroute.models.resilience import Limits
from confroute.policy.files import refuse_path
from confroute.types import TIERS, Context, Message, Request, Tier

_log = logger()
# Of text without a tokenizer: a token is about 4 bytes of English, 3 of code and of Chinese.
_BYTES_PER_TOKEN = 3.5
# Role names and separators of chat templates.
_TOKENS_PER_MESSAGE = 6


def estimated_tokens(messages: Sequence[Message], *, extra: str = "") -> int:
    """Estimate how many tokens a prompt takes, from its length alone: a tokenizer may have to be downloaded.

    Parameters
    ----------
    messages : sequence of Message
    extra : str
        What is sent beside them and takes its share of the window: tools' definitions, a schema.

    Examples
    --------
    >>> estimated_tokens([Message(role="user", text="What is the capital of France?")])
    15
    """
    size = 0
    for text in [extra, *[message.text for message in messages]]:
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return round(size / _BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE * len(messages)


def with_one_retry_layer(limits: Limits, facts: ModelFacts, tier: str) -> Limits:
    """The limits of a model's calls: one attempt where its client retries by itself and the user did not say otherwise.

    Says once per process what it does: a client that makes three attempts, three times over, makes nine requests of one call.
    """
    if not facts.retries or limits.attempts == 1:
        return limits
    if limits.attempts is None:
        _say(logging.INFO, tier, facts.model, "confroute makes one attempt")
        return replace(limits, attempts=1)
    _say(
        logging.WARNING,
        tier,
        facts.model,
        f"each of the {limits.attempts} attempts of its limits repeats them all",
    )
    return limits


@cache
def _say(level: int, tier: str, model: str, consequence: str) -> None:
    _log.log(
        level,
        "the client of %s (%s) retries failed calls by itself: %s; set max_retries=0 on the model to leave retries, time limits "
        "and their counts to confroute",
        *(tier, model, consequence),
    )


def own_retries(model: object) -> bool:
    """Whether a framework's model repeats failed calls by itself, as most do unless `max_retries` is 0.

    Examples
    --------
    >>> own_retries(object())
    False
    """
    return "max_retries" in getattr(type(model), "model_fields", {}) and getattr(model, "max_retries", 0) != 0


def prompt_window(facts: ModelFacts, max_tokens: object = None) -> int | None:
    """Tokens that a prompt may take once those of the answer are set aside: an answer that is cut off is not an answer.

    Parameters
    ----------
    facts : ModelFacts
    max_tokens : object
        The longest answer as this call sets it; the model's own setting holds where that is not a positive number.

    Returns
    -------
    int or None
        None if the window is unknown; the whole window if the answer would leave nothing of it.

    Examples
    --------
    >>> facts = ModelFacts(model="small", context_window=4096, max_output=512)
    >>> prompt_window(facts), prompt_window(facts, 96)
    (3584, 4000)
    """
    if facts.context_window is None:
        return None
    answer = facts.max_output or 0
    if isinstance(max_tokens, int) and not isinstance(max_tokens, bool) and max_tokens > 0:
        answer = max_tokens
    return facts.context_window - answer if 0 < answer < facts.context_window else facts.context_window


def advertised_window(models: Mapping[str, ModelFacts]) -> int | None:
    """Return the context window that a router's callers may rely on: that of the last tier, or None if it is unknown.

    A prompt that an earlier tier cannot hold is the last one's, and whatever is drafted earlier may be escalated to it.

    Examples
    --------
    >>> edge, cloud = (ModelFacts(model="m", context_window=window) for window in (8192, 4096))
    >>> advertised_window({"edge": edge, "cloud": cloud})
    4096
    """
    return list(models.values())[-1].context_window


def check_policy(policy: object, tiers: Collection[str] = TIERS) -> None:
    """Refuse what cannot decide between the tiers of a router, named cheapest first.

    Raises
    ------
    PolicyError
        The path of a file, an object without a `flow` method, or a policy for other tiers, or for these in another order.

    Examples
    --------
    >>> check_policy(len)
    Traceback (most recent call last):
    ...
    confroute.errors.PolicyError: policy is a builtin_function_or_method: expected Cascade(...) or an object with a flow(request) method
    """
    refuse_path(policy)
    if not isinstance(policy, Policy):
        msg = f"policy is a {type(policy).__name__}: expected Cascade(...) or an object with a flow(request) method"
        raise PolicyError(msg)
    names, expected = tuple(getattr(policy, "tiers", tiers)), tuple(tiers)
    if names != expected:
        given, wanted = (f"{', '.join(all_of[:-1])} and {all_of[-1]}" for all_of in (names, expected))
        msg = f"the policy's tiers are {given}: expected {wanted}, those of this router, cheapest first"
        raise PolicyError(msg)


def request_of(
    messages: tuple[Message, ...],
    models: Mapping[str, ModelFacts],
    options: CallOptions = NO_OPTIONS,
    *,
    extra: str = "",
    max_tokens: object = None,
    counts: Mapping[str, int] | None = None,
    lacks: Mapping[str, str] | None = None,
    tags: frozenset[str] = frozenset(),
    question: str | None = None,
    context: Context | None = None,
    purpose: str | None = None,
    **facts: Any,
) -> Request:
    """Build the request of one call.

    Parameters
    ----------
    messages : tuple of Message
        The conversation.
    models : mapping of str to ModelFacts
        By tier, cheapest first.
    options : CallOptions
        What the caller set; it wins over what the host found out itself.
    extra : str
        What is sent beside the messages and counts as prompt.
    max_tokens : object
        The longest answer as this call sets it, if it does.
    counts : mapping of str to int, optional
        Exact tokens of the prompt, for the tiers where the host can count them.
    lacks : mapping of str to str, optional
        What this call needs and a tier cannot do, by tier.
    tags, question, context, purpose
        What the host found out itself.
    **facts
        Further fields of `Request`.
    """
    tokens, tiers = estimated_tokens(messages, extra=extra), {}
    for name, one in models.items():
        tiers[name] = Tier(
            name=name,
            model=one.model,
            context_window=None if one.context_window is None else prompt_window(one, max_tokens),
            input_tokens=counts.get(name, tokens) if counts else tokens,
            lacks=lacks.get(name) if lacks else None,
            can_sample=one.can_sample,
        )
    return Request(
        messages=messages,
        tiers=tiers,
        route=options.forced,
        threshold=options.threshold,
        tags=options.tags | tags,
        question=question if options.question is None else options.question,
        context=context if options.context is None else options.context,
        purpose=purpose if options.purpose is None else options.purpose,
        question_id=options.question_id,
        **facts,
    )
