"""From drawn tokens to answers: parameters checked, rows filled until each has ended, pieces of one for streaming."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from confroute.errors import RequestError
from confroute.models.prompts import Row
from confroute.models.text_model import Piece
from confroute.types import Finish, Generation, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to draw: rows, most tokens a row, temperature (0 = greedy), nucleus mass, seed, alternatives."""

    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One token of one row, with its natural log-probability at temperature 1 and the likeliest ones there."""

    row: int
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Draws(Protocol):
    """Whatever draws a token per row at a time, such as `confroute.models.decoding.Decoder`."""

    def step(self) -> list[Drawn] | None:
        """The next token of every row left; None once cancelled."""
        ...

    def drop(self, rows: Collection[int]) -> None:
        """Take rows out of the batch."""
        ...


def check(plan: Plan, stop: Sequence[str]) -> None:
    """Raise RequestError, with what was expected, for the first parameter out of range."""
    n, temperature = plan.n, plan.temperature
    wrong = {
        f"n={n}: expected at least 1": n < 1,
        f"max_tokens={plan.max_tokens}: expected at least 1": plan.max_tokens < 1,
        f"temperature={temperature}: expected a number of at least 0, 0 for greedy": not 0
        <= temperature
        < float("inf"),
        f"top_p={plan.top_p}: expected a number in (0, 1], 1 for all tokens": not 0 < plan.top_p <= 1,
        f"top_logprobs={plan.top_logprobs}: expected at least 0": plan.top_logprobs < 0,
        f"n={n} with temperature 0 would give {n} times the same answer; raise temperature or draw one": n > 1
        and temperature == 0,
        f"stop={stop!r}: expected a sequence of non-empty strings, such as ['\\n']": isinstance(stop, str)
        or "" in stop,
    }
    for msg, is_wrong in wrong.items():
        if is_wrong:
            raise RequestError(msg)


def steps(decoder: Draws, rows: list[Row], plan: Plan, ends: frozenset[int]) -> Iterator[None]:
    """Draw until every row has ended, pausing after each token."""
    for step in range(plan.max_tokens):
        drawn = decoder.step()
        if drawn is None:
            break
        for one in drawn:
            row = rows[one.row]
            if one.token in ends:
                row.billed += 1
                row.end("stop")
                continue
            row.push(one.token, one.logprob, one.top)
            if step == plan.max_tokens - 1:
                row.end("length")
        decoder.drop({one.row for one in drawn if rows[one.row].finish})
        yield
        if all(row.finish for row in rows):
            return
    for row in rows:
        row.end("cancelled")


def answers_of(
    rows: Sequence[Row], *, model: str, prompt_tokens: int, latency_s: float
) -> tuple[Generation, ...]:
    """The ended rows as answers; the prompt is counted on the first one only."""
    return tuple(
        Generation(
            text=row.text,
            logprobs=tuple(row.logprobs),
            tokens=tuple(row.tokens),
            top_logprobs=row.alternatives(),
            usage=Usage(input_tokens=0 if position else prompt_tokens, output_tokens=row.billed),
            finish=row.finish or "unknown",
            model=model,
            latency_s=latency_s,
            raw=tuple(row.ids),
        )
        for position, row in enumerate(rows)
    )


def piece_of(
    row: Row, start: int, stop: int, *, finish: Finish | None = None, usage: Usage | None = None
) -> Piece:
    """Tokens `start` to `stop` of a row."""
    tokens = tuple(row.tokens[start:stop])
    return Piece(
        text="".join(tokens),
        logprobs=tuple(row.logprobs[start:stop]),
        tokens=tokens,
        top_logprobs=row.alternatives(start, stop),
        finish=finish,
        usage=usage,
    )
