"""The policy that ships: draft on the cheap tier, measure, keep or escalate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from confroute.asks import (
    Ask,
    AskGenerator,
    Consult,
    Draft,
    Evidence,
    Final,
    HelpTool,
    Report,
    Tentative,
    WatchResult,
)
from confroute.decision import ENDED, UNCALIBRATED, Decision, Measurement, Routed, Stage, Step
from confroute.display import Displayable
from confroute.errors import (
    AllTiersFailedError,
    CallEndedError,
    CallThresholdError,
    MissingExtraError,
    ModelError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
    StreamInterruptedError,
    TierError,
    also_as,
)
from confroute.flow import intercept
from confroute.policy.files import load_policy, save_policy
from confroute.policy.gate import Gate, check_threshold
from confroute.policy.prefix import Prefix
from confroute.policy.provenance import Provenance
from confroute.policy.rules import KeepPrivate, Rule, Ruling, SendTo
from confroute.policy.steps import failed_step, step_of, steps_of
from confroute.policy.threshold import Threshold
from confroute.policy.verdict import (
    Verdict,
    blocked_by,
    default_abstention_gate,
    is_empty,
    is_grey,
    replacement,
    settled_test,
    sticky_ruling,
    verdict_of,
    verdict_on_end,
    verdict_on_repetition,
    verdict_without_signal,
    with_abstention_gate,
)
from confroute.registry import register
from confroute.remediation import failure, full_failure, named
from confroute.signals import SelfConsistency, Signal, TokenLogprob
from confroute.signals.base import Case, max_top_logprobs
from confroute.types import TIERS, Generation, Request, Thresholds, Tier

# Said of an answer whose stream may have broken off.
UNFINISHED = "; its stream ended without a reason, so the answer may be cut off"
# The fields of a decision that hold what was measured.
_EVIDENCE = ("signals", "skipped", "grey")
# Set-up errors: hiding them would send every call to the paid tier, or leave a policy without evidence, for ever.
_SET_UP = (MissingExtraError, ModelError, PolicyError)


@dataclass(frozen=True, slots=True)
class _Rejected:
    """A draft that was not kept: its tier, and why."""

    draft: Generation
    tier: str
    verdict: Verdict


@dataclass(slots=True, kw_only=True)
class CascadeRun:
    """The state of one call. Most of its methods are generators: they yield asks and receive evidence."""

    policy: Cascade
    request: Request
    gates: Mapping[str, tuple[Gate, ...]]
    ruling: Ruling | None = None
    steps: list[Step] = field(default_factory=list)
    signals: dict[str, Measurement] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    grey: dict[str, tuple[float, float]] = field(default_factory=dict)
    apart: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected: _Rejected | None = None
    verdict: Verdict | None = None
    judged: str | None = None
    watch: WatchResult | None = None
    pools: dict[float, list[Generation]] = field(default_factory=dict)

    def tier(self, name: str) -> Tier:
        """What the host knows of a tier."""
        return self.request.tiers.get(name) or Tier(name=name, model=name)

    def follow(self, ruling: Ruling) -> AskGenerator[Routed]:
        """Answer on the tier that a rule or the caller named, and on no other."""
        self.ruling = ruling
        stage: Stage = "rule" if self.rule else "forced"
        try:
            answer = yield from self.ask(Final(tier=ruling.tier, private=ruling.private), "final")
        except StreamInterruptedError:
            raise
        except Exception as error:
            if ruling.private:
                msg = f"{ruling.tier} failed and the text is private, so no other tier was asked: {error}"
                raise also_as(TierError(msg), error) from error
            raise
        verdict = Verdict(keep=True, stage=stage, reason=ruling.reason)
        return self.routed(answer, ruling.tier, verdict, rule=self.rule, private=ruling.private)

    def try_tier(self, name: str) -> AskGenerator[Routed | None]:
        """Draft on one tier and judge the draft; None if the next tier has to answer."""
        tier = self.tier(name)
        blocked = blocked_by(tier)
        if blocked:
            self.notes.append(blocked)
            return None
        try:
            draft = yield from self.ask(self.draft_ask(name), "draft")
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
            return self.keep(draft, name, self.verdict)
        cut = self.watch is not None and self.watch.outcome == "cut"
        rejected = _Rejected(replace(draft, flaw="cut off") if cut else draft, name, self.verdict)
        # What cannot be shown is no better than an earlier tier's draft that can.
        if self.rejected is None or rejected.draft.flaw is None:
            self.rejected = rejected
        self.notes.append(self.verdict.reason)
        return None

    def draft_ask(self, tier: str) -> Draft | Tentative:
        """The ask for a draft: watched while it is written where the policy and the request allow it."""
        alternatives = max_top_logprobs([gate.signal for gate in self.gates[tier]])
        prefix, tools = self.policy.prefix, self.request.tools
        help_ = self.policy.ask_for_help if tools else None
        if help_ is not None and help_.name in tools:
            msg = f"the tool {help_.name!r} is one of the caller's tools and the policy's help tool too: give ask_for_help=HelpTool(name=...) another name"
            raise PolicyError(msg)
        watched = prefix is not None and (not prefix.tiers or tier in prefix.tiers)
        if prefix is None or not watched or self.request.whole or self.request.threshold is not None:
            return Draft(tier=tier, top_logprobs=alternatives, help=help_)
        return Tentative(tier=tier, watch=prefix, top_logprobs=alternatives)

    def ask(self, ask: Draft | Tentative | Final, kind: str) -> AskGenerator[Generation]:
        """Ask for one answer, add its step, and return the answer or raise the error that the ask ended in."""
        try:
            evidence = yield ask
            answer = evidence.generations[0] if evidence.generations else Generation(text="")
        except BaseException as error:
            self.steps.append(failed_step(kind, error, tier=ask.tier, model=self.tier(ask.tier).model))
            raise
        model = answer.model or self.tier(ask.tier).model
        self.steps.append(step_of(kind, evidence, tier=ask.tier, model=model))
        self.watch = evidence.watch
        if is_empty(answer, evidence) and not (kind == "final" and self.may_be_silent(answer)):
            ended = "" if answer.finish in {"stop", "unknown"} else f", which ended by {answer.finish!r}"
            msg = f"{ask.tier} returned an empty answer{ended}"
            raise TierError(msg)
        return answer

    def may_be_silent(self, answer: Generation) -> bool:
        """Whether there may be nothing to say: after a tool's answer, models end a turn without words."""
        return (
            answer.finish == "stop"
            and bool(self.request.messages)
            and self.request.messages[-1].role == "tool"
        )

    def judge(self, tier: Tier, draft: Generation) -> AskGenerator[Verdict]:
        """Measure gate after gate until one decides."""
        self.pools = {}
        if self.judged is not None:
            self.set_apart(self.judged)
        self.judged = tier.name
        early = self.verdict_before_gates(tier, draft)
        if early is not None:
            return early
        last: Verdict | None = None
        question, gates = self.request.asked, self.gates[tier.name]
        # With more than one, a reason without a name could be any tier's.
        whose = f"{tier.name} " if len(self.gates) > 1 else ""
        for position, gate in enumerate(gates, start=1):
            more = position < len(gates)
            case = Case(
                tier=tier,
                question=question,
                draft=draft,
                settled=settled_test(gate, more=more),
                pools=self.pools,
                context=self.request.context,
                messages=self.request.messages,
            )
            before = len(self.steps)
            measured = yield from self.measure(gate, case)
            if measured is None:
                continue
            self.signals[measured.signal] = measured
            stage: Stage = "evidence" if len(self.steps) > before else "draft"
            last = verdict_of(gate, measured, stage=stage, whose=whose)
            if not (more and gate.grey and is_grey(gate, measured.uncertainty)):
                return last
            self.grey[measured.signal] = gate.grey
        return last or verdict_without_signal(tier, self.skipped, self.policy.on_no_signal)

    def set_apart(self, tier: str) -> None:
        """Keep what an earlier tier's draft was judged by under names of its own: the next draft is measured anew."""
        for name in _EVIDENCE:
            own = {f"{tier}/{signal}": value for signal, value in getattr(self, name).items()}
            self.apart[name] = {**self.apart.get(name, {}), **own}
            setattr(self, name, {})

    def evidence(self) -> dict[str, Any]:
        """The fields of a decision that hold what drafts were judged by, the latest under the signals' own names."""
        own: dict[str, dict[str, Any]] = {"signals": self.signals, "skipped": self.skipped, "grey": self.grey}
        return own if not self.apart else {name: {**self.apart[name], **found} for name, found in own.items()}

    def verdict_before_gates(self, tier: Tier, draft: Generation) -> Verdict | None:
        """Judge a draft that needs no measurement: unusable, judged by its first tokens, not whole, or a kept answer repeated."""
        if draft.asks_for_help:
            return Verdict(keep=False, stage="asked", reason=f"{tier.name} asked for a larger model")
        if draft.flaw is not None:
            reason = f"{tier.name} answer cannot be used: {draft.flaw}"
            return Verdict(keep=False, stage="draft", reason=reason)
        if self.watch is not None and self.policy.prefix is not None:
            early = self.policy.prefix.verdict(self.watch, tier.name)
            if early is not None and early.measurement is not None:
                self.signals[early.measurement.signal] = early.measurement
                return early
        unfinished = verdict_on_end(tier.name, draft) if self.policy.on_unfinished == "reject" else None
        if unfinished is not None:
            return unfinished
        if self.request.context is None:
            return None
        return verdict_on_repetition(self.request, tier.name, draft)

    def measure(self, gate: Gate, case: Case) -> AskGenerator[Measurement | None]:
        """One gate's measurement; None, with the reason kept, where there is none."""
        try:
            measured = yield from intercept(
                gate.signal.measure(case), partial(self.pass_on, model=case.tier.model)
            )
        except _SET_UP:
            raise
        except SignalUnavailableError as error:
            self.skipped[gate.signal.name] = str(error)
            return None
        except Exception as error:  # noqa: BLE001  a signal that fails is no evidence; the decision says so
            self.skipped[gate.signal.name] = f"{type(error).__name__} while it was measured"
            return None
        if measured.uncertainty not in gate.signal.range:
            self.skipped[gate.signal.name] = f"{measured.uncertainty} is outside the signal's own range"
            return None
        return measured

    def pass_on(self, ask: Ask, *, model: str) -> AskGenerator[Evidence]:
        """Pass a signal's ask on and add its steps; `model` is the judged tier's."""
        try:
            evidence = yield ask
        except BaseException as error:
            self.steps += steps_of(ask, error, model, before=len(self.steps))
            raise
        self.steps += steps_of(ask, evidence, model, before=len(self.steps))
        return evidence

    def keep(self, draft: Generation, name: str, verdict: Verdict) -> Routed:
        """Return the draft, or a sample in its place where the policy wants what most of them say."""
        winner = None
        if self.policy.returns == "majority" and verdict.stage in ("draft", "evidence"):
            winner = replacement(self.request.asked, draft, self.pools.values())
        reason = "; ".join([*self.notes, verdict.reason])
        if winner is None:
            return self.routed(draft, name, verdict, reason=reason)
        return self.routed(winner.answer, name, verdict, reason=f"{reason}; {winner.reason}", sampled=True)

    def ask_last_tier(self, name: str) -> AskGenerator[Routed]:
        """Answer on the last tier, or do without it if it fails."""
        try:
            answer = yield from self.ask(Final(tier=name), "final")
        except StreamInterruptedError:
            raise
        except Exception as error:  # noqa: BLE001  raised again unless the policy has an answer to it
            self.failures[name] = error
            return self.without_last_tier(name, error)
        why = "; ".join(self.notes)
        if self.verdict is not None and not self.verdict.keep:
            verdict = self.verdict
        else:
            verdict = Verdict(keep=True, stage="fallback" if self.failures else "rule", reason=why)
        rule = "capability" if verdict.stage == "rule" else None
        return self.routed(answer, name, verdict, reason=f"{why}: {name} answers", rule=rule)

    def without_last_tier(self, name: str, error: Exception) -> Routed:
        """The last tier failed: return the rejected draft, flagged, or raise an error that names every cause."""
        keeps = self.policy.on_cloud_error == "edge" or getattr(error, "keeps_draft", False)
        rejected = self.rejected
        if keeps and rejected is not None and rejected.draft.flaw is None:
            reason = f"{'; '.join(self.notes)}; {failure(name, error)}: the rejected draft is returned"
            kept = replace(rejected.verdict, keep=True, stage="fallback", reason=reason)
            return self.routed(rejected.draft, rejected.tier, kept, degraded=True)
        if len(self.failures) > 1:
            raise also_as(AllTiersFailedError(self.failures), error) from error
        if rejected is not None:
            msg = f"{full_failure(name, error)} after the draft was rejected: {'; '.join(self.notes)}"
            raise also_as(TierError(msg), error) from error
        raise error

    def failed(self, error: Exception | CallEndedError) -> Decision:
        """The record of a call that ends in `error`, whose text may repeat the prompt and is left out."""
        stage: Stage = error.stage if isinstance(error, CallEndedError) else "failed"
        why = ENDED.get(stage, f"the call failed ({named(error)})")
        return Decision(
            route=next((s.tier for s in reversed(self.steps) if s.tier), self.policy.tiers[0]),
            stage=stage,
            reason="; ".join([*self.notes, why]),
            **_settled_by(self.verdict),
            **self.evidence(),
            steps=tuple(self.steps),
            rule=self.rule,
            private=self.ruling is not None and self.ruling.private,
        )

    @property
    def rule(self) -> str | None:
        """The name of the rule that decided, if one did: a caller who forces a route is none."""
        return None if self.ruling is None or self.ruling.rule == "forced" else self.ruling.rule

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
        """The answer with its decision."""
        decision = Decision(
            route=route,
            stage=verdict.stage,
            reason=(reason or verdict.reason) + (UNFINISHED if answer.unfinished else ""),
            **_settled_by(verdict),
            **self.evidence(),
            steps=tuple(self.steps),
            rule=rule,
            degraded=degraded,
            private=private,
            sampled=sampled,
            run_id=self.request.run_id,
        )
        return Routed(generation=answer, decision=decision)


def _settled_by(verdict: Verdict | None) -> dict[str, Any]:
    """The fields of a decision that hold the measurement of a verdict and the threshold it was compared with."""
    gate, measured = (None, None) if verdict is None else (verdict.gate, verdict.measurement)
    return {
        "uncertainty": measured.uncertainty if measured else None,
        "signal": measured.signal if measured else None,
        "threshold": gate.threshold.value if gate else None,
        "threshold_source": gate.threshold.source if gate else None,
        "certificate": gate.threshold.certificate if gate else None,
    }


def default_gates() -> tuple[Gate, ...]:
    """What a cascade measures by default: log-probabilities, and samples where there are none.

    0.25 nats per token is a mean probability of 78 %; 0.4 is two of five samples. Neither number was fitted to your
    models: record and calibrate before you rely on them.
    """
    return (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.25, source=UNCALIBRATED)),
        Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4, source=UNCALIBRATED)),
    )


@register(kind="policy")
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cascade(Displayable):
    """Ask each tier in turn, cheapest first, and keep the first answer that is certain enough.

    Parameters
    ----------
    gates : tuple of Gate
        Signals and their thresholds, the cheapest first. The first one that can be measured decides, unless its value lies in its grey
        zone and a further one can be measured.
    rules : tuple of Rule
        Asked in order before any model; the first ruling counts, but one that keeps text private overrides everything else, a forced
        route included.
    tiers : tuple of str
        Two or more names, cheapest first. The last one answers when no other may. Each of the others may have thresholds of its own
        (`Gate.by_tier`).
    prefix : Prefix or None
        Commits to a draft, or cuts it off, by its first tokens. None: the gates judge the complete draft.
    on_no_signal : {"cloud", "edge", "raise"}
        When no gate can be measured: go to the next tier, keep the draft, or raise `NoSignalError`.
    on_unfinished : {"reject", "judge"}
        When a draft was cut off at its length limit or by a content filter, or ended in an error: go to the next tier, or let the
        gates judge what there is. A draft that a prefix committed to is kept.
    on_edge_error : {"cloud", "raise"}
        When another tier than the last fails: go to the next one, or raise.
    on_cloud_error : {"raise", "edge"}
        When the last tier fails after a draft was rejected: raise, or return that draft, the latest that can be shown, flagged
        `degraded`.
    returns : {"draft", "majority"}
        What is returned where a tier is kept after samples were drawn: its draft, or the answer that most of draft and samples give
        (`confroute.policy.verdict`), the draft in a tie. The decision says where a sample replaced the draft.
    lacking : Gate or None
        Judges abstentions, drafts that say that the retrieved context lacks the answer, before the other gates; None treats them like
        any other draft. It applies only where context was retrieved.
    ask_for_help : HelpTool or None
        A tool offered to every tier but the last beside the caller's tools, where there are any: a draft that calls it goes to the
        next tier, whatever else it holds. None: it is not offered.
    sticky : bool
        Whether a call that continues an answer of a later tier stays there (the next step of a synthesis).
    provenance : Provenance or None
        What it was fitted on; None if it was not. It decides nothing: routers warn where they are given other models.

    Raises
    ------
    PolicyError
        Fewer than two tiers, a name twice or of a signal, no gate, an unknown value of `returns` or one of the `on_` choices, a rule or
        threshold for a tier that does not exist, or a private rule for a later tier that is not declared local.

    Notes
    -----
    The policy does no I/O and keeps no state: one object serves any number of threads, tasks and hosts.

    Examples
    --------
    >>> policy = Cascade.of(TokenLogprob(), 0.3)
    >>> policy.gates[0].threshold.value
    0.3
    """

    gates: tuple[Gate, ...] = field(default_factory=default_gates)
    rules: tuple[Rule, ...] = ()
    tiers: tuple[str, ...] = TIERS
    prefix: Prefix | None = None
    on_no_signal: Literal["cloud", "edge", "raise"] = "cloud"
    on_unfinished: Literal["reject", "judge"] = "reject"
    on_edge_error: Literal["cloud", "raise"] = "cloud"
    on_cloud_error: Literal["raise", "edge"] = "raise"
    returns: Literal["draft", "majority"] = "draft"
    lacking: Gate | None = field(default_factory=default_abstention_gate)
    ask_for_help: HelpTool | None = None
    sticky: bool = True
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if len(self.tiers) < 2 or len(set(self.tiers)) < len(self.tiers):
            msg = f"tiers are {self.tiers}: expected two or more different names, cheapest first"
            raise PolicyError(msg)
        if not isinstance(self.gates, tuple) or not all(isinstance(gate, Gate) for gate in self.gates):
            msg = f"gates are {self.gates!r}: expected a tuple of Gate(signal=..., threshold=...), with a comma for a single one"
            raise PolicyError(msg)
        if not isinstance(self.rules, tuple) or not all(callable(rule) for rule in self.rules):
            msg = f"rules are {self.rules!r}: expected a tuple of rules such as KeepPrivate(...), with a comma for a single one"
            raise PolicyError(msg)
        names = [gate.signal.name for gate in self.gates]
        if not names or len(set(names)) < len(names):
            msg = f"gates measure {names}: expected at least one signal, each once"
            raise PolicyError(msg)
        self._check_tiers(names)
        if self.ask_for_help is not None and not isinstance(self.ask_for_help, HelpTool):
            msg = f"ask_for_help is {self.ask_for_help!r}: expected HelpTool()"
            raise PolicyError(msg)
        _one_of("on_no_signal", self.on_no_signal, ("cloud", "edge", "raise"))
        _one_of("on_unfinished", self.on_unfinished, ("reject", "judge"))
        _one_of("on_edge_error", self.on_edge_error, ("cloud", "raise"))
        _one_of("on_cloud_error", self.on_cloud_error, ("raise", "edge"))
        _one_of("returns", self.returns, ("draft", "majority"))

    def _check_tiers(self, signals: Sequence[str]) -> None:
        """Refuse names of tiers that could not be told from signals, and whatever is for a tier that does not exist."""
        if both := sorted(set(self.tiers) & set(signals)):
            msg = f"{both[0]!r} is the name of both a tier and a signal, and a threshold for one call could mean either: give the tier another name"
            raise PolicyError(msg)
        for rule in self.rules:
            if isinstance(rule, KeepPrivate):
                rule.check_tier(self.tiers)
            if isinstance(rule, (KeepPrivate, SendTo)) and rule.tier not in self.tiers:
                msg = f"the rule {rule.name!r} names the tier {rule.tier!r}: expected one of {', '.join(self.tiers)}"
                raise PolicyError(msg)
        gates = (*self.gates, *filter(None, (self.lacking,)))
        named = [(f"{gate.signal.name} has a threshold", own.tier) for gate in gates for own in gate.by_tier]
        named += [("the prefix is", tier) for tier in (self.prefix.tiers if self.prefix else ())]
        for what, tier in named:
            if tier not in self.tiers[:-1]:
                msg = f"{what} for drafts of {tier!r}: expected a tier that drafts, one of {', '.join(self.tiers[:-1])}"
                raise PolicyError(msg)

    @classmethod
    def of(
        cls,
        signal: Signal,
        threshold: float | Threshold,
        *,
        rules: tuple[Rule, ...] = (),
        on_no_signal: Literal["cloud", "edge", "raise"] = "cloud",
        on_unfinished: Literal["reject", "judge"] = "reject",
        on_edge_error: Literal["cloud", "raise"] = "cloud",
        on_cloud_error: Literal["raise", "edge"] = "raise",
    ) -> Cascade:
        """Make a cascade of edge and cloud with one signal and one threshold."""
        limit = threshold if isinstance(threshold, Threshold) else Threshold(value=threshold)
        return cls(
            gates=(Gate(signal=signal, threshold=limit),),
            rules=rules,
            on_no_signal=on_no_signal,
            on_unfinished=on_unfinished,
            on_edge_error=on_edge_error,
            on_cloud_error=on_cloud_error,
        )

    def save(self, path: str | Path) -> None:
        """Write this policy to a file; see `confroute.policy.save_policy`.

        Raises
        ------
        PolicyError
            A signal, equivalence or rule of your own that is not registered.
        """
        save_policy(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Cascade:
        """Read a cascade from a file; `confroute.policy.load_policy` reads every other policy as well.

        Raises
        ------
        PolicyError
            See `load_policy`; or the file holds another policy than a cascade.
        """
        policy = load_policy(path)
        if not isinstance(policy, cls):
            msg = f"{path} holds a {type(policy).__name__}: expected a {cls.__name__}; load_policy({str(path)!r}) loads it"
            raise PolicyError(msg)
        return policy

    def flow(self, request: Request, *, rulings: Sequence[Ruling] | None = None) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`.

        Parameters
        ----------
        request : Request
        rulings : sequence of Ruling, optional
            What `ask_rules` returned, to a caller that asked the rules already: a detector may cost more than the draft.

        Raises
        ------
        RequestError
            An empty conversation, or a forced route to a tier that does not exist.
        CallThresholdError
            A threshold for this call that no gate of this policy can use.
        """
        if not request.attachments and not any(message.text.strip() for message in request.messages):
            msg = "the conversation is empty: expected at least one message with content"
            raise RequestError(msg)
        run = CascadeRun(policy=self, request=request, gates=self._gates(request))
        if rulings is None:
            rulings = (yield from self.ask_rules(request)) if self.rules else ()
        ruling = self._ruling(request, rulings)
        try:
            if ruling is not None:
                return (yield from run.follow(ruling))
            for tier in self.tiers[:-1]:
                routed = yield from run.try_tier(tier)
                if routed is not None:
                    return routed
            return (yield from run.ask_last_tier(self.tiers[-1]))
        except (Exception, CallEndedError) as error:
            yield Report(decision=run.failed(error))
            raise

    def ask_rules(self, request: Request) -> AskGenerator[list[Ruling]]:
        """The rulings of those rules that apply, in order; each rule is asked once, and where one `waits`, beside the event loop."""

        def work() -> list[Ruling]:
            return [ruling for rule in self.rules if (ruling := rule(request)) is not None]

        try:
            if not any(getattr(rule, "waits", False) for rule in self.rules):
                return work()
            rulings: list[Ruling] = (yield Consult(work=work, waits=True, ends=True)).value
        except (Exception, CallEndedError) as error:
            # What could not be checked counts as private.
            failed = CascadeRun(policy=self, request=request, gates={}).failed(error)
            yield Report(decision=replace(failed, private=True))
            raise
        return rulings

    def _ruling(self, request: Request, rulings: Sequence[Ruling]) -> Ruling | None:
        for ruling in rulings:
            self._check_tier(ruling.tier, f"rule {ruling.rule!r}")
            if ruling.private:
                return ruling
        if request.route is not None:
            self._check_tier(request.route, "the forced route")
            return Ruling(
                rule="forced", tier=request.route, reason=f"forced to {request.route} by the caller"
            )
        if rulings:
            return rulings[0]
        return sticky_ruling(request, self.tiers) if self.sticky and request.begun_on is not None else None

    def _check_tier(self, tier: str, who: str) -> None:
        if tier not in self.tiers:
            msg = f"{who} names the tier {tier!r}: expected one of {', '.join(self.tiers)}"
            raise RequestError(msg)

    def _gates(self, request: Request) -> dict[str, tuple[Gate, ...]]:
        """The gates of one call by the tier whose draft they judge, with the thresholds of the call, of its tags and of the tier.

        The abstention gate comes first where context was retrieved.
        """
        drafting = self.tiers[:-1]
        given = None if request.threshold is None else self._given(request.threshold)
        gates = self.gates
        if given is None and request.context is not None:
            gates = with_abstention_gate(gates, self.lacking, request)
        if given is None and not request.tags and not any(gate.by_tier for gate in gates):
            return dict.fromkeys(drafting, gates)
        by_tier = {tier: tuple(gate.for_call(tier, request.tags) for gate in gates) for tier in drafting}
        if given is None:
            return by_tier
        return {
            tier: tuple(
                _with_threshold(gate, given[tier].get(gate.signal.name), request.threshold_source)
                for gate in own
            )
            for tier, own in by_tier.items()
        }

    def _given(self, thresholds: Thresholds) -> dict[str, dict[str, Any]]:
        """The thresholds of one call by tier and signal: what is given for a tier goes before what is given for all."""
        names, drafting = [gate.signal.name for gate in self.gates], self.tiers[:-1]
        given = _by_signal(thresholds, names)
        of_tiers = {tier: _by_signal(given.pop(tier), names) for tier in drafting if tier in given}
        unknown = sorted(name for own in (given, *of_tiers.values()) for name in own if name not in names)
        if unknown:
            tiers = f", and drafts are those of {', '.join(drafting)}" if len(drafting) > 1 else ""
            msg = f"threshold for {', '.join(unknown)}: this policy measures {', '.join(names)}{tiers}"
            raise CallThresholdError(msg)
        return {tier: {**given, **of_tiers.get(tier, {})} for tier in drafting}


def _by_signal(thresholds: Thresholds, names: Sequence[str]) -> dict[str, Any]:
    """Thresholds by name; a number is for a policy of one signal."""
    if not isinstance(thresholds, (int, float)):
        return dict(thresholds)
    if len(names) > 1:
        msg = f"threshold {thresholds:g} for a policy of several signals: name the one it is for, as {{{names[0]!r}: {thresholds:g}}}"
        raise CallThresholdError(msg)
    return {names[0]: float(thresholds)}


def _with_threshold(gate: Gate, value: float | None, source: str) -> Gate:
    if value is None:
        return gate
    try:
        check_threshold(gate.signal, value)
        threshold = Threshold(value=value, source=source)
    except PolicyError as error:
        raise CallThresholdError(str(error)) from None
    keep_grey = gate.grey is not None and gate.grey[0] <= value <= gate.grey[1]
    return replace(gate, threshold=threshold, grey=gate.grey if keep_grey else None)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}"
        raise PolicyError(msg)
