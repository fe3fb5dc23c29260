"""The policy that ships: draft on the cheap tier, measure, keep or escalate."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from confroute.asks import Ask, Draft, Evidence, Final, Report, Seen, Tentative
from confroute.decision import Decision, Measurement, Routed, Stage, Step
from confroute.errors import (
    AllTiersFailedError,
    MissingExtraError,
    ModelError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
    StreamInterruptedError,
    TierError,
)
from confroute.flow import Flow
from confroute.policy.files import load_policy, save_policy
from confroute.policy.gate import Gate, check_threshold
from confroute.policy.prefix import Prefix
from confroute.policy.rules import Rule, Ruling
from confroute.policy.steps import drafting, failed_step, is_missing, kind_of, step_of, steps_of
from confroute.policy.threshold import DEFAULT_SOURCE, Threshold
from confroute.policy.verdict import (
    Verdict,
    blocked_by,
    default_lacking,
    gates_for,
    is_grey,
    repeated,
    replacement,
    settled,
    stay,
    unmeasured,
    verdict_of,
)
from confroute.policy.wrapper import Shown
from confroute.registry import register
from confroute.remediation import failure, told
from confroute.signals import SelfConsistency, Signal, TokenLogprob
from confroute.signals.base import Asking, Case, alternatives_wanted
from confroute.types import Generation, Request, Tier

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


def default_gates() -> tuple[Gate, ...]:
    """What a cascade measures if it is not told: log-probabilities, and samples where there are none.

    0.25 nats a token is a mean probability of 78 %; 0.4 is two of five samples. Neither number was fitted to your
    models: record and calibrate before you rely on them.
    """
    return (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.25, source=DEFAULT_SOURCE)),
        Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4, source=DEFAULT_SOURCE)),
    )


@register(kind="policy")
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cascade(Shown):
    """Ask each tier in turn, cheapest first, and keep the first answer that is certain enough.

    Parameters
    ----------
    gates : tuple of Gate
        Signals by cost. The first one that can be measured decides, unless its value lies in its grey zone and a
        further one can be measured.
    rules : tuple of Rule
        Asked in order before any model; the first ruling counts, but one that keeps text private comes before
        everything, a forced route included.
    tiers : tuple of str
        Two or more names, cheapest first. The last one answers what no other may.
    prefix : Prefix or None
        Commits to a draft, or cuts it off, by its first tokens. None: a draft is judged whole by the gates.
    on_no_signal : {"cloud", "edge", "raise"}
        When no gate can be measured: go to the next tier, keep the draft, or raise `NoSignalError`.
    on_edge_error : {"cloud", "raise"}
        When a tier that may be replaced fails.
    on_cloud_error : {"raise", "edge"}
        When the last tier fails after a draft was rejected: raise, or return that draft flagged `degraded`.
    returns : {"draft", "majority"}
        What is returned where a tier is kept after samples were drawn: its draft, or the answer that most of draft and samples
        give (`confroute.policy.verdict`), the draft in a tie. The decision says where a sample took the draft's place.
    lacking : Gate or None
        Judges drafts that say that the retrieved context lacks the answer, before the other gates; None treats them
        like any other draft. Calls without retrieved context have none.
    sticky : bool
        Whether a call that goes on from an answer of a later tier stays there (the next step of a synthesis).

    Raises
    ------
    PolicyError
        Fewer than two tiers, a name twice, no gate, or an unknown word for `returns` or one of the `on_` choices.

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
    tiers: tuple[str, ...] = ("edge", "cloud")
    prefix: Prefix | None = None
    on_no_signal: Literal["cloud", "edge", "raise"] = "cloud"
    on_edge_error: Literal["cloud", "raise"] = "cloud"
    on_cloud_error: Literal["raise", "edge"] = "raise"
    returns: Literal["draft", "majority"] = "draft"
    lacking: Gate | None = field(default_factory=default_lacking)
    sticky: bool = True

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
        _one_of("on_no_signal", self.on_no_signal, ("cloud", "edge", "raise"))
        _one_of("on_edge_error", self.on_edge_error, ("cloud", "raise"))
        _one_of("on_cloud_error", self.on_cloud_error, ("raise", "edge"))
        _one_of("returns", self.returns, ("draft", "majority"))

    def __repr__(self) -> str:
        """One line; `save` writes it all."""
        from confroute.views.policy import policy_text

        return policy_text(self)

    @classmethod
    def of(
        cls,
        signal: Signal,
        threshold: float | Threshold,
        *,
        rules: tuple[Rule, ...] = (),
        on_no_signal: Literal["cloud", "edge", "raise"] = "cloud",
        on_edge_error: Literal["cloud", "raise"] = "cloud",
        on_cloud_error: Literal["raise", "edge"] = "raise",
    ) -> Cascade:
        """A cascade of edge and cloud with one signal and one threshold."""
        given = threshold if isinstance(threshold, Threshold) else Threshold(value=threshold)
        return cls(
            gates=(Gate(signal=signal, threshold=given),),
            rules=rules,
            on_no_signal=on_no_signal,
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

    def flow(self, request: Request, *, rulings: Sequence[Ruling] | None = None) -> Flow:
        """Route one request; see `confroute.flow.Policy`.

        Parameters
        ----------
        request : Request
        rulings : sequence of Ruling, optional
            What `rulings` gave, for a layer that asked the rules already: a detector may cost more than the draft.

        Raises
        ------
        RequestError
            An empty conversation, or a forced route to a tier that does not exist.
        PolicyError
            A threshold for this call that no gate of this policy can use.
        """
        if not any(message.text.strip() for message in request.messages) and not request.attachments:
            msg = "the conversation is empty: expected at least one message with content"
            raise RequestError(msg)
        walk = Walk(policy=self, request=request, gates=self._gates(request))
        ruling = self._ruling(request, self.rulings(request) if rulings is None else rulings)
        try:
            return (yield from self._steps(walk, ruling))
        except Exception as error:
            yield Report(decision=walk.failed(error))
            raise

    def _steps(self, walk: Walk, ruling: Ruling | None) -> Generator[Ask, Evidence, Routed]:
        if ruling is not None:
            return (yield from walk.ruled(ruling))
        for tier in self.tiers[:-1]:
            routed = yield from walk.try_tier(tier)
            if routed is not None:
                return routed
        return (yield from walk.last_resort(self.tiers[-1]))

    def rulings(self, request: Request) -> list[Ruling]:
        """What the rules say, in their order; each is asked once."""
        return [ruling for rule in self.rules if (ruling := rule(request)) is not None]

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
        return stay(request, self.tiers) if self.sticky else None

    def _check_tier(self, tier: str, who: str) -> None:
        if tier not in self.tiers:
            msg = f"{who} names the tier {tier!r}: expected one of {', '.join(self.tiers)}"
            raise RequestError(msg)

    def _gates(self, request: Request) -> tuple[Gate, ...]:
        """The gates with the thresholds that the caller gave for this call."""
        given = request.threshold
        if given is None:
            own = tuple(gate.for_tags(request.tags) for gate in self.gates) if request.tags else self.gates
            return gates_for(request, own, self.lacking)
        names = [gate.signal.name for gate in self.gates]
        if isinstance(given, (int, float)):
            if len(names) > 1:
                msg = f"threshold {given:g} for a policy of several signals: name the one it is for, as {{{names[0]!r}: {given:g}}}"
                raise PolicyError(msg)
            given = {names[0]: float(given)}
        unknown = set(given) - set(names)
        if unknown:
            msg = f"threshold for {', '.join(sorted(unknown))}: this policy measures {', '.join(names)}"
            raise PolicyError(msg)
        gates = (gate.for_tags(request.tags) for gate in self.gates)
        whose = request.threshold_source
        return tuple(_with_threshold(gate, given.get(gate.signal.name), whose) for gate in gates)


def _with_threshold(gate: Gate, value: float | None, source: str) -> Gate:
    if value is None:
        return gate
    check_threshold(gate.signal, value)
    keep_grey = gate.grey is not None and gate.grey[0] <= value <= gate.grey[1]
    return replace(
        gate,
        threshold=Threshold(value=value, source=source),
        grey=gate.grey if keep_grey else None,
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}"
        raise PolicyError(msg)
