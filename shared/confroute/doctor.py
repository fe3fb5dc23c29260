"""Find out what an edge and a cloud can do by asking both models; see `diagnose`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from confroute.asks import Draft, Evidence
from confroute.clock import now, timing
from confroute.errors import BadLogprobsError, ConfrouteError, MissingExtraError, PolicyError
from confroute.hosts.chat import ChatCall
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.text_host import TextHost, facts_of
from confroute.models.breaker import status_of
from confroute.models.local import LocalModel, LocalTextModel
from confroute.models.openai import REFUSED_STATUSES, OpenAIModel, ServedWindow, served_window
from confroute.models.resolution import resolve
from confroute.models.text_model import Piece, Settings, StreamingTextModel, TextModel
from confroute.policy import Cascade
from confroute.policy.cascade import default_gates
from confroute.policy.files import to_json
from confroute.prices import Price
from confroute.remediation import next_step
from confroute.types import JSON, Generation, Message, checked_logprobs, only_zeros
from confroute.views.html import counted, fragment, table

# Returns whether an ability works (None if that could not be found out), and what was seen.
Trial: TypeAlias = "Callable[[], tuple[bool | None, str]]"
# Takes a tier and one of its checks.
Seen: TypeAlias = "Callable[[str, Check], object]"
_MARKS = {True: "yes", False: "no", None: "unknown"}
QUESTION = "What is 2 + 2? Reply with the number only."
TOOL_QUESTION = "Use the tool to add 17 and 25."
# The schema of a structured answer to `QUESTION`.
SCHEMA: dict[str, JSON] = {
    "title": "Sum",
    "description": "A sum.",
    "type": "object",
    "properties": {"value": {"type": "integer"}},
    "required": ["value"],
}
_SUM, _NAME, _COUNT, _ADD = (
    (Message(role="user", text=text),)
    for text in (
        QUESTION,
        "Invent a name for a robot. Reply with the name only.",
        "Count from 1 to 8, separated by spaces.",
        TOOL_QUESTION,
    )
)
_SAMPLES = 4
# Small models go on and on. One that reasons first takes some of them.
_MOST_TOKENS = 128
_ADD_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two whole numbers.",
        "parameters": {
            "type": "object",
            "properties": {"first": {"type": "integer"}, "second": {"type": "integer"}},
            "required": ["first", "second"],
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Says whether one ability of one model works.

    Attributes
    ----------
    name : str
    ok : bool or None
        Whether it works; None if that could not be found out.
    detail : str
        What was seen and, if it does not work, what to do.
    """

    name: str
    ok: bool | None
    detail: str

    def row(self, owner: str) -> tuple[str, str, str, str]:
        """The row of a table: whose check it is, its name, whether it works ("yes", "no" or "unknown"), and what was seen."""
        return owner, self.name, _MARKS[self.ok], self.detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Says what an edge and a cloud can do, and which policy to start with.

    Attributes
    ----------
    models : mapping of str to str
        Name of each tier's model.
    checks : mapping of str to tuple of Check
        Checks by tier.
    signals : mapping of str to str
        "possible", or why not, for each signal on this edge.
    """

    models: Mapping[str, str]
    checks: Mapping[str, tuple[Check, ...]]
    signals: Mapping[str, str]

    def works(self, tier: str, name: str) -> bool | None:
        """Tell whether the ability `name` of `tier` works; None if that is not known."""
        return next((check.ok for check in self.checks[tier] if check.name == name), None)

    @property
    def ok(self) -> bool:
        """Whether both models answer and the edge can be measured at all."""
        answers = all(self.works(tier, "answers") for tier in self.checks)
        return answers and self.policy is not None

    @property
    def policy(self) -> Cascade | None:
        """The uncalibrated cascade of those default gates that can be measured; None if none can."""
        gates = tuple(gate for gate in default_gates() if self.signals.get(gate.signal.name) == "possible")
        return Cascade(gates=gates) if gates else None

    def to_dict(self) -> dict[str, JSON]:
        """Return the diagnosis in JSON form."""
        tiers: dict[str, JSON] = {
            tier: {
                "model": self.models[tier],
                "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
            }
            for tier, checks in self.checks.items()
        }
        policy = None if self.policy is None else json.loads(to_json(self.policy))
        return {"ok": self.ok, "tiers": tiers, "signals": dict(self.signals), "policy": policy}

    def rows(self) -> Iterable[tuple[str, str, str, str]]:
        """Yield the rows of a table: tier, check, whether it works, and detail."""
        for tier, checks in self.checks.items():
            for check in checks:
                yield check.row(tier)
        for check in self.possible:
            yield check.row("signal")

    @property
    def possible(self) -> tuple[Check, ...]:
        """Which signals are possible, as checks."""
        return tuple(
            Check(name=name, ok=state == "possible", detail="" if state == "possible" else state)
            for name, state in self.signals.items()
        )

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return fragment([table(("", "", "works", ""), self.rows())], label="diagnosis of two models")


def diagnose(*, edge: object, cloud: object, seen: Seen | None = None) -> Diagnosis:
    """Ask both models some ten short questions and say what works.

    Parameters
    ----------
    edge, cloud : str or model
        Anything that `confroute.models.resolution.resolve` takes.
    seen : callable, optional
        Called with the tier and each of its checks as soon as it is made.

    Returns
    -------
    Diagnosis
        A notebook shows it as a table; `to_dict()` is its JSON form; `policy` is the policy to start with.

    Notes
    -----
    Costs about a dozen calls of a few tokens per model. Nothing is set on the models. A model that fails is reported, not raised.

    Examples
    --------
    >>> from confroute.testing import Reply, ScriptedModel
    >>> diagnosis = diagnose(edge=ScriptedModel([Reply(text="4", logprob=-0.01)]), cloud=ScriptedModel(["4"]))
    >>> diagnosis.ok, diagnosis.works("edge", "logprobs"), diagnosis.works("edge", "sampling")
    (True, True, False)
    """
    models = {"edge": resolve(edge), "cloud": resolve(cloud)}
    checks = {tier: _seen(tier, _checks_of(tier, model), seen) for tier, model in models.items()}
    return Diagnosis(
        models={tier: model.name for tier, model in models.items()},
        checks=checks,
        signals=_signals(checks["edge"], inside=getattr(models["edge"], "loaded", None) is not None),
    )


def _seen(tier: str, checks: Iterable[Check], seen: Seen | None) -> tuple[Check, ...]:
    made = []
    for check in checks:
        made.append(check)
        if seen is not None:
            seen(tier, check)
    return tuple(made)


def _checks_of(tier: str, model: TextModel) -> Iterator[Check]:
    """Make one check after the other; nothing more is asked of a model that does not answer."""
    try:
        with timing():
            start = now()
            answer = _draft(model)
            seconds = now() - start
    except Exception as error:  # noqa: BLE001  whatever a provider raises is the result
        detail = str(error) if isinstance(error, ConfrouteError) else _describe(error)
        yield Check(name="answers", ok=False, detail=detail)
        return
    text = answer.text.strip()
    yield Check(name="answers", ok=bool(text), detail=f"{text[:40]!r} in {seconds:.2f} s, the first call")
    yield _logprobs(answer)
    yield _usage(answer)
    own_trials: Callable[[], Mapping[str, Trial]] = getattr(model, "trials", dict)
    for name, trial in {**_trials(model), **own_trials()}.items():
        yield _run_trial(name, trial)
    yield _run_trial("context", lambda: _window(model))
    yield _price(tier, model)


def _draft(model: TextModel) -> Generation:
    """Ask for an answer with log-probabilities, or without them if the model refuses them."""
    host = TextHost(model, ChatCall(messages=_SUM), facts_of(model))
    answers = Dispatcher(models={"edge": host}, fallback=LogprobFallback()).call(Draft(tier="edge"))
    assert not isinstance(answers, Evidence), "a Draft brings answers"
    return answers[0]


def _run_trial(name: str, trial: Trial) -> Check:
    try:
        ok, detail = trial()
    except Exception as error:  # noqa: BLE001  whatever a provider raises is the result
        ok, detail = False, _describe(error)
    return Check(name=name, ok=ok, detail=detail)


def _describe(error: Exception) -> str:
    """Describe an error in one line, with the next step if it is known."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    if step := next_step(error):
        return f"{text}; {step}"
    if isinstance(error, NotImplementedError):
        return f"{text}; this model has no such method"
    return text


def _logprobs(answer: Generation) -> Check:
    output_tokens = answer.usage.output_tokens if answer.usage else None
    try:
        logprobs = checked_logprobs(answer.logprobs, output_tokens=output_tokens)
    except BadLogprobsError as error:
        return Check(name="logprobs", ok=False, detail=f"returned, but unusable: {error}")
    if logprobs is None:
        return Check(name="logprobs", ok=False, detail="none returned: use signals that draw samples")
    if only_zeros(logprobs):
        detail = f"all {len(logprobs)} are exactly 0, so none was computed: use signals that draw samples"
        return Check(name="logprobs", ok=False, detail=detail)
    if not any(logprobs):
        detail = (
            f"{counted(len(logprobs), 'token')}, exactly 0: see with a longer answer whether any is computed"
        )
        return Check(name="logprobs", ok=True, detail=detail)
    return Check(name="logprobs", ok=True, detail=counted(len(logprobs), "token"))


def _usage(answer: Generation) -> Check:
    if answer.usage is None:
        return Check(name="usage", ok=False, detail="no token counts: costs of this model cannot be counted")
    detail = f"{answer.usage.input_tokens} in, {answer.usage.output_tokens} out"
    return Check(name="usage", ok=True, detail=detail)


def _trials(model: TextModel) -> dict[str, Trial]:
    """The trials of every model; a model's own replace those of the same name."""
    pieces = functools.cache(lambda: _pieces(model))
    trials: dict[str, Trial] = {
        "sampling": lambda: sampled([one.text for one in _samples(model)]),
        "streaming": lambda: streamed(sum(bool(piece.text) for piece in pieces())),
        "usage in streams": lambda: _usage_streamed(pieces()),
    }
    if isinstance(model, OpenAIModel):
        return {
            "several at once": lambda: _openai_several(model),
            **trials,
            "tools": lambda: _openai_tools(model),
            "structured output": lambda: _openai_structured(model),
        }
    text_only: tuple[bool | None, str] = (None, "not tried: this model is asked for text only")
    if isinstance(model, LocalTextModel):
        text_only = (False, "a model in this process is sent text only")
    return {**trials, "tools": lambda: text_only, "structured output": lambda: text_only}


def _samples(model: TextModel) -> tuple[Generation, ...]:
    return model.generate(_NAME, n=_SAMPLES, temperature=1.0, logprobs=False, max_tokens=_MOST_TOKENS)


def sampled(texts: Iterable[str], *, hint: str = "") -> tuple[bool, str]:
    """Tell whether samples at temperature 1 differ, and if not, why that may be."""
    answers = [text.strip() for text in texts]
    distinct = len(set(answers))
    if distinct > 1:
        return True, f"{distinct} different answers of {len(answers)} at temperature 1"
    return False, (
        f"{len(answers)} samples at temperature 1 are all the same:{hint} a caching proxy, a fixed seed or an ignored "
        "temperature makes every answer look consistent"
    )


def _pieces(model: TextModel) -> tuple[Piece, ...]:
    """A streamed answer; of a model that does not stream the whole in one piece."""
    if isinstance(model, StreamingTextModel):
        return tuple(model.stream(_COUNT, logprobs=False, max_tokens=_MOST_TOKENS))
    return tuple(
        Piece(text=answer.text, usage=answer.usage)
        for answer in model.generate(_COUNT, logprobs=False, max_tokens=_MOST_TOKENS)
    )


def _usage_streamed(pieces: Iterable[Piece]) -> tuple[bool, str]:
    usage = next((piece.usage for piece in pieces if piece.usage is not None), None)
    if usage is None:
        return False, "no token counts: costs of streamed calls cannot be counted"
    return True, f"{usage.input_tokens} in, {usage.output_tokens} out"


def streamed(chunks: int) -> tuple[bool, str]:
    """Tell whether an answer comes in parts."""
    return chunks > 1, counted(chunks, "chunk") + ("" if chunks > 1 else ": the answer comes in one piece")


def called(name: str | None, arguments: Iterable[str]) -> tuple[bool, str]:
    """Tell whether the tool was called; `name` is None if none was."""
    if name is None:
        return False, "offered, and not called when asked to: it may answer in words where a call is due"
    return name == "add", f"called {name} with {sorted(arguments)}"


def filled(value: object) -> tuple[bool, str]:
    """Tell whether a structured answer fits `SCHEMA`."""
    ok = isinstance(value, dict) and isinstance(value.get("value"), int)
    return ok, "a value of the schema" if ok else "no value of the schema came back"


def _openai_tools(model: OpenAIModel) -> tuple[bool, str]:
    calls = (
        model.request(
            {**model.body(_ADD, Settings(logprobs=False, max_tokens=_MOST_TOKENS)), "tools": [_ADD_TOOL]}
        )
        .choices[0]
        .message.tool_calls
    )
    if not calls:
        return called(None, ())
    return called(calls[0].function.name, json.loads(calls[0].function.arguments))


def _openai_several(model: OpenAIModel) -> tuple[bool, str]:
    body = model.body(_NAME, Settings(logprobs=False, temperature=1.0, max_tokens=_MOST_TOKENS))
    try:
        came = len(model.request({**body, "n": _SAMPLES}).choices)
    except Exception as error:
        if status_of(error) not in REFUSED_STATUSES:
            raise
        return (
            False,
            f"{_SAMPLES} answers to one request are refused ({status_of(error)}): samples take a request each",
        )
    if came < _SAMPLES:
        return False, f"{came} of {_SAMPLES} answers to one request came: the rest is asked for again"
    return True, f"{came} answers to one request"


def _openai_structured(model: OpenAIModel) -> tuple[bool, str]:
    answer_format = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
    answer = (
        model.request(
            {
                **model.body(_SUM, Settings(logprobs=False, max_tokens=_MOST_TOKENS)),
                "response_format": answer_format,
            }
        )
        .choices[0]
        .message.content
    )
    try:
        return filled(json.loads(answer or ""))
    except ValueError:
        return filled(None)


def _window(model: TextModel) -> tuple[bool | None, str]:
    loaded: Callable[[], LocalModel] | None = getattr(model, "loaded", None)
    window = facts_of(model).context_window if loaded is None else loaded().context_window
    if window is not None:
        return True, counted(window, "token")
    served = _served_window(model)
    if served is None:
        return None, "not said: a prompt that is too long is noticed only when it fails"
    told = "" if served.is_limit else "trained on "
    give = f"OpenAIModel(context_window={served.tokens}) makes the router keep to it"
    return True, f"{told}{counted(served.tokens, 'token')}, says the server ({served.field}); {give}"


def _served_window(model: TextModel) -> ServedWindow | None:
    if not isinstance(model, OpenAIModel):
        return None
    try:
        return served_window(model)
    except Exception as error:
        # It answers: a server that does not list its models says nothing of them.
        if status_of(error) is None:
            raise
        return None


def _price(tier: str, model: TextModel) -> Check:
    if getattr(model, "loaded", None) is not None:
        return Check(name="price", ok=True, detail="runs in this process: tokens cost nothing")
    try:
        price = Price.listed(model.name)
    except (MissingExtraError, PolicyError) as error:
        detail = f"not known ({error}); `confroute fit` takes yours by --{tier}-price IN,OUT"
        return Check(name="price", ok=None, detail=detail)
    detail = f"{price.input_usd:g} in, {price.output_usd:g} out: USD per million tokens, by the price list"
    return Check(name="price", ok=True, detail=detail)


def _signals(checks: tuple[Check, ...], *, inside: bool) -> dict[str, str]:
    by_name = {check.name: check for check in checks}
    if not by_name["answers"].ok:
        return {}
    needs = {
        "token_logprob": ("logprobs", "the edge returns no log-probabilities that can be used"),
        "self_consistency": ("sampling", "the edge's samples do not differ"),
        "semantic_entropy": ("sampling", "the edge's samples do not differ"),
    }
    signals = {name: "possible" if by_name[need].ok else why for name, (need, why) in needs.items()}
    signals["mc_dropout"] = "possible" if inside else "the edge's weights are not in this process"
    return signals
