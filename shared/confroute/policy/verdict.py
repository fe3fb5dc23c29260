"""From a draft and its measurements to keep or not: the comparisons that a cascade makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from confroute.asks import Evidence
from confroute.decision import UNCALIBRATED, Measurement, Stage
from confroute.errors import NoSignalError
from confroute.policy.gate import Gate
from confroute.policy.rules import Ruling
from confroute.policy.threshold import Threshold
from confroute.signals.abstention import ContextLacks
from confroute.signals.answers import answer_of, normalised
from confroute.signals.base import Settled, shown_name
from confroute.types import UNFINISHED, Generation, Request, Tier

_OTHER_SIGNAL = "take a signal that this model allows: `confroute doctor` tells which"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a draft is kept, and why."""

    keep: bool
    stage: Stage
    reason: str
    gate: Gate | None = None
    measurement: Measurement | None = None


def blocked_by(tier: Tier) -> str | None:
    """Why a tier cannot take this request, or None."""
    if tier.closed is not None:
        return f"{tier.name} is passed over ({tier.closed})"
    if tier.lacks is not None:
        return f"{tier.name} cannot do {tier.lacks}"
    if tier.context_window is not None and not tier.fits:
        return f"the prompt ({tier.input_tokens} tokens) is longer than the context of {tier.name} ({tier.context_window})"
    return None


def is_empty(draft: Generation, evidence: Evidence) -> bool:
    """Whether a draft holds no answer at all; one that was cut off or shown already is judged by its tokens instead."""
    judged = evidence.watch is not None and evidence.watch.outcome != "wait"
    return not (judged or draft.text.strip() or draft.answer is not None or draft.flaw is not None)


def is_grey(gate: Gate, uncertainty: float) -> bool:
    """Whether a further gate is asked at this uncertainty."""
    return gate.grey is not None and gate.grey[0] < uncertainty <= gate.grey[1]


def settled_test(gate: Gate, *, more: bool) -> Settled:
    """Return the function of two bounds that is True if every uncertainty between them leads to the same next step."""
    edges = gate.grey if more and gate.grey is not None else (gate.threshold.value,)
    return lambda low, high: not any(low <= edge < high for edge in edges)


def told_apart(value: float, limit: float, *, digits: int = 3) -> tuple[str, str]:
    """Write two numbers in `digits` digits, or in as many as tell them apart if they are not equal.

    Examples
    --------
    >>> told_apart(0.41, 0.4), told_apart(0.6000034, 0.6), told_apart(0.6, 0.6)
    (('0.41', '0.4'), ('0.600003', '0.6'), ('0.6', '0.6'))
    """
    for shown in range(digits, 17):
        pair = f"{value:.{shown}g}", f"{limit:.{shown}g}"
        if value == limit or pair[0] != pair[1]:
            return pair
    return str(float(value)), str(float(limit))


def compared(value: float, sign: str, limit: float, unit: str = "", *, digits: int = 3) -> str:
    """Write a comparison; see `told_apart`.

    Examples
    --------
    >>> compared(0.41, ">", 0.4, "nats")
    '0.41 nats > 0.4'
    """
    left, right = told_apart(value, limit, digits=digits)
    return " ".join([left, *unit.split(), sign, right])


def verdict_of(gate: Gate, measured: Measurement, *, stage: Stage, whose: str = "") -> Verdict:
    """Compare a measurement with its gate's threshold; `whose` answer it is, where the reason has to say it."""
    about = ""
    if measured.abstention:
        stage, about = "lacking", "the draft says that the context lacks the answer; "
    keep = measured.uncertainty <= gate.threshold.value
    sign, then = ("<=", "kept") if keep else (">", "not kept")
    limits = compared(measured.uncertainty, sign, gate.threshold.value, gate.signal.range.unit)
    reason = f"{about}{shown_name(gate.signal).replace('_', ' ')} {limits} ({gate.threshold.source}): {whose}answer {then}"
    return Verdict(keep=keep, stage=stage, reason=reason, gate=gate, measurement=measured)


def verdict_without_signal(
    tier: Tier, skipped: Mapping[str, str], on_no_signal: Literal["cloud", "edge", "raise"]
) -> Verdict:
    """Apply a policy's `on_no_signal` where nothing could be measured; `skipped` holds why, by signal.

    Raises
    ------
    NoSignalError
        The policy wants it.
    """
    why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
    if on_no_signal == "raise":
        msg = (
            f"no uncertainty could be measured for {tier.model} ({why}); set on_no_signal to 'cloud' or 'edge', "
            f"or {_OTHER_SIGNAL}"
        )
        raise NoSignalError(msg)
    keep = on_no_signal == "edge"
    then = f"{tier.name} answer kept" if keep else f"{tier.name} answer not kept"
    return Verdict(
        keep=keep,
        stage="no_signal",
        reason=f"no evidence ({why}): {then} by on_no_signal={on_no_signal!r}; {_OTHER_SIGNAL}",
    )


def default_abstention_gate() -> Gate:
    """Believe a draft that says the context lacks the answer if at most half of the question's words occur there.

    0.5 was not fitted to your models and texts.
    """
    return Gate(signal=ContextLacks(), threshold=Threshold(value=0.5, source=UNCALIBRATED))


def with_abstention_gate(
    gates: tuple[Gate, ...], abstention: Gate | None, request: Request
) -> tuple[Gate, ...]:
    """The gates of one call: where something was retrieved, the one for abstentions comes first."""
    if abstention is None or request.context is None or not request.context.passages:
        return gates
    known = {gate.signal.name for gate in gates}
    return gates if abstention.signal.name in known else (abstention, *gates)


def verdict_on_end(tier: str, draft: Generation) -> Verdict | None:
    """Reject a draft that is not whole: the tokens that are missing were never judged. None for one that is, or of which nobody says."""
    how = UNFINISHED.get(draft.finish)
    return (
        None if how is None else Verdict(keep=False, stage="draft", reason=f"{tier} answer {how}: not kept")
    )


def verdict_on_repetition(request: Request, tier: str, draft: Generation) -> Verdict | None:
    """Keep a draft that repeats the answer it was to refine, if this tier gave that answer and it was kept then.

    It is not measured: a copied text is certain whatever it says.
    """
    before = request.context.existing_answer if request.context is not None else None
    if before is None or request.begun_on != tier or normalised(before) != normalised(draft.text):
        return None
    reason = f"{tier} repeats its answer that was kept before: answer kept"
    return Verdict(keep=True, stage="draft", reason=reason)


def sticky_ruling(request: Request, tiers: tuple[str, ...]) -> Ruling | None:
    """Keep a call that continues a later tier's answer on that tier.

    A weaker model would rewrite it, and what it copies from it would look certain.
    """
    begun = request.begun_on
    if begun is None or begun not in tiers[1:]:
        return None
    return Ruling(rule="sticky", tier=begun, reason=f"goes on from an answer of {begun}: stays on {begun}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """The winner of a vote.

    Attributes
    ----------
    answer : Generation
        The draft where its answer is among the most frequent ones, else the first sample that gave the most frequent one.
    votes, of : int
        Answers that agree with it, itself included, and answers that voted.
    """

    answer: Generation
    votes: int
    of: int

    @property
    def reason(self) -> str:
        """The words in the decision where a sample won."""
        return f"a sample is returned in its place: {self.votes} of {self.of} answers, not the draft's, say the same"


def majority(question: str, draft: Generation, samples: Iterable[Generation]) -> Majority:
    """Let a draft and its samples vote: Wang et al., self-consistency (arXiv 2203.11171).

    Parameters
    ----------
    question : str
    draft : Generation
    samples : iterable of Generation
        Those with a flaw, cut off or empty do not vote: none of them could be returned.

    Notes
    -----
    Answers agree if their final numbers, options or short answers do, else if their normalised texts do. Long texts mostly all
    differ; then the draft stays.

    Examples
    --------
    >>> answers = [Generation(text=text) for text in ("So 7.", "8 legs", "It is 8")]
    >>> winner = majority("How many legs?", answers[0], answers[1:])
    >>> winner.answer.text, winner.votes, winner.of
    ('8 legs', 2, 3)
    """
    answers = [draft, *(sample for sample in samples if _usable(sample))]
    groups: dict[str, list[Generation]] = {}
    for answer in answers:
        key = answer_of(answer, question)
        groups.setdefault(normalised(answer.text) if key is None else key, []).append(answer)
    # The first of the largest groups, so the draft's where it is one of them.
    most = max(groups.values(), key=len)
    return Majority(answer=most[0], votes=len(most), of=len(answers))


def replacement(question: str, draft: Generation, pools: Iterable[Iterable[Generation]]) -> Majority | None:
    """The winner where it is not the draft; `pools` are the samples of each temperature."""
    winner = majority(question, draft, chain.from_iterable(pools))
    return None if winner.answer is draft else winner


def _usable(sample: Generation) -> bool:
    holds_answer = bool(sample.text.strip()) or sample.answer is not None
    return holds_answer and sample.flaw is None and sample.finish not in UNFINISHED
