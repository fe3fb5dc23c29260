"""Self-assessment: the edge is asked about its own draft, by P(True) or by a confidence stated in words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from confroute.alignment import is_numbered
from confroute.asks import AskGenerator, Prompt
from confroute.decision import Measurement
from confroute.errors import BadLogprobsError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import without_reasoning
from confroute.signals.base import Case, Range
from confroute.signals.numbers import quantities
from confroute.signals.units import PERCENT
from confroute.types import (
    ROUNDING_NATS,
    Alternatives,
    Generation,
    Message,
    checked_logprobs,
    transcript,
)

_TRUE = ("a", "true", "yes")
_FALSE = ("b", "false", "no")
_DECORATION = " \t\r\n().:*`\"'"


def proposal(case: Case) -> str:
    """The conversation, or the question where only that is known, with the draft as its proposed answer."""
    context = transcript(case.messages) if len(case.messages) > 1 else f"Question: {case.question}"
    return f"{context}\n\nProposed answer: {case.draft.text.strip() or case.draft.answer or ''}"


def assess(case: Case, question: str, *, top_logprobs: int, max_tokens: int) -> AskGenerator[Generation]:
    """Ask the draft's own tier a question about its draft; SignalUnavailableError where it does not reply."""
    message = Message(role="user", text=f"{proposal(case)}\n\n{question}")
    evidence = yield Prompt(
        tier=case.tier.name, messages=(message,), top_logprobs=top_logprobs, max_tokens=max_tokens
    )
    if not evidence.generations:
        raise SignalUnavailableError(f"{case.tier.model} did not answer the question about its draft")
    return evidence.generations[0]


@register(
    kind="signal",
    needs="a further call with log-probabilities",
    recorded="`--signals 'PTrue()'`: asks the edge once more",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class PTrue:
    """1 - P(True): the probability that the edge, when asked, gives to its draft being false; in [0, 1].

    Parameters
    ----------
    top_logprobs : int
        Alternatives to request; both letters are read from them.

    Notes
    -----
    Kadavath et al. (arXiv 2207.05221): the draft is shown as a proposed answer, and the probabilities of the letters for
    true and false are compared at the first token with a letter. Deviation: they are divided by their sum, so
    probability given to neither does not count as doubt; that sum is `mass` in the details. Without alternatives only
    the probability of the drawn letter is read.

    Costs one short call of the same tier; the draft never leaves that tier. Needs log-probabilities. **Known weakness:**
    small models mostly say yes to their own answer, and which letter comes first matters. On 7-8B models a
    yes/no self-assessment ranks errors worse than the mean token log-probability, which is free
    (arXiv 2605.02241: AUROC .56-.64 against .65-.71 on MMLU-Pro). Measure it on your own edge before you pay for it.
    """

    top_logprobs: int = 5

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "p_true"

    @property
    def range(self) -> Range:
        """A probability."""
        return Range(high=1.0, unit="probability")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Ask, and compare the probabilities of both letters.

        Raises
        ------
        SignalUnavailableError
            No log-probabilities, or neither letter among the likeliest tokens.
        """
        question = "Is the proposed answer correct?\n(A) True\n(B) False\nReply with one letter, A or B."
        reply = yield from assess(case, question, top_logprobs=self.top_logprobs, max_tokens=4)
        true, false = _verdict_masses(reply, case.tier.model)
        return Measurement(
            signal=self.name,
            uncertainty=false / (true + false),
            details={"mass": round(min(1.0, true + false), 6)},
        )


def _verdict_masses(reply: Generation, model: str) -> tuple[float, float]:
    """Probabilities of "true" and "false" at the first token that is not decoration."""
    try:
        logprobs = checked_logprobs(reply.logprobs)
    except BadLogprobsError as error:
        raise SignalUnavailableError(str(error)) from error
    if logprobs is None or reply.tokens is None:
        raise SignalUnavailableError(f"{model} returned no log-probabilities for its verdict on the draft")
    for position, token in enumerate(reply.tokens[: len(logprobs)]):
        if _word(token):
            top = (reply.top_logprobs or ((),) * len(logprobs))[position]
            return _masses_at(token, logprobs[position], top, model)
    raise SignalUnavailableError(f"{model} answered the question about its draft without a letter")


def _masses_at(token: str, logprob: float, top: Alternatives, model: str) -> tuple[float, float]:
    known = dict(top) or {token: logprob}
    # The comparison is written so that NaN is refused.
    if any(not value <= ROUNDING_NATS for value in known.values()):
        raise SignalUnavailableError(f"{model} returned an alternative whose log-probability is not valid")
    true, false = (
        math.fsum(math.exp(min(0.0, v)) for t, v in known.items() if _word(t) in words)
        for words in (_TRUE, _FALSE)
    )
    if true + false == 0.0:
        raise SignalUnavailableError(f"{model} answered the question about its draft with neither letter")
    if not top or any(map(is_numbered, known)):
        # Only the drawn letter is known: the other one has at most the remaining probability.
        return (true, 1.0 - true) if true else (1.0 - false, false)
    return true, false


def _word(token: str) -> str:
    return token.strip(_DECORATION).lower()


# What a confidence is commonly stated out of.
_SCALES = (5, 10, 20, 100)
# "100% wrong" is not a confidence that the answer is right.
_DOUBT = re.compile(r"\b(?:wrong|incorrect|false|not)\b|n['\u2019]t\b", re.IGNORECASE)
_OUT_OF = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:/|out of|of)\s*(\d+)(?![\d.,]*\d)", re.IGNORECASE)


def stated_confidence(text: str) -> float | None:
    """Read the confidence that a reply states, in [0, 1]; None where it states none, or more than one number.

    A number counts out of 100, unless the reply says out of what ("9/10"). A decimal fraction up to 1 without "%" is read as a
    probability.

    Examples
    --------
    >>> (
    ...     stated_confidence("85"),
    ...     stated_confidence("I am 70% sure."),
    ...     stated_confidence("0.9"),
    ...     stated_confidence("9/10"),
    ... )
    (0.85, 0.7, 0.9, 0.9)
    >>> stated_confidence("very sure"), stated_confidence("250"), stated_confidence("60, no, 70")
    (None, None, None)
    """
    read = without_reasoning(text)
    found = quantities(read)
    if _DOUBT.search(read) or len(found) != 1 or (value := found[0].value) is None:
        return None
    shown, unit = read[found[0].start : found[0].end], found[0].unit
    if unit is not None and unit.dimension != PERCENT:
        return None
    if match := _OUT_OF.match(shown):
        # Over another number it is a fraction of something else.
        return float(value) if int(match[2]) in _SCALES and 0 <= value <= 1 else None
    if unit is None and 0 <= value <= 1 and any(mark in shown for mark in ".,"):
        return float(value)
    return float(value / 100) if 0 <= value <= 100 else None


@register(
    kind="signal", needs="a further call", recorded="`--signals 'Verbalised()'`: asks the edge once more"
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Verbalised:
    """1 - the confidence that the edge states in words; in [0, 1], higher means less reliable.

    Notes
    -----
    Tian et al. (arXiv 2305.14975). Costs one short call of the same tier; the draft never leaves that tier. Needs no
    log-probabilities, so it works where nothing else does. **Known weakness:** models say 80 to 100 whatever they
    know, in steps of 5, so many calls tie and thresholds are coarse; in the largest comparison of routing signals
    it was the worst (arXiv 2502.04428). Use it only where neither log-probabilities nor samples are available.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "verbalised"

    @property
    def range(self) -> Range:
        """1 - a stated probability."""
        return Range(high=1.0, unit="1 - stated confidence")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Ask for the confidence and read it.

        Raises
        ------
        SignalUnavailableError
            The reply states no number from 0 to 100, or several.
        """
        question = (
            "How likely is it that the proposed answer is correct? Reply with one number from 0 to 100 only."
        )
        reply = yield from assess(case, question, top_logprobs=0, max_tokens=16)
        confidence = stated_confidence(reply.text)
        if confidence is None:
            raise SignalUnavailableError(f"{case.tier.model} stated no confidence from 0 to 100")
        return Measurement(signal=self.name, uncertainty=1.0 - confidence)
