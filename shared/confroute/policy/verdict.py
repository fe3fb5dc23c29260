"""From one gate's measurement to keep or not: the comparisons that a cascade makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from confroute.decision import UNCALIBRATED, Measurement, Stage
from confroute.errors import NoSignalError
from confroute.policy.gate import Gate
from confroute.policy.rules import Ruling
from confroute.policy.threshold import Threshold
from confroute.signals.abstention import ContextLacks
from confroute.signals.answers import answer_of, normalised
from confroute.signals.base import Settled
from confroute.types import Generation, Request, Tier

_ANOTHER = "take a signal that this model allows: `confroute doctor` tells which"


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
    if not tier.fits:
        return f"the prompt ({tier.input_tokens} tokens) is longer than the context of {tier.name} ({tier.context_window})"
    return None


def is_grey(gate: Gate, uncertainty: float) -> bool:
    """Whether a further gate is asked at this uncertainty."""
    return gate.grey is not None and gate.grey[0] < uncertainty <= gate.grey[1]


def settled(gate: Gate, *, more: bool) -> Settled:
    """Whether every uncertainty between two bounds leads to the same next step."""

    def same(low: float, high: float) -> bool:
        edges = [gate.threshold.value]
        if more and gate.grey is not None:
            edges = [*gate.grey]
        return not any(low <= edge < high for edge in edges)

    return same


def verdict_of(gate: Gate, measured: Measurement, *, stage: Stage) -> Verdict:
    """What one gate says of its measurement, in words too."""
    said = ""
    if measured.lacking:
        stage, said = "lacking", "the draft says that the context lacks the answer; "
    keep = measured.uncertainty <= gate.threshold.value
    sign, then = ("<=", "kept") if keep else (">", "not kept")
    unit = gate.signal.range.unit
    reason = (
        f"{said}{measured.signal.replace('_', ' ')} {measured.uncertainty:.3g} {unit} {sign} {gate.threshold.value:.3g} "
        f"({gate.threshold.source}): answer {then}"
    )
    return Verdict(keep=keep, stage=stage, reason=reason, gate=gate, measurement=measured)


def unmeasured(
    tier: Tier, skipped: Mapping[str, str], on_no_signal: Literal["cloud", "edge", "raise"]
) -> Verdict:
    """What the policy says when nothing could be measured; `skipped` says why, by signal.

    Raises
    ------
    NoSignalError
        The policy says so.
    """
    why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
    if on_no_signal == "raise":
        msg = f"no uncertainty could be measured for {tier.model} ({why}); set on_no_signal to 'cloud' or 'edge', or {_ANOTHER}"
        raise NoSignalError(msg)
    keep = on_no_signal == "edge"
    kept = f"{tier.name} answer kept" if keep else f"{tier.name} answer not kept"
    return Verdict(
        keep=keep,
        stage="no_signal",
        reason=f"no evidence ({why}): {kept} by on_no_signal={on_no_signal!r}; {_ANOTHER}",
    )


def default_lacking() -> Gate:
    """Believe a draft that says the context lacks the answer if at most half of the question's words stand there.

    0.5 was not fitted to your models and texts.
    """
    return Gate(signal=ContextLacks(), threshold=Threshold(value=0.5, source=UNCALIBRATED))


def gates_for(request: Request, gates: tuple[Gate, ...], lacking: Gate | None) -> tuple[Gate, ...]:
    """The gates of one call, that for lacking context first where something was retrieved."""
    if lacking is None or request.context is None or not request.context.passages:
        return gates
    known = {gate.signal.name for gate in gates}
    return gates if lacking.signal.name in known else (lacking, *gates)


def repeated(request: Request, tier: str, draft: Generation) -> Verdict | None:
    """Keep a draft that repeats the answer it was to refine, which this tier gave and which was kept then.

    It is not measured: a copied text is certain whatever it says.
    """
    before = request.context.existing_answer if request.context is not None else None
    if before is None or request.begun_on != tier or normalised(before) != normalised(draft.text):
        return None
    reason = f"{tier} repeats its answer that was kept before: answer kept"
    return Verdict(keep=True, stage="draft", reason=reason)


def stay(request: Request, tiers: tuple[str, ...]) -> Ruling | None:
    """Hold a call that goes on from a later tier's answer on that tier.

    A weaker model would rewrite it; and what it copies from it would look certain.
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
        Answers that say the same as it, itself included, and answers that voted.
    """

    answer: Generation
    votes: int
    of: int

    @property
    def reason(self) -> str:
        """What a decision says of a sample that won."""
        return f"a sample is returned in its place: {self.votes} of {self.of} answers, not the draft's, say the same"


def majority(question: str, draft: Generation, samples: Iterable[Generation]) -> Majority:
    """Let a draft and its samples vote: Wang et al., self-consistency (arXiv 2203.11171).

    Parameters
    ----------
    question : str
    draft : Generation
    samples : iterable of Generation
        Those with a flaw, cut off at the length limit or without text do not vote: none of them could be returned.

    Notes
    -----
    Answers are the same if their final numbers, options or short answers are, else if their normalised texts are. Long texts
    mostly all differ, and the draft stays.

    Examples
    --------
    >>> said = [Generation(text=text) for text in ("So 7.", "8 legs", "It is 8")]
    >>> found = majority("How many legs?", said[0], said[1:])
    >>> found.answer.text, found.votes, found.of
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
    found = majority(question, draft, chain.from_iterable(pools))
    return None if found.answer is draft else found


def _usable(sample: Generation) -> bool:
    said = bool(sample.text.strip()) or sample.answer is not None
    return said and sample.flaw is None and sample.finish != "length"
