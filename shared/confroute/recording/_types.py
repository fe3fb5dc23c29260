"""What one line of a recorded run holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from confroute.recording import _fields as read
from confroute.types import JSON, Alternatives, Finish, Generation, Usage

TOP_LOGPROBS = "top_logprobs"
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def _comparable(answer: JSON) -> str | None:
    """A recorded answer in the form that `confroute.signals.answers` gives numbers and options."""
    if answer is None or isinstance(answer, str):
        return answer
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return f"{float(answer):.12g}"
    return json.dumps(answer, sort_keys=True)


def _finish(extra: Mapping[str, JSON]) -> Finish:
    return _FINISHES.get(str(extra.get("finish")), "unknown")


def alternatives_of(recorded: JSON, where: str = TOP_LOGPROBS) -> tuple[Alternatives, ...] | None:
    """The likeliest tokens at each place, as a row holds them beside the named fields: None where it does not.

    Raises
    ------
    RecordError
        Something else than a list, a token, of lists of [token, log-probability].

    Examples
    --------
    >>> alternatives_of([[["A", -0.1], ["B", -2.5]]])
    ((('A', -0.1), ('B', -2.5)),)
    """
    if recorded is None:
        return None
    return tuple(
        tuple(_alternative(one, f"{where}[{at}]") for one in read.items(top, f"{where}[{at}]"))
        for at, top in enumerate(read.items(recorded, where))
    )


def _alternative(value: JSON, where: str) -> tuple[str, float]:
    pair = read.items(value, where)
    if len(pair) != 2:
        raise read.refused(where, value, "[token, log-probability]")
    return read.text(pair[0], where), read.number(pair[1], where)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSample:
    """One further answer of the edge.

    Attributes
    ----------
    text : str
    logprobs : tuple of float or None
        Natural logarithms, one a generated token.
    answer : JSON
        The final answer inside the text, where the recorder extracted it.
    extra : mapping
        Fields that the format does not name ("finish").

    Examples
    --------
    >>> RecordedSample(text="So 7.", answer=7.0).generation().answer
    '7'
    """

    text: str
    logprobs: tuple[float, ...] | None = None
    answer: JSON = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    def generation(self, *, model: str | None = None) -> Generation:
        """The sample as signals read it."""
        return Generation(
            text=self.text,
            logprobs=self.logprobs,
            top_logprobs=alternatives_of(self.extra.get(TOP_LOGPROBS)),
            finish=_finish(self.extra),
            model=model,
            answer=_comparable(self.answer),
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        logprobs: JSON = None if self.logprobs is None else [*self.logprobs]
        return {"text": self.text, "logprobs": logprobs, "answer": self.answer, **self.extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one model did with one prompt.

    Attributes
    ----------
    model : str or None
    text : str or None
        None where only the grade was recorded, or the call failed.
    logprobs : tuple of float or None
        Natural logarithms, one a generated token.
    tokens : tuple of str or None
    answer : JSON
        The final answer inside the text.
    quality : float in [0, 1] or None
        Graded against the reference or by a judge; higher is better, None where ungraded.
    usage : mapping or None
        "input_tokens" and "output_tokens", and whatever else the provider counts.
    latency_s, cost_usd : float or None
        Seconds of wall time; US dollars.
    samples : tuple of RecordedSample
        Further answers; the edge's only.
    error : str or None
        Why there is no answer.
    extra : mapping
        Fields that the format does not name ("options", "finish", "temperature", and "top_logprobs": for each token
        a list of [token, log-probability], the likeliest first).

    Examples
    --------
    >>> Side(model="m", text="B", logprobs=(-0.5,), quality=1.0).generation().logprobs
    (-0.5,)
    """

    model: str | None = None
    text: str | None = None
    logprobs: tuple[float, ...] | None = None
    tokens: tuple[str, ...] | None = None
    answer: JSON = None
    quality: float | None = None
    usage: Mapping[str, JSON] | None = None
    latency_s: float | None = None
    cost_usd: float | None = None
    samples: tuple[RecordedSample, ...] = ()
    error: str | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    def generation(self) -> Generation | None:
        """The draft as signals read it; None where no text was recorded."""
        if self.text is None:
            return None
        return Generation(
            text=self.text,
            logprobs=self.logprobs,
            tokens=self.tokens,
            top_logprobs=alternatives_of(self.extra.get(TOP_LOGPROBS)),
            usage=billed(self.usage),
            finish=_finish(self.extra),
            model=self.model,
            latency_s=self.latency_s or 0.0,
            answer=_comparable(self.answer),
        )

    def further(self) -> tuple[Generation, ...]:
        """The samples as signals read them, in the order they were drawn."""
        return tuple(sample.generation(model=self.model) for sample in self.samples)

    def to_dict(self, *, samples: bool = True) -> dict[str, JSON]:
        """JSON form; without `samples` for a cloud, which has none."""
        drawn: list[JSON] = [sample.to_dict() for sample in self.samples]
        return {
            "model": self.model,
            "text": self.text,
            "logprobs": None if self.logprobs is None else [*self.logprobs],
            "tokens": None if self.tokens is None else [*self.tokens],
            "answer": self.answer,
            "quality": self.quality,
            "usage": None if self.usage is None else dict(self.usage),
            "latency_s": self.latency_s,
            "cost_usd": self.cost_usd,
            **({"samples": drawn} if samples or drawn else {}),
            "error": self.error,
            **self.extra,
        }


def billed(counted: Mapping[str, JSON] | None) -> Usage | None:
    """Recorded usage as tokens; None where the generated ones were not counted."""
    if counted is None:
        return None
    sent, made = (read.optional_number(counted.get(key), key) for key in ("input_tokens", "output_tokens"))
    return Usage(input_tokens=int(sent or 0), output_tokens=int(made or 0)) if made is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt of a recorded run.

    Attributes
    ----------
    id, dataset : str
    prompt : str or None
        The prompt, where it was one text.
    messages : tuple of mapping or None
        The conversation, where it was one, as recorded.
    reference : JSON
        The right answer, if one is known.
    edge : Side
    cloud : Side or None
    signals : mapping of str to float or None
        Uncertainty by signal; higher is less reliable. None where it could not be measured.
    extra : mapping
        Fields that the format does not name.
    """

    id: str
    dataset: str = ""
    prompt: str | None = None
    messages: tuple[Mapping[str, JSON], ...] | None = None
    reference: JSON = None
    edge: Side
    cloud: Side | None = None
    signals: Mapping[str, float | None] = field(default_factory=dict)
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What was asked: the prompt, else the last user message, else the empty text."""
        if self.prompt is not None:
            return self.prompt
        for message in reversed(self.messages or ()):
            said = message.get("content", message.get("text"))
            if message.get("role") == "user" and isinstance(said, str):
                return said
        return ""

    def to_dict(self) -> dict[str, JSON]:
        """JSON form, in the format's order."""
        return {
            "id": self.id,
            "dataset": self.dataset,
            "prompt": self.prompt,
            "messages": None if self.messages is None else [dict(message) for message in self.messages],
            "reference": self.reference,
            "edge": self.edge.to_dict(),
            "cloud": None if self.cloud is None else self.cloud.to_dict(samples=False),
            "signals": dict(self.signals),
            **self.extra,
        }
