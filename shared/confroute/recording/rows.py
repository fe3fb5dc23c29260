"""Rows of a recorded run, and the files that hold them.

The format, one JSON object per line (unknown keys are kept, at any depth, and written back)::

    {"id": "...", "dataset": "...", "prompt": "..." | null, "messages": [...] | null, "reference": ... | null,
     "edge":  {"model": "...", "text": "...", "logprobs": [..] | null, "tokens": [..] | null, "answer": ... | null,
               "quality": 0..1 | null, "judged": 0..1 (a judge's grade beside it), "usage": {"input_tokens": n, "output_tokens": n} | null,
               "latency_s": x | null, "cost_usd": x | null,
               "samples": [{"text": "...", "logprobs": [..] | null, "answer": ... | null}], "error": "..." | null},
     "tiers": {TIER: {the same, with "signals" and "measured_by" of its own}, ...} (models between edge and cloud, cheapest first),
     "cloud": {the same, without samples} | null,
     "signals": {NAME: uncertainty}, "measured_by": {NAME: {"class": "...", ...}},
     "context": {"question": "..." | null, "passages": [".."], "scores": [..] | null, "existing_answer": "..." | null}}
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast, get_args

from confroute.errors import ConfrouteError, FormatError
from confroute.reading import (
    Fields,
    fields,
    items,
    json_lines,
    number,
    optional_fields,
    optional_number,
    optional_numbers,
    optional_text,
    optional_texts,
    refused,
    refusing,
    text,
    texts,
    unknown,
)
from confroute.signals.numbers import written
from confroute.types import JSON, TIERS, Alternatives, Context, Finish, Generation, Role, Usage
from confroute.writing import Appending, replacing


class RecordError(ConfrouteError, ValueError):
    """A recorded run cannot be read or written; the message names file, line and field."""


TOP_LOGPROBS = "top_logprobs"
KIND = "answer_kind"
"""The field of a row that says by which kind its answers were read."""
ASKED = "asked"
"""The field of a side that says by which name, and for answers of how many tokens, its model was asked; null where unknown."""
# No float tells more tokens apart.
_MAX_TOKENS = 2**53
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "tool": "tool",
}
"""What the roles of recorded messages stand for, by the names that providers and frameworks give them."""
_FINISHES: Mapping[str, Finish] = {name: name for name in get_args(Finish)}


def comparable(answer: JSON) -> str | None:
    """A recorded answer in the form that `confroute.signals.answers` gives numbers and options."""
    if answer is None or isinstance(answer, str):
        return answer
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return written(answer)
    return json.dumps(answer, sort_keys=True)


def _finish(extra: Mapping[str, JSON]) -> Finish:
    return _FINISHES.get(str(extra.get("finish")), "unknown")


def alternatives_of(recorded: JSON, where: str = TOP_LOGPROBS) -> tuple[Alternatives, ...] | None:
    """Read the likeliest tokens at each position from a row's extra fields; None if it has none.

    Raises
    ------
    RecordError
        Anything but one list of [token, log-probability] pairs per token.

    Examples
    --------
    >>> alternatives_of([[["A", -0.1], ["B", -2.5]]])
    ((('A', -0.1), ('B', -2.5)),)
    """
    # Most answers have none.
    if recorded is None:
        return None
    with refusing(RecordError):
        return _alternatives(recorded, where)


def _alternatives(recorded: JSON, where: str) -> tuple[Alternatives, ...] | None:
    if recorded is None:
        return None
    return tuple(
        tuple(
            _alternative(one, f"{where}[{at}][{rank}]")
            for rank, one in enumerate(items(top, f"{where}[{at}]"))
        )
        for at, top in enumerate(items(recorded, where))
    )


def _alternative(value: JSON, where: str) -> tuple[str, float]:
    pair = items(value, where)
    if len(pair) != 2:
        raise refused(where, value, "[token, log-probability]")
    return text(pair[0], where), number(pair[1], where)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSample:
    """One further answer of the edge.

    Attributes
    ----------
    text : str
    logprobs : tuple of float or None
        Natural logarithms, one per generated token.
    answer : JSON
        The final answer in the text, if the recorder extracted it.
    extra : mapping
        Fields that the format does not name ("finish").

    Examples
    --------
    >>> RecordedSample(text="So 7.", answer=7.0).generation().answer
    '7'
    """

    text: str = field(repr=False)
    logprobs: tuple[float, ...] | None = None
    answer: JSON = field(default=None, repr=False)
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    def generation(self, *, model: str | None = None) -> Generation:
        """The sample as signals read it."""
        return Generation(
            text=self.text,
            logprobs=self.logprobs,
            top_logprobs=alternatives_of(self.extra.get(TOP_LOGPROBS)),
            finish=_finish(self.extra),
            model=model,
            answer=comparable(self.answer),
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
        None if only the grade was recorded, or the call failed.
    logprobs : tuple of float or None
        Natural logarithms, one per generated token.
    tokens : tuple of str or None
    answer : JSON
        The final answer inside the text.
    quality : float in [0, 1] or None
        Graded against the reference or by a judge; higher is better, None if not graded.
    usage : mapping or None
        "input_tokens", "output_tokens" and whatever else the provider counts.
    latency_s, cost_usd : float or None
        Seconds of wall time; US dollars.
    samples : tuple of RecordedSample
        Further answers; of the edge only.
    error : str or None
        Why there is no answer, if there is none.
    extra : mapping
        Fields that the format does not name ("options", "finish", "temperature"; "asked": the model's own name and its
        longest answer, as {"model": ..., "max_tokens": ...}; "flaw": why the answer cannot be used; "result": what a pipeline
        made of it, where that is another text; and "top_logprobs": for each token a list of [token, log-probability], the
        likeliest first).

    Examples
    --------
    >>> Side(model="m", text="B", logprobs=(-0.5,), quality=1.0).generation().logprobs
    (-0.5,)
    """

    model: str | None = None
    text: str | None = field(default=None, repr=False)
    logprobs: tuple[float, ...] | None = None
    tokens: tuple[str, ...] | None = field(default=None, repr=False)
    answer: JSON = field(default=None, repr=False)
    quality: float | None = None
    judged: float | None = None
    usage: Mapping[str, JSON] | None = None
    latency_s: float | None = None
    cost_usd: float | None = None
    samples: tuple[RecordedSample, ...] = field(default=(), repr=False)
    error: str | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @property
    def finish(self) -> Finish:
        """Why generation ended; "unknown" where the run does not say."""
        return _finish(self.extra)

    @property
    def shown(self) -> str | None:
        """What the asker gets to read: the result of a pipeline where that is another text than the answer; None if not recorded."""
        result = self.extra.get("result")
        return result if isinstance(result, str) else self.text

    def generation(self) -> Generation | None:
        """The draft in the form that signals read; None if no text was recorded."""
        if self.text is None:
            return None
        flaw = self.extra.get("flaw")
        return Generation(
            text=self.text,
            logprobs=self.logprobs,
            tokens=self.tokens,
            top_logprobs=alternatives_of(self.extra.get(TOP_LOGPROBS)),
            usage=billed(self.usage),
            finish=self.finish,
            model=self.model,
            latency_s=self.latency_s or 0.0,
            answer=comparable(self.answer),
            flaw=flaw if isinstance(flaw, str) else None,
        )

    def further(self, drawn: int = 0, n: int | None = None) -> tuple[Generation, ...]:
        """The samples, or n of them behind the first `drawn`, in the form that signals read, in the order in which they were drawn."""
        end = None if n is None else drawn + n
        return tuple(sample.generation(model=self.model) for sample in self.samples[drawn:end])

    def to_dict(self, *, samples: bool = True) -> dict[str, JSON]:
        """JSON form; `samples=False` for a cloud, which has none."""
        drawn: list[JSON] = [sample.to_dict() for sample in self.samples]
        return {
            "model": self.model,
            "text": self.text,
            "logprobs": None if self.logprobs is None else [*self.logprobs],
            "tokens": None if self.tokens is None else [*self.tokens],
            "answer": self.answer,
            "quality": self.quality,
            **({} if self.judged is None else {"judged": self.judged}),
            "usage": None if self.usage is None else dict(self.usage),
            "latency_s": self.latency_s,
            "cost_usd": self.cost_usd,
            **({"samples": drawn} if samples or drawn else {}),
            "error": self.error,
            **self.extra,
        }


def billed(counted: Mapping[str, JSON] | None, where: str = "usage") -> Usage | None:
    """Convert recorded usage to tokens; None if the generated tokens were not counted."""
    if counted is None:
        return None
    counts = {
        name: optional_number(counted.get(name), f"{where}.{name}", low=0, high=_MAX_TOKENS)
        for name in Usage.__slots__
    }
    if counts["output_tokens"] is None:
        return None
    return Usage(**{name: int(count or 0) for name, count in counts.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """What a model between edge and cloud did with one prompt, and how its draft was measured.

    Attributes
    ----------
    side : Side
    signals, measured_by : mapping
        Of its own draft, as those that a `Row` has of the edge's.
    """

    side: Side
    signals: Mapping[str, float | None] = field(default_factory=dict)
    measured_by: Mapping[str, JSON] = field(default_factory=dict)

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        settings: dict[str, JSON] = {"measured_by": dict(self.measured_by)} if self.measured_by else {}
        return {**self.side.to_dict(), "signals": dict(self.signals), **settings}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt of a recorded run.

    Attributes
    ----------
    id, dataset : str
    prompt : str or None
        The prompt, if it was a single text.
    messages : tuple of mapping or None
        The conversation, if it was one.
    reference : JSON
        The right answer, if one is known.
    edge : Side
    tiers : mapping of str to Middle
        Models between edge and cloud by the names of their tiers, cheapest first; none in a run of two models.
    cloud : Side or None
    signals : mapping of str to float or None
        Uncertainty of the edge's draft by signal; higher is less reliable. None where it could not be measured.
    measured_by : mapping of str to JSON
        The signal with its settings, in the form of policy files, for columns whose name alone does not determine it: a
        fitted policy then measures the same on new calls.
    extra : mapping
        Fields that the format does not name ("context": see the attribute).
    """

    id: str
    dataset: str = ""
    prompt: str | None = field(default=None, repr=False)
    messages: tuple[Mapping[str, JSON], ...] | None = field(default=None, repr=False)
    reference: JSON = field(default=None, repr=False)
    edge: Side
    tiers: Mapping[str, Middle] = field(default_factory=dict)
    cloud: Side | None = None
    signals: Mapping[str, float | None] = field(default_factory=dict)
    measured_by: Mapping[str, JSON] = field(default_factory=dict)
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """The tiers of its models, cheapest first."""
        return (TIERS[0], *self.tiers, TIERS[1])

    def side(self, tier: str) -> Side | None:
        """What the model of a tier did; None for a cloud that was not recorded.

        Raises
        ------
        RecordError
            The row holds no such tier.
        """
        if tier in TIERS:
            return self.edge if tier == TIERS[0] else self.cloud
        return self._middle(tier).side

    def between(self, edge: str, cloud: str) -> Row:
        """The row of two of its models alone: one drafts and is measured, and the other answers what it does not.

        Parameters
        ----------
        edge, cloud : str
            Tiers; the first is not the last of the row.

        Raises
        ------
        RecordError
            The row holds no such tier.

        Examples
        --------
        >>> mid = Middle(side=Side(text="8", quality=0.0), signals={"mine": 0.4})
        >>> row = Row(id="a", edge=Side(text="7"), tiers={"mid": mid}, cloud=Side(text="9"))
        >>> pair = row.between("mid", "cloud")
        >>> row.models, pair.models, pair.edge.text, pair.signals
        (('edge', 'mid', 'cloud'), ('edge', 'cloud'), '8', {'mine': 0.4})
        """
        answers = self.side(cloud)
        if edge == TIERS[0]:
            return replace(self, tiers={}, cloud=answers)
        own = self._middle(edge)
        return replace(
            self,
            edge=own.side,
            tiers={},
            cloud=answers,
            signals=own.signals,
            measured_by=own.measured_by,
        )

    def _middle(self, tier: str) -> Middle:
        if tier not in self.tiers:
            msg = (
                f"row {self.id!r} holds no drafts of {tier!r}: expected one of {', '.join(self.models[:-1])}"
            )
            raise RecordError(msg)
        return self.tiers[tier]

    @property
    def context(self) -> Context | None:
        """What was retrieved for the question, if the prompt came with a context.

        Raises
        ------
        RecordError
            Passages that are not texts, or scores that are not one number each.
        """
        if self.extra.get("context") is None:
            return None
        with refusing(RecordError):
            return _context(self.extra["context"])

    @property
    def question(self) -> str:
        """The question: the one that came with a context, else the prompt, else the last user message, else ""."""
        context = self.extra.get("context")
        apart = context.get("question") if isinstance(context, dict) else None
        if isinstance(apart, str):
            return apart
        if self.prompt is not None:
            return self.prompt
        for message in reversed(self.messages or ()):
            is_user = ROLES.get(str(message.get("role"))) == "user"
            if is_user and (content := content_of(message)) is not None:
                return content
        return ""

    def to_dict(self) -> dict[str, JSON]:
        """JSON form, in the order of the format."""
        return {
            "id": self.id,
            "dataset": self.dataset,
            "prompt": self.prompt,
            "messages": None if self.messages is None else [dict(message) for message in self.messages],
            "reference": self.reference,
            "edge": self.edge.to_dict(),
            **({"tiers": {name: one.to_dict() for name, one in self.tiers.items()}} if self.tiers else {}),
            "cloud": None if self.cloud is None else self.cloud.to_dict(samples=False),
            "signals": dict(self.signals),
            **({"measured_by": dict(self.measured_by)} if self.measured_by else {}),
            **self.extra,
        }


__all__ = [
    "Middle",
    "RecordError",
    "RecordedSample",
    "Row",
    "Side",
    "append_row",
    "read_rows",
    "row_from_dict",
    "write_rows",
]

START = b'{"id"'
"""How every line of a run begins."""
_SAMPLE = ("text", "logprobs", "answer")
_SIDE = (
    *("model", "text", "logprobs", "tokens", "answer", "quality", "judged", "usage", "latency_s", "cost_usd"),
    *("samples", "error"),
)
_ROW = (
    *("id", "dataset", "prompt", "messages", "reference", "edge", "tiers", "cloud", "signals"),
    "measured_by",
)


@refusing(RecordError)
def row_from_dict(data: JSON) -> Row:
    """Read one row from its JSON form.

    Raises
    ------
    RecordError
        A field that is missing ("id", "edge") or not what the format says.

    Examples
    --------
    >>> row = row_from_dict({"id": "a", "edge": {"text": "7", "quality": 1.0}, "mine": [1]})
    >>> row.edge.quality, row.cloud, row.to_dict()["mine"]
    (1.0, None, [1])
    """
    return _row(data)


def _asked_edge(row: Fields) -> Fields:
    """The edge's side of a row; the commonest mistake is a file of prompts in a run's place."""
    edge = row.get("edge")
    if edge is None and (row.get("prompt") or row.get("messages")):
        raise refused(
            "edge",
            edge,
            "an object: this is a prompt without an answer; `confroute record` turns a file of prompts into a run",
        )
    return fields(edge, "edge")


def _row(data: JSON) -> Row:
    row = fields(data, "the row")
    cloud = optional_fields(row.get("cloud"), "cloud")
    messages = row.get("messages")
    _context(row.get("context"))
    return Row(
        id=_id(row.get("id")),
        dataset=optional_text(row.get("dataset"), "dataset") or "",
        prompt=optional_text(row.get("prompt"), "prompt"),
        messages=None if messages is None else tuple(_messages(messages)),
        reference=row.get("reference"),
        edge=_side(_asked_edge(row), "edge"),
        tiers=_middles(row.get("tiers")),
        cloud=None if cloud is None else _side(cloud, "cloud"),
        **_measured(row, ""),
        extra=unknown(row, _ROW),
    )


def _measured(data: Fields, where: str) -> dict[str, Any]:
    """The signals of a draft and what measured them."""
    signals = optional_fields(data.get("signals"), f"{where}signals") or {}
    return {
        "signals": _uncertainties(signals, f"{where}signals"),
        "measured_by": optional_fields(data.get("measured_by"), f"{where}measured_by") or {},
    }


def _middles(value: JSON) -> dict[str, Middle]:
    """The models between edge and cloud, in the order in which they stand in the row."""
    given = optional_fields(value, "tiers") or {}
    if taken := {"", *TIERS} & set(given):
        raise refused("tiers", min(taken), "names of tiers between edge and cloud")
    return {name: _middle(fields(one, f"tiers.{name}"), f"tiers.{name}") for name, one in given.items()}


def _middle(data: Fields, where: str) -> Middle:
    side = {name: value for name, value in data.items() if name not in ("signals", "measured_by")}
    return Middle(side=_side(side, where), **_measured(data, f"{where}."))


def _uncertainties(signals: Fields, where: str) -> dict[str, float | None]:
    values = [value for value in signals.values() if value is not None]
    if set(map(type, values)) <= {float} and all(map(math.isfinite, cast("list[float]", values))):
        return cast("dict[str, float | None]", signals)
    return {name: optional_number(value, f"{where}.{name}") for name, value in signals.items()}


def _id(value: JSON) -> str:
    """The id of a row, which many data sets give as an integer."""
    if value is None:
        raise FormatError('"id" is missing: give every line its own, such as "id": "1"')
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value, "id")


def content_of(message: Mapping[str, JSON]) -> str | None:
    """Return the text of a recorded message, whose content may be a list of parts; None if it is not text alone.

    Examples
    --------
    >>> content_of({"role": "user", "content": [{"type": "text", "text": "What is 3 + 4?"}]})
    'What is 3 + 4?'
    """
    content = message.get("content", message.get("text"))
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "\n".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def _context(value: JSON) -> Context | None:
    given = optional_fields(value, "context")
    # A question may stand apart from a prompt in which nothing that was retrieved is.
    if given is None or given.get("passages") is None:
        return None
    passages = tuple(texts(given.get("passages"), "context.passages"))
    scores = optional_numbers(given.get("scores"), "context.scores")
    if scores is not None and len(scores) != len(passages):
        raise refused("context.scores", len(scores), f"{len(passages)} numbers, one of each passage")
    answer = optional_text(given.get("existing_answer"), "context.existing_answer")
    return Context(passages=passages, scores=scores, existing_answer=answer)


def _messages(value: JSON) -> Iterator[Mapping[str, JSON]]:
    for at, message in enumerate(items(value, "messages")):
        yield fields(message, f"messages[{at}]")


def _side(data: Fields, where: str) -> Side:
    usage = optional_fields(data.get("usage"), f"{where}.usage")
    billed(usage, f"{where}.usage")
    _alternatives(data.get(TOP_LOGPROBS), f"{where}.{TOP_LOGPROBS}")
    samples = items(data.get("samples"), f"{where}.samples")
    return Side(
        model=optional_text(data.get("model"), f"{where}.model"),
        text=optional_text(data.get("text"), f"{where}.text"),
        logprobs=optional_numbers(data.get("logprobs"), f"{where}.logprobs"),
        tokens=optional_texts(data.get("tokens"), f"{where}.tokens"),
        answer=data.get("answer"),
        quality=optional_number(data.get("quality"), f"{where}.quality", low=0.0, high=1.0),
        judged=optional_number(data.get("judged"), f"{where}.judged", low=0.0, high=1.0),
        usage=usage,
        latency_s=optional_number(data.get("latency_s"), f"{where}.latency_s", low=0),
        cost_usd=optional_number(data.get("cost_usd"), f"{where}.cost_usd", low=0),
        samples=tuple(_sample(sample, f"{where}.samples[{at}]") for at, sample in enumerate(samples)),
        error=optional_text(data.get("error"), f"{where}.error"),
        extra=unknown(data, _SIDE),
    )


def _sample(value: JSON, where: str) -> RecordedSample:
    data = fields(value, where)
    _alternatives(data.get(TOP_LOGPROBS), f"{where}.{TOP_LOGPROBS}")
    return RecordedSample(
        text=text(data.get("text"), f"{where}.text"),
        logprobs=optional_numbers(data.get("logprobs"), f"{where}.logprobs"),
        answer=data.get("answer"),
        extra=unknown(data, _SAMPLE),
    )


def read_rows(
    path: str | os.PathLike[str], *, recorded: bool = True, torn: Callable[[int], None] | None = None
) -> Iterator[Row]:
    """Read a recorded run row by row, without holding all of it in memory.

    Parameters
    ----------
    path : path-like
        JSON lines in UTF-8, plain or gzip, told apart by content, not by name. Empty lines are skipped.
    recorded : bool
        False also accepts rows without "edge": prompts that are still to be answered.
    torn : callable, optional
        Called with the number of a last line that a crash left incomplete, which is skipped; by default it is an error.

    Yields
    ------
    Row

    Raises
    ------
    RecordError
        The file cannot be read, a line is not a row, or an id occurs twice: a promise would count its row twice. The message
        holds the line's number, from 1.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
    >>> append_row(path, Row(id="a", edge=Side(text="7")))
    >>> [row.id for row in read_rows(path)]
    ['a']
    """
    return (row for _, row in numbered_rows(path, recorded=recorded, torn=torn))


def numbered_rows(
    path: str | os.PathLike[str], *, recorded: bool = True, torn: Callable[[int], None] | None = None
) -> Iterator[tuple[int, Row]]:
    """As `read_rows`, each row with the number of its line, from 1."""
    line_of: dict[str, int] = {}
    for at, data in json_lines(path, RecordError, torn=torn, start=START):
        with refusing(RecordError, f"{path}, line {at}"):
            row = _row(data if recorded or not isinstance(data, dict) else {"edge": {}, **data})
            if (first := line_of.setdefault(row.id, at)) != at:
                msg = f"the id {row.id!r} is in line {first} already: expected one row per id"
                raise FormatError(msg)
        yield at, row


def json_line(row: Row) -> bytes:
    """A row as the line of a file.

    Raises
    ------
    RecordError
        It holds a value that JSON cannot hold, such as an infinity.
    """
    try:
        # Escaped to ASCII: a model may write half a surrogate pair, which UTF-8 refuses.
        return json.dumps(row.to_dict(), allow_nan=False).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        msg = f"row {row.id!r} cannot be written as JSON: {error}; expected strings, finite numbers, lists and objects"
        raise RecordError(msg) from error


def append_row(path: str | os.PathLike[str], row: Row) -> None:
    """Append one row to a file, which is created if needed.

    Parameters
    ----------
    path : path-like
        For a name that ends in ".gz", each row becomes a gzip member of its own: far larger than what `write_rows` writes.
    row : Row

    Raises
    ------
    RecordError
        The row holds a value that JSON cannot hold, such as an infinity; nothing is written.
    OSError
        The row could not be written, as on a full disk; the file ends where it did.
    """
    path, line = Path(path), json_line(row)
    with Appending(path) as file:
        file.write(gzip.compress(line, mtime=0) if path.suffix == ".gz" else line)


def write_rows(path: str | os.PathLike[str], rows: Iterable[Row]) -> int:
    """Write a whole run; an existing file is replaced only once all rows are written.

    Parameters
    ----------
    path : path-like
        Compressed with gzip if the name ends in ".gz". Equal rows give equal bytes.
    rows : iterable of Row
        May be `read_rows` of the same path.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    RecordError
        A row holds a value that JSON cannot hold, such as an infinity; `path` stays as it was.
    """
    path, count = Path(path), 0
    with replacing(path) as file, _packing(file, packed=path.suffix == ".gz") as out:
        for row in rows:
            out.write(json_line(row))
            count += 1
    return count


def replace_row(path: str | os.PathLike[str], at: int, row: Row) -> None:
    """Put a row in the place of line `at` of a run, counted from 1; all other lines stay, byte by byte.

    Raises
    ------
    RecordError
        The row holds a value that JSON cannot hold; the file stays as it was.
    """
    line = json_line(row)
    with Path(path).open("rb") as lines, replacing(Path(path)) as out:
        for number, before in enumerate(lines, start=1):
            out.write(line if number == at else before)


@contextmanager
def _packing(file: IO[bytes], *, packed: bool) -> Iterator[IO[bytes]]:
    if not packed:
        yield file
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as out:
        yield cast("IO[bytes]", out)
