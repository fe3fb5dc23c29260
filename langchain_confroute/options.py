"""What a call's config tells a router: the caller's options and the labels that rules read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from typing_extensions import TypedDict

from confroute.errors import RequestError
from confroute.hosts.options import NO_OPTIONS, PREFIX, CallOptions, labels_of, read_options
from langchain_confroute import compat
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


class RoutingContext(TypedDict, total=False):
    """What a LangGraph run may tell its routers through `Runtime.context`; each as in `config["configurable"]`, which counts first.

    Give it as ``context_schema``, or a `TypedDict` of your own that derives from it. A dataclass or pydantic class with fields of
    these names is read too; None is nothing.

    Attributes
    ----------
    confroute_route : str
        "edge", "cloud" or "auto".
    confroute_threshold : float or mapping of str to float
        A number for a policy of one signal, else numbers by signal.
    confroute_context : mapping
        What was retrieved: {"question": str, "documents": [...]}.
    confroute_tags : collection of str
        Labels for rules; those of the config are added.
    confroute_purpose, confroute_question_id : str

    Examples
    --------
    >>> class MyContext(RoutingContext):
    ...     user_id: str
    >>> MyContext(user_id="ada", confroute_route="edge")
    {'user_id': 'ada', 'confroute_route': 'edge'}
    """

    confroute_route: str | None
    confroute_threshold: float | Mapping[str, float] | None
    confroute_context: Mapping[str, Any] | None
    confroute_tags: Collection[str] | None
    confroute_purpose: str | None
    confroute_question_id: str | None


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
    """Read what the caller set for this call of a router of these tiers: in the config, and before that in a LangGraph run's context.

    Raises
    ------
    RequestError
        A misspelt name, a route that does not exist, a threshold that is not a number, a context that cannot be read.
    """
    given = config.get("configurable")
    if not given:
        return NO_OPTIONS
    read = partial(read_options, prefix=PREFIX, tiers=tuple(tiers), read_document=read_document)
    options = read(given, place="config['configurable']")
    context = compat.runtime_context(given)
    if context is None:
        return options
    fields = context if isinstance(context, Mapping) else _fields_of(context)
    return options.over(read(fields, place="the run's context"))


def _fields_of(context: object) -> dict[str, Any]:
    """The fields of a dataclass or of a pydantic object."""
    names: Iterable[str] = getattr(context, "__dataclass_fields__", ()) or getattr(
        type(context), "model_fields", ()
    )
    return {name: getattr(context, name) for name in names}


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
    """The call's tags, the router's own, and the labels of its metadata."""
    return frozenset((*(config.get("tags") or ()), *own)) | labels_of(config.get("metadata") or {})
