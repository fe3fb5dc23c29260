"""One call on its way through a cascade: what was done, measured and refused so far."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from confroute.asks import Ask, Draft, Evidence, Final, Seen, Tentative
from confroute.decision import Decision, Measurement, Routed, Stage, Step
from confroute.errors import (
    AllTiersFailedError,
    MissingExtraError,
    ModelError,
    PolicyError,
    SignalUnavailableError,
    StreamInterruptedError,
    TierError,
)
from confroute.nextstep import failure, told
from confroute.policy.gate import Gate
from confroute.policy.majority import replacement
from confroute.policy.rules import Ruling
from confroute.policy.steps import drafting, failed_step, is_missing, kind_of, step_of, steps_of
from confroute.policy.synthesis import repeated
from confroute.policy.verdict import Verdict, blocked_by, is_grey, settled, unmeasured, verdict_of
from confroute.signals.base import Asking, Case, alternatives_wanted
from confroute.types import Generation, Request, Tier

if TYPE_CHECKING:
    from confroute.policy.cascade import Cascade

T = TypeVar("T")
Walking: TypeAlias = Generator[Ask, Evidence, T]
# Set-up errors: hiding them would send every call to the paid tier, or leave a policy without evidence, for ever.
_SET_UP = (MissingExtraError, ModelError, PolicyError)


@dataclass(slots=True, kw_only=True)
class Walk:
    """The state of one call. Its methods are generators: they yield asks and receive evidence."""

    policy: Cascade
    request: Request
    gates: tuple[Gate, ...]
    steps: list[Step] = field(default_factory=list)
    signals: dict[str, Measurement] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    grey: dict[str, tuple[float, float]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected: Generation | None = None
    rejected_by: str = ""
    verdict: Verdict | None = None
    seen: Seen | None = None
    pools: dict[float, list[Generation]] = field(default_factory=dict)

    def tier(self, name: str) -> Tier:
        """What the host said of a tier."""
        return self.request.tiers.get(name) or Tier(name=name, model=name)

    def ruled(self, ruling: Ruling) -> Walking[Routed]:
        """Answer on the tier that a rule or the caller named, and on no other."""
        stage: Stage = "forced" if ruling.rule == "forced" else "rule"
        try:
            answer = yield from self.ask_one(Final(tier=ruling.tier, private=ruling.private))
        except StreamInterruptedError:
            raise
        except Exception as error:
            if ruling.private:
                msg = f"{ruling.tier} failed and the text is private, so no other tier was asked: {error}"
                raise TierError(msg) from error
            raise
        rule = None if stage == "forced" else ruling.rule
        return self.routed(
            answer,
            ruling.tier,
            Verdict(keep=True, stage=stage, reason=ruling.reason),
            rule=rule,
            private=ruling.private,
        )

    def try_tier(self, name: str) -> Walking[Routed | None]:
        """Draft on one tier and judge it; None if the next tier has to answer."""
        tier = self.tier(name)
        blocked = blocked_by(tier)
        if blocked:
            self.notes.append(blocked)
            return None
        try:
            wanted = alternatives_wanted(gate.signal for gate in self.gates)
            draft = yield from self.ask_one(drafting(name, self.policy.prefix, self.request, wanted))
        except (*_SET_UP, StreamInterruptedError):
            raise
        except Exception as error:
            self.failures[name] = error
            if self.policy.on_edge_error == "raise":
                raise
            self.notes.append(failure(name, error))
            return None
        self.verdict = yield from self.judge(tier, draft)
        if self.verdict.keep:
            return self.kept(draft, name, self.verdict)
        cut = self.seen is not None and self.seen.outcome == "cut"
        self.rejected, self.rejected_by = replace(draft, flaw="cut off") if cut else draft, name
        self.notes.append(self.verdict.reason)
        return None

    def kept(self, draft: Generation, name: str, verdict: Verdict) -> Routed:
        """The draft, or a sample in its place where the policy wants what most of them say."""
        found = None
        if self.policy.returns == "majority" and verdict.stage in ("draft", "evidence"):
            found = replacement(self.request.asked, draft, self.pools.values())
        if found is None:
            return self.routed(draft, name, verdict)
        reason = f"{verdict.reason}; {found.reason}"
        return self.routed(found.answer, name, verdict, reason=reason, sampled=True)

    def last_resort(self, name: str) -> Walking[Routed]:
        """Answer on the last tier, or settle what is left if it fails."""
        try:
            answer = yield from self.ask_one(Final(tier=name))
        except StreamInterruptedError:
            raise
        except Exception as error:  # noqa: BLE001  raised again unless the policy has an answer to it
            self.failures[name] = error
            return self.without_last(name, error)
        why = "; ".join(self.notes)
        if self.verdict is not None and not self.verdict.keep:
            verdict = self.verdict
        else:
            verdict = Verdict(keep=True, stage="fallback" if self.failures else "rule", reason=why)
        rule = "capability" if verdict.stage == "rule" else None
        return self.routed(answer, name, verdict, reason=f"{why}: {name} answers", rule=rule)

    def without_last(self, name: str, error: Exception) -> Routed:
        """The last tier failed: the rejected draft, flagged, or an error that names every cause."""
        keeps = self.policy.on_cloud_error == "edge" or getattr(error, "keeps_draft", False)
        if keeps and self.rejected is not None and self.rejected.flaw is None:
            reason = f"{'; '.join(self.notes)}; {failure(name, error)}: the rejected draft is returned"
            verdict = self.verdict
            if verdict is not None:
                verdict = Verdict(
                    keep=True,
                    stage="fallback",
                    reason=reason,
                    gate=verdict.gate,
                    measurement=verdict.measurement,
                )
                return self.routed(self.rejected, self.rejected_by, verdict, degraded=True)
        if len(self.failures) > 1:
            raise AllTiersFailedError(self.failures) from error
        if self.rejected is not None:
            msg = f"{name} failed ({told(error)}) after the draft was rejected: {'; '.join(self.notes)}"
            raise TierError(msg) from error
        raise error

    def failed(self, error: Exception) -> Decision:
        """The record of a call that ends in `error`, whose text may repeat the prompt and is left out."""
        return Decision(
            route=next((s.tier for s in reversed(self.steps) if s.tier), self.policy.tiers[0]),
            stage="failed",
            reason="; ".join([*self.notes, f"the call failed ({type(error).__name__})"]),
            signals=dict(self.signals),
            skipped=dict(self.skipped),
            grey=dict(self.grey),
            steps=tuple(self.steps),
        )

    def ask_one(self, ask: Draft | Tentative | Final) -> Walking[Generation]:
        """Yield an ask for one answer, keep its step, and return the answer or raise what it ended in."""
        kind = kind_of(ask)
        try:
            evidence = yield ask
            answer = evidence.generations[0] if evidence.generations else Generation(text="")
        except Exception as error:
            self.steps.append(failed_step(kind, error, tier=ask.tier, model=self.tier(ask.tier).model))
            raise
        self.steps.append(
            step_of(kind, evidence, tier=ask.tier, model=answer.model or self.tier(ask.tier).model)
        )
        self.seen = evidence.seen
        if kind == "draft" and is_missing(answer, evidence):
            msg = f"{ask.tier} returned an empty answer"
            raise TierError(msg)
        return answer

    def judge(self, tier: Tier, draft: Generation) -> Walking[Verdict]:
        """Measure gate after gate until one decides."""
        self.pools = {}
        if draft.flaw is not None:
            return Verdict(
                keep=False, stage="draft", reason=f"{tier.name} answer cannot be used: {draft.flaw}"
            )
        prefix = self.policy.prefix
        early = None if prefix is None else prefix.verdict(self.seen, tier.name)
        if early is not None and early.measurement is not None:
            self.signals[early.measurement.signal] = early.measurement
            return early
        copied = repeated(self.request, tier.name, draft)
        if copied is not None:
            return copied
        last: Verdict | None = None
        for position, gate in enumerate(self.gates):
            more = position + 1 < len(self.gates)
            case = Case(
                tier=tier,
                question=self.request.asked,
                draft=draft,
                settled=settled(gate, more=more),
                pools=self.pools,
                context=self.request.context,
                messages=self.request.messages,
            )
            before = len(self.steps)
            measured = yield from self.measure(gate, case)
            if measured is None:
                continue
            self.signals[measured.signal] = measured
            self.grey.pop(measured.signal, None)  # of an earlier tier
            last = verdict_of(gate, measured, stage="evidence" if len(self.steps) > before else "draft")
            if not (more and gate.grey and is_grey(gate, measured.uncertainty)):
                return last
            self.grey[measured.signal] = gate.grey
        return last or unmeasured(tier, self.skipped, self.policy.on_no_signal)

    def measure(self, gate: Gate, case: Case) -> Walking[Measurement | None]:
        """One gate's measurement, or None, with the reason kept, where it cannot be had."""
        name = gate.signal.name
        try:
            measured = yield from self.logged(gate.signal.measure(case), case.tier)
        except _SET_UP:
            raise
        except SignalUnavailableError as error:
            self.skipped[name] = str(error)
            return None
        except Exception as error:  # noqa: BLE001  evidence that fails is no evidence: kept in the decision
            self.skipped[name] = f"{type(error).__name__} while it was measured"
            return None
        if measured.uncertainty not in gate.signal.range:
            self.skipped[name] = f"{measured.uncertainty} is outside the signal's own range"
            return None
        return measured

    def logged(self, measuring: Asking[Measurement], tier: Tier) -> Walking[Measurement]:
        """Pass a signal's asks on and keep a step for each."""
        evidence: Evidence | None = None
        failed: Exception | None = None
        while True:
            try:
                if failed is not None:
                    ask = measuring.throw(failed)
                else:
                    ask = next(measuring) if evidence is None else measuring.send(evidence)
            except StopIteration as done:
                measured: Measurement = done.value
                return measured
            evidence, failed = None, None
            try:
                evidence = yield ask
            except Exception as error:  # noqa: BLE001  the signal may know what to do; if not, it comes back
                failed = error
            self.steps += steps_of(ask, failed or evidence, tier.model, before=len(self.steps))

    def routed(
        self,
        answer: Generation,
        route: str,
        verdict: Verdict,
        *,
        reason: str | None = None,
        rule: str | None = None,
        degraded: bool = False,
        private: bool = False,
        sampled: bool = False,
    ) -> Routed:
        """The result, with its decision."""
        gate, measured = verdict.gate, verdict.measurement
        decision = Decision(
            route=route,
            stage=verdict.stage,
            reason=reason or verdict.reason,
            uncertainty=measured.uncertainty if measured else None,
            signal=measured.signal if measured else None,
            threshold=gate.threshold.value if gate else None,
            threshold_source=gate.threshold.source if gate else None,
            certificate=gate.threshold.certificate if gate else None,
            signals=dict(self.signals),
            skipped=dict(self.skipped),
            grey=dict(self.grey),
            steps=tuple(self.steps),
            rule=rule,
            degraded=degraded,
            private=private,
            sampled=sampled,
        )
        return Routed(generation=answer, decision=decision)
