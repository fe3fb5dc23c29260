"""What a call's config tells a router: the caller's options and the labels that rules read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec

from confroute.errors import RequestError
from confroute.hosts.options import NO_OPTIONS, PREFIX, CallOptions, read_options
from langchain_confroute.messages import read_document

_OPTIONS: dict[str, tuple[Any, str, Any]] = {
    "route": (str, "Tier of this call: {tiers}, or 'auto' to let the policy decide.", "auto"),
    "threshold": (
        object,
        "Threshold of this call: a number, or numbers by signal, also by tier; None for the policy's own.",
        None,
    ),
    "context": (
        object,
        "What was retrieved: {{'question': str, 'documents': [...]}}, for signals that look at it.",
        None,
    ),
    "tags": (object, "Labels of this call that rules may read, beside the config's own tags.", None),
    "purpose": (object, "What this call is for: 'text_qa', 'refine', 'summary', 'condense'.", None),
    "question_id": (object, "Your own name of the question, which its decision keeps; not its text.", None),
}


def config_specs(tiers: Iterable[str]) -> list[ConfigurableFieldSpec]:
    """What a call of a router of these tiers may override through `config["configurable"]`."""
    names = ", ".join(map(repr, tiers))
    return [
        ConfigurableFieldSpec(
            id=f"{PREFIX}{name}",
            annotation=kind,
            name=name.title(),
            description=description.format(tiers=names),
            default=default,
        )
        for name, (kind, description, default) in _OPTIONS.items()
    ]


def options_of(config: RunnableConfig, tiers: Iterable[str]) -> CallOptions:
    """Read what the caller set for this call of a router of these tiers.

    Raises
    ------
    RequestError
        A misspelt name, a route that does not exist, a threshold that is not a number, a context that cannot be read.
    """
    given = config.get("configurable")
    if not given:
        return NO_OPTIONS
    return read_options(
        given,
        place="config['configurable']",
        prefix=PREFIX,
        tiers=tuple(tiers),
        read_document=read_document,
    )


def refuse_misplaced(kwargs: Mapping[str, Any]) -> None:
    """Refuse options given as arguments: bound tools and structured output would lose them.

    Raises
    ------
    RequestError
    """
    misplaced = sorted(name for name in kwargs if name.startswith(PREFIX))
    if misplaced:
        msg = (
            f"{', '.join(misplaced)}: give it in the config, as {{'configurable': {{{misplaced[0]!r}: ...}}}}"
        )
        raise RequestError(msg)


def tags_of(config: RunnableConfig, own: Iterable[str] = ()) -> frozenset[str]:
    """The call's tags, the router's own, and the metadata: `{"private": True}` as "private", `{"user": "a"}` as "user=a".

    What is neither a text nor a number stands there by the name of its type, so that a rule can refuse it.
    """
    labels = {*(config.get("tags") or ()), *own}
    for name, value in (config.get("metadata") or {}).items():
        if value is True:
            labels.add(name)
        elif value is not None and value is not False:
            labels.add(f"{name}={_label(value)}")
    return frozenset(labels)


def _label(value: object) -> str:
    if isinstance(value, (str, int, float)):
        return str(value)
    # NumPy's scalars are no Python numbers.
    return str(value) if getattr(value, "shape", None) == () else f"<{type(value).__name__}>"
