"""What a caller may set for one call, read in one way in every host.

A host passes on what its callers gave (keyword arguments, LangChain's `config["configurable"]`, LlamaIndex's
`instrument_tags`) and gets `CallOptions`. A misspelt name must not leave the policy's own setting in force, so every name that
is not known here is refused with those that are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, TypeAlias

from confroute.errors import RequestError
from confroute.types import TIERS, Context, Thresholds

PREFIX = "confroute_"
KEYS = ("route", "threshold", "tags", "purpose", "context", "question_id")
AUTO = "auto"
# What providers call the number of answers to one call.
SEVERAL = ("n", "best_of", "candidate_count")
# Text and score of one of the host's own document objects; None for any other object.
DocumentReader: TypeAlias = Callable[[object], "tuple[str, float | None] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What the caller set for one call; None wherever nothing was set.

    Attributes
    ----------
    route : str or None
        A tier, or "auto" to let the policy decide although something around the call names a tier.
    threshold : float or mapping, or None
        See `confroute.types.Request`.
    tags : frozenset of str
        Labels that rules may read.
    purpose : str or None
        What the call is for.
    question : str or None
        The question without retrieved text.
    context : Context or None
        What was retrieved for it.
    question_id : str or None
        The caller's own name of the question, for its decisions.
    """

    route: str | None = None
    threshold: Thresholds | None = None
    tags: frozenset[str] = frozenset()
    purpose: str | None = None
    question: str | None = field(default=None, repr=False)
    context: Context | None = field(default=None, repr=False)
    question_id: str | None = None

    @property
    def forced(self) -> str | None:
        """The tier that has to answer; None where the policy decides."""
        return None if self.route == AUTO else self.route

    def over(self, around: CallOptions) -> CallOptions:
        """These options, completed by those set around the call; tags add up, so that none that a rule needs is lost.

        Examples
        --------
        >>> around = CallOptions(route="cloud", tags=frozenset({"private"}))
        >>> call = CallOptions(route="auto", tags=frozenset({"hard"})).over(around)
        >>> call.route, call.forced, sorted(call.tags)
        ('auto', None, ['hard', 'private'])
        """
        if around is NO_OPTIONS:
            return self
        names = ("route", "threshold", "purpose", "question", "context", "question_id")
        missing = {name: getattr(around, name) for name in names if getattr(self, name) is None}
        return replace(self, tags=self.tags | around.tags, **missing)


NO_OPTIONS = CallOptions()


def read_options(
    given: object,
    *,
    place: str,
    prefix: str = "",
    tiers: Sequence[str] = TIERS,
    read_document: DocumentReader | None = None,
) -> CallOptions:
    """Read the options of one call.

    Parameters
    ----------
    given : mapping or None
        Values by option name.
    place : str
        Where the caller gave them, for error messages.
    prefix : str
        What the names of options begin with; other names are then somebody else's. Empty if all names are options.
    tiers : sequence of str
        Routes that exist beside "auto".
    read_document : callable, optional
        Reads the host's own document objects.

    Raises
    ------
    RequestError
        An unknown name, or a value of a wrong type.

    Examples
    --------
    >>> read_options({"confroute_route": "edge", "thread_id": 7}, place="config", prefix="confroute_").route
    'edge'
    >>> read_options({"rout": "edge"}, place="the tag 'confroute'")
    Traceback (most recent call last):
    ...
    confroute.errors.RequestError: the tag 'confroute' has rout: expected some of route, threshold, tags, purpose, context, question_id
    """
    if given is None:
        return NO_OPTIONS
    if not isinstance(given, Mapping):
        msg = f"{place} is a {type(given).__name__}: expected a dictionary with some of {_names(prefix)}"
        raise RequestError(msg)
    options = (
        {name[len(prefix) :]: value for name, value in given.items() if str(name).startswith(prefix)}
        if prefix
        else given
    )
    if not options:
        return NO_OPTIONS
    unknown = [f"{prefix}{name}" for name in options if name not in KEYS]
    if unknown:
        msg = f"{place} has {', '.join(unknown)}: expected some of {_names(prefix)}"
        raise RequestError(msg)
    where = {key: f"{prefix}{key} in {place}" for key in options}
    return CallOptions(
        route=_route(options.get("route"), where, tiers),
        threshold=_threshold(options.get("threshold"), where),
        tags=_tags(options.get("tags"), where),
        purpose=_text(options.get("purpose"), where.get("purpose")),
        question_id=_text(options.get("question_id"), where.get("question_id")),
        **_context(options.get("context"), where, read_document),
    )


def _names(prefix: str) -> str:
    return ", ".join(f"{prefix}{key}" for key in KEYS)


def labels_of(metadata: Mapping[str, Any]) -> frozenset[str]:
    """Metadata as labels that rules read; what is neither a text nor a number by the name of its type, so that a rule can refuse it.

    Examples
    --------
    >>> sorted(labels_of({"private": True, "user": "a", "cached": False}))
    ['private', 'user=a']
    """
    given = {name: value for name, value in metadata.items() if value is not None and value is not False}
    return frozenset(name if value is True else f"{name}={_label(value)}" for name, value in given.items())


def _label(value: object) -> str:
    if isinstance(value, (str, int, float)):
        return str(value)
    # NumPy's scalars are no Python numbers.
    return str(value) if getattr(value, "shape", None) == () else f"<{type(value).__name__}>"


def split_options(
    kwargs: Mapping[str, Any],
    *,
    place: str = "the call",
    tiers: Sequence[str] = TIERS,
    read_document: DocumentReader | None = None,
) -> tuple[CallOptions, dict[str, Any]]:
    """Read the `confroute_*` keyword arguments of a call, and return the others too: those are the model's.

    Examples
    --------
    >>> options, rest = split_options({"confroute_threshold": 0.1, "stop": ["."]})
    >>> options.threshold, rest
    (0.1, {'stop': ['.']})
    """
    options = read_options(kwargs, place=place, prefix=PREFIX, tiers=tiers, read_document=read_document)
    if options is NO_OPTIONS:
        return options, dict(kwargs)
    return options, {name: value for name, value in kwargs.items() if not name.startswith(PREFIX)}


def read_documents(documents: object, *, place: str, read_document: DocumentReader | None = None) -> Context:
    """Read retrieved documents: texts, the host's own objects, or pairs of one of these and its score.

    Raises
    ------
    RequestError
        Not a list, or something in it that is none of these.

    Examples
    --------
    >>> read_documents([("Paris is in France.", 0.8), ("So is Lyon.", 0.6)], place="context").scores
    (0.8, 0.6)
    """
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        msg = f"{place}: documents is a {type(documents).__name__}: expected a list"
        raise RequestError(msg)
    pairs = [_document(one, place, read_document) for one in documents]
    scores = tuple(score for _, score in pairs if score is not None)
    return Context(
        passages=tuple(text for text, _ in pairs),
        scores=scores if pairs and len(scores) == len(pairs) else None,
    )


def refuse_several(settings: Mapping[str, Any], place: str) -> None:
    """Refuse settings that would draw several answers of each call: one is returned, and all would be paid.

    Raises
    ------
    RequestError

    Examples
    --------
    >>> refuse_several({"n": 1}, "the call")
    """
    passed_on = settings.get("extra_body")
    if isinstance(passed_on, Mapping):
        refuse_several(passed_on, place)
    for name in SEVERAL:
        value = settings.get(name)
        if value not in (None, 1):
            msg = (
                f"{place}: {name} is {value!r}, and a router returns one answer: leave it out; for several answers, make several calls or "
                "call a model directly"
            )
            raise RequestError(msg)


def _route(value: object, where: Mapping[str, str], tiers: Sequence[str]) -> str | None:
    if value is None or (isinstance(value, str) and value in (*tiers, AUTO)):
        return value
    msg = f"{where['route']} is {value!r}: expected one of {', '.join((*tiers, AUTO))}"
    raise RequestError(msg)


def _threshold(value: Any, where: Mapping[str, str]) -> Thresholds | None:
    if value is None:
        return None
    if _is_number(value):
        return float(value)
    if isinstance(value, Mapping):
        numbers = {name: _numbers_by_signal(one) for name, one in value.items() if isinstance(name, str)}
        if len(numbers) == len(value) and None not in numbers.values():
            return {name: one for name, one in numbers.items() if one is not None}
    msg = (
        f"{where['threshold']} is {value!r}: expected a number, a dictionary of numbers by signal, or a dictionary of "
        "either by tier"
    )
    raise RequestError(msg)


def _numbers_by_signal(value: Any) -> float | dict[str, float] | None:
    """A number, or numbers by signal; None for anything else."""
    if _is_number(value):
        return float(value)
    if isinstance(value, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in value.items()):
        return {name: float(number) for name, number in value.items()}
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _tags(value: Any, where: Mapping[str, str]) -> frozenset[str]:
    if value is None:
        return frozenset()
    listed: Collection[Any] | None = value if _is_list(value) else None
    if listed is None or not all(isinstance(tag, str) for tag in listed):
        msg = f"{where['tags']} is a {type(value).__name__}: expected a list of strings"
        raise RequestError(msg)
    return frozenset(listed)


def _is_list(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))


def _text(value: object, where: str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    msg = f"{where} is a {type(value).__name__}: expected a string"
    raise RequestError(msg)


def _context(value: object, where: Mapping[str, str], read_document: DocumentReader | None) -> dict[str, Any]:
    if value is None:
        return {}
    place = where["context"]
    if not isinstance(value, Mapping) or not set(value) <= {"question", "documents"}:
        # Names only: the values are the caller's texts.
        kind = (
            f"has {', '.join(map(str, value))}"
            if isinstance(value, Mapping)
            else f"is a {type(value).__name__}"
        )
        msg = f"{place} {kind}: expected {{'question': str, 'documents': [...]}}"
        raise RequestError(msg)
    documents = value.get("documents")
    return {
        "question": _text(value.get("question"), f"{place}: question"),
        "context": None
        if documents is None
        else read_documents(documents, place=place, read_document=read_document),
    }


def _document(one: object, place: str, read_document: DocumentReader | None) -> tuple[str, float | None]:
    document, score = one, None
    if isinstance(one, tuple) and len(one) == 2 and (one[1] is None or _is_number(one[1])):
        document, score = one[0], None if one[1] is None else float(one[1])
    if isinstance(document, str):
        return document, score
    known = None if read_document is None else read_document(document)
    if known is None:
        msg = (
            f"{place}: a document is a {type(document).__name__}: expected a text or a document of the framework, "
            "or a pair of one and its score"
        )
        raise RequestError(msg)
    text, own = known
    return text, own if score is None else score
