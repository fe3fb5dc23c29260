"""One call in OpenAI's chat format: what the policy sees of it, what each model is asked for, what answers have to be.

Whatever the caller set reaches the model or the call is refused: a model that takes no tools would answer a question that was not
asked. `confroute.hosts.text_host` refuses for one model, and a policy passes such a tier over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from confroute.asks import HelpTool
from confroute.errors import RequestError
from confroute.hosts.options import NO_OPTIONS, PREFIX, CallOptions, labels_of, read_options, refuse_several
from confroute.hosts.tool_calls import (
    OfferedTool,
    ToolCall,
    Verdict,
    asking_for_help,
    canonical_text,
    check_tool_calls,
    misfit,
    with_verdict,
)
from confroute.models.chat_format import ChatRequest, text_of
from confroute.models.provider_answers import is_role, role_of
from confroute.reading import (
    fields,
    items,
    number,
    optional_fields,
    optional_text,
    refused,
    refusing,
    text,
    whole,
)
from confroute.text_extraction import read
from confroute.types import JSON, TIERS, Generation, Message, Reading

# What this layer reads itself; everything else is for models that take the request as it is.
_READ = frozenset(
    {
        *(
            "messages",
            "model",
            "stream",
            "stream_options",
            "n",
            "temperature",
            "max_tokens",
            "max_completion_tokens",
            "stop",
        ),
        *("logprobs", "top_logprobs", "metadata"),
    }
)
# Fields that do not change what is asked for, so that a model which does not know them answers the same question.
_ABOUT_THE_CALLER = frozenset(
    {
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "store",
        "seed",
        "parallel_tool_calls",
        "metadata",
    }
)
_NEUTRAL: Mapping[str, JSON] = {
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "tool_choice": "auto",
}
_FREE_CHOICES = (None, "auto", "none")
_TOP_LOGPROBS = 20
_WORDLESS = ("tool_calls", "function_call", "audio", "refusal")
HEADER_PREFIX = "x-confroute-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """One call of a router.

    Attributes
    ----------
    messages : tuple of Message
        The conversation as policies read it.
    options : CallOptions
    temperature : float or None
        At least 0; None, here and below, for the model's own.
    max_tokens : int or None
        The longest answer, at least 1.
    seed : int or None
    stop : tuple of str
        The answer ends before the first of these.
    logprobs : bool
        Whether the caller gets log-probabilities.
    top_logprobs : int
        Alternatives per token that the caller gets, 0 to 20.
    tools : mapping of str to OfferedTool
        Functions that the answer may call.
    named : frozenset of str
        Names of all tools that are sent, of any kind, for rules.
    must_call, parallel : bool
        Whether an answer without a tool call is useless, and whether one may hold several.
    schema : mapping or None
        JSON schema of the value that the answer has to be; empty for any JSON object.
    attachments : bool
        Whether something in the conversation is not text.
    needs : tuple of str
        What a model must take beside text, in words.
    sent : ChatRequest or None
        The call in OpenAI's format, where it came in it.
    """

    messages: tuple[Message, ...] = field(default=(), repr=False)
    options: CallOptions = field(default=NO_OPTIONS, repr=False)
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    logprobs: bool = False
    top_logprobs: int = 0
    tools: Mapping[str, OfferedTool] = field(default_factory=dict, repr=False)
    named: frozenset[str] = frozenset()
    must_call: bool = False
    parallel: bool = True
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    attachments: bool = False
    needs: tuple[str, ...] = ()
    sent: ChatRequest | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        """Whether only the complete answer can be judged."""
        return bool(self.tools) or self.schema is not None

    @property
    def reading(self) -> Reading:
        """Everything that is sent, for rules that search texts."""
        return Reading() if self.sent is None else read(self.sent.messages, self.sent.fields, self.stop)

    @property
    def extra(self) -> str:
        """What is sent beside the messages and takes its share of the window."""
        shapes = (
            {}
            if self.sent is None
            else {name: self.sent.fields.get(name) for name in ("tools", "response_format")}
        )
        return "".join(json.dumps(shape, ensure_ascii=False) for shape in shapes.values() if shape)

    def lacking(self, takes: frozenset[str]) -> str | None:
        """What this call needs of a model that takes these and nothing else beside text; None where that is nothing.

        Examples
        --------
        >>> ChatCall(needs=("tool calls",), stop=(".",)).lacking(frozenset({"stop"}))
        'tool calls'
        """
        needs = (
            *(() if "chat" in takes else self.needs),
            *(("stop strings",) if self.stop and "stop" not in takes else ()),
        )
        return " and ".join(needs) or None

    def judged(self, answer: Generation, helped: HelpTool | None = None) -> Generation:
        """An answer with what is wrong with its tool calls or its value, where it has to be more than text; `helped` was offered too."""
        if not self.whole:
            return answer
        if helped is not None and any(call.name == helped.name for call in _calls_in(answer)):
            return asking_for_help(answer)
        verdict = self._of_calls(answer)
        if verdict.answer is None and verdict.flaw is None and self.schema is not None:
            verdict = _of_value(answer.text, self.schema)
        return with_verdict(answer, verdict)

    @staticmethod
    def with_wordless_answer(answer: Generation) -> Generation:
        """An answer without words as one that can be told from no answer: calls of tools of any kind, audio or a refusal."""
        if answer.text.strip() or answer.answer is not None or not isinstance(answer.raw, Mapping):
            return answer
        held = [one for name in _WORDLESS if (one := answer.raw.get(name))]
        return replace(answer, answer=canonical_text(held)) if held else answer

    def _of_calls(self, answer: Generation) -> Verdict:
        return check_tool_calls(
            _calls_in(answer), self.tools, parallel=self.parallel, required=self.must_call
        )


def read_chat(
    body: Mapping[str, Any], *, around: CallOptions = NO_OPTIONS, tiers: Sequence[str] = TIERS
) -> ChatCall:
    """Read a request of OpenAI's chat format.

    Options of the router stand in it, or in its `metadata`, as `confroute_route`, `confroute_threshold` and so on. Whatever else stands
    in `metadata` is a label for rules too: {"private": "true"} is "private=true".

    Parameters
    ----------
    body : mapping
        The JSON of the request; `model`, `stream` and `stream_options` are the caller's own business.
    around : CallOptions
        Set around the request; those in it go before them.
    tiers : sequence of str
        Routes that exist beside "auto".

    Raises
    ------
    RequestError
        Something is not as the format has it, an option is misspelt, or several answers are wanted.

    Examples
    --------
    >>> call = read_chat(
    ...     {
    ...         "messages": [{"role": "user", "content": "2 + 2?"}],
    ...         "temperature": 0.5,
    ...         "confroute_route": "edge",
    ...     }
    ... )
    >>> call.messages[0].text, call.temperature, call.options.route, call.needs
    ('2 + 2?', 0.5, 'edge', ())
    """
    given = {name: value for name, value in body.items() if value is not None}
    refuse_several(given, "the request")
    _refuse_misspelt(given)
    with refusing(RequestError):
        turns = [
            fields(turn, f"messages[{at}]")
            for at, turn in enumerate(items(given.get("messages"), "messages"))
        ]
        metadata = fields(given.get("metadata", {}), "metadata")
        rest = {name: value for name, value in metadata.items() if not name.startswith(PREFIX)}
        call = ChatCall(
            messages=tuple(_message(turn, f"messages[{at}]") for at, turn in enumerate(turns)),
            options=read_options(
                options_of_texts(given), place="the request", prefix=PREFIX, tiers=tiers, read_document=_pair
            )
            .over(
                read_options(
                    options_of_texts(metadata),
                    place="metadata",
                    prefix=PREFIX,
                    tiers=tiers,
                    read_document=_pair,
                )
            )
            .over(around)
            .over(CallOptions(tags=labels_of(rest))),
            attachments=any(map(_has_attachment, turns)),
            **_settings(given),
            **_shape(given),
        )
    extra = {
        name: value for name, value in given.items() if name not in _READ and not name.startswith(PREFIX)
    }
    extra |= {"metadata": rest} if rest else {}
    return replace(call, needs=_needs(call, turns, extra), sent=ChatRequest(messages=turns, fields=extra))


def _refuse_misspelt(given: Mapping[str, Any]) -> None:
    """Refuse what is meant for the router and would go on to a model, while the policy's own setting stayed in force."""
    places = {"the request": given, **{name: one for name, one in given.items() if isinstance(one, Mapping)}}
    for place, inside in places.items():
        prefix = PREFIX if place in ("the request", "metadata") else None
        for name in inside:
            ours = name.casefold().replace("-", "_").removeprefix("x_").startswith(PREFIX.removesuffix("_"))
            if ours and (prefix is None or not name.startswith(prefix)):
                msg = f"{name!r} in {place} is not an option: expected {PREFIX}route, {PREFIX}tags and so on, next to the messages or in metadata"
                raise RequestError(msg)


def options_in_headers(headers: Mapping[str, str], *, tiers: Sequence[str] = TIERS) -> CallOptions:
    """Options of one call as HTTP headers: `x-confroute-route` and so on; no other header may begin so.

    Raises
    ------
    RequestError

    Examples
    --------
    >>> options_in_headers(
    ...     {"accept": "*/*", "x-confroute-route": "edge", "x-confroute-tags": "math, hard"}
    ... ).route
    'edge'
    """
    options, seen = NO_OPTIONS, set[str]()
    for header, value in headers.items():
        # Some clients and proxies write the one for the other.
        name = header.lower().replace("_", "-")
        if not name.startswith((HEADER_PREFIX, HEADER_PREFIX.removeprefix("x-"))):
            continue
        if not name.startswith(HEADER_PREFIX):
            msg = f"the header {header} is not an option: expected {HEADER_PREFIX}{name.removeprefix(HEADER_PREFIX[2:])}"
            raise RequestError(msg)
        key = name.removeprefix(HEADER_PREFIX).replace("-", "_")
        if key in seen and key != "tags":
            msg = f"the header {header} appears twice: expected it once"
            raise RequestError(msg)
        seen.add(key)
        # Each by itself, as a proxy may have added one: tags add up.
        given = options_of_texts({f"{PREFIX}{key}": value})
        own = {name.removeprefix(PREFIX): one for name, one in given.items()}
        options = read_options(own, place=f"the headers {HEADER_PREFIX}...", tiers=tiers).over(options)
    return options


def options_of_texts(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options whose values may be texts, as headers and OpenAI's `metadata` allow no others: numbers and lists as JSON, tags by commas too.

    Raises
    ------
    RequestError
        A text that is no JSON.

    Examples
    --------
    >>> options_of_texts({"confroute_threshold": "0.2", "confroute_tags": "math, hard", "user": "7"})
    {'confroute_threshold': 0.2, 'confroute_tags': ['math', 'hard']}
    """
    options = {name: value for name, value in given.items() if name.startswith(PREFIX)}
    for name, value in options.items():
        key = name.removeprefix(PREFIX)
        if not isinstance(value, str) or key not in {"threshold", "tags", "context"}:
            continue
        if key == "tags" and not value.lstrip().startswith("["):
            options[name] = [tag for part in value.split(",") if (tag := part.strip())]
            continue
        try:
            options[name] = json.loads(value)
        except ValueError as error:
            msg = f"{name} is not JSON ({error}): expected {'a number or an object of numbers' if key == 'threshold' else 'JSON'}"
            raise RequestError(msg) from error
    return options


def _pair(document: object) -> tuple[str, float | None] | None:
    """A text and its score; JSON has no tuples."""
    if not isinstance(document, list) or len(document) != 2 or not isinstance(document[0], str):
        return None
    return document[0], number(document[1], "the score of a document")


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """What every model is told of how the answer is wanted."""
    # Both are read where the answer is written, when it is paid.
    _flag(given.get("stream"), "stream")
    optional_fields(given.get("stream_options"), "stream_options")
    limit = given.get("max_completion_tokens", given.get("max_tokens"))
    stop = given.get("stop", [])
    alternatives = whole(given.get("top_logprobs", 0), "top_logprobs")
    if alternatives > _TOP_LOGPROBS:
        msg = f"top_logprobs is {alternatives}: expected at most {_TOP_LOGPROBS}"
        raise RequestError(msg)
    return {
        "temperature": number(given["temperature"], "temperature", low=0.0)
        if "temperature" in given
        else None,
        "max_tokens": None if limit is None else whole(limit, "max_tokens", low=1),
        "seed": whole(given["seed"], "seed", low=-(2**63)) if "seed" in given else None,
        "stop": tuple(
            text(one, "stop") for one in ([stop] if isinstance(stop, str) else items(stop, "stop"))
        ),
        "logprobs": _flag(given.get("logprobs"), "logprobs"),
        "top_logprobs": alternatives,
    }


def _flag(value: JSON, where: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise refused(where, value, "true or false")


def _shape(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer has to be, where that is more than text."""
    choice = given.get("tool_choice")
    forms = [fields(tool, "tools") for tool in items(given.get("tools", []), "tools")]
    functions = [
        fields(form.get("function"), "tools.function")
        for form in forms
        if form.get("type") == "function" and choice != "none"
    ]
    form = fields(given.get("response_format", {}), "response_format")
    schema: Any = None
    if form.get("type") == "json_schema":
        schema = fields(
            fields(form.get("json_schema"), "response_format.json_schema").get("schema", {}),
            "response_format",
        )
    elif form.get("type") == "json_object":
        schema = {}
    named = [
        OfferedTool(name=text(one.get("name"), "tools.function.name"), schema=one.get("parameters"))
        for one in functions
    ]
    return {
        "tools": {tool.name: tool for tool in named},
        "named": _names([*forms, *items(given.get("functions", []), "functions")]),
        "must_call": bool(named) and choice not in _FREE_CHOICES,
        "parallel": given.get("parallel_tool_calls") is not False,
        "schema": schema,
    }


def _names(forms: Sequence[Any]) -> frozenset[str]:
    """Names of tools: each stands in the form itself or under its kind."""
    inside = [one for form in forms if isinstance(form, dict) for one in (form, *form.values())]
    names = [one.get("name") for one in inside if isinstance(one, dict)]
    return frozenset(name for name in names if isinstance(name, str))


def _needs(call: ChatCall, turns: Sequence[Mapping[str, Any]], extra: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model has to take that knows only texts, lengths and temperatures."""
    needs = []
    others = [tool for tool in extra.get("tools", ()) if tool.get("type") != "function"]
    if call.tools or others or any(turn.get("tool_calls") for turn in turns):
        needs.append("tool calls")
    if call.schema is not None:
        needs.append("a response format")
    if call.attachments:
        needs.append("images and files")
    known = {
        *_ABOUT_THE_CALLER,
        "tools",
        "response_format",
        *(("tool_choice",) if not call.must_call else ()),
    }
    needs += [
        f"the setting {name!r}"
        for name, value in extra.items()
        if name not in known and _NEUTRAL.get(name) != value
    ]
    return tuple(needs)


def _message(turn: Mapping[str, Any], where: str) -> Message:
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or not is_role(role):
        msg = f"{where}.role is {role!r}: expected system, developer, user, assistant or tool"
        raise RequestError(msg)
    if not (content is None or isinstance(content, (str, list))):
        msg = f"{where}.content is a {type(content).__name__}: expected a text or a list of parts"
        raise RequestError(msg)
    beside = {name: value for name, value in turn.items() if name not in {"role", "content"}}
    if isinstance(content, list):
        for at, part in enumerate(content):
            optional_text(part.get("text") if isinstance(part, dict) else None, f"{where}.content[{at}].text")
        beside["content"] = content
    return Message(
        role=role_of(role), text=text_of(content), beside="\n".join(read(beside).texts) if beside else ""
    )


def _has_attachment(turn: Mapping[str, Any]) -> bool:
    content = turn.get("content")
    parts = content if isinstance(content, list) else ()
    return any(not isinstance(part, Mapping) or part.get("type") not in {"text", "refusal"} for part in parts)


def _calls_in(answer: Generation) -> list[ToolCall]:
    made = answer.raw.get("tool_calls") if isinstance(answer.raw, Mapping) else None
    return [_tool_call(call.get("function") or {}) for call in made or ()]


def _tool_call(function: Mapping[str, Any]) -> ToolCall:
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = None
    return ToolCall(
        name=str(function.get("name")), arguments=arguments if isinstance(arguments, dict) else None
    )


def _of_value(written: str, schema: Mapping[str, Any]) -> Verdict:
    """Whether a text is JSON of this schema."""
    try:
        value = json.loads(written)
    except ValueError:
        return Verdict(flaw="the answer is not JSON")
    wrong = (
        misfit(schema, value, where="the value")
        if schema or isinstance(value, dict)
        else "the value is not an object"
    )
    return Verdict(
        answer=canonical_text(value),
        flaw=wrong and f"the answer does not fit its schema: {wrong}",
        schemas=(schema,),
    )
