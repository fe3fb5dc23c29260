"""A cascade that labels a share of its calls by the cloud's answers, and moves its thresholds by what they prove."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from confroute.asks import Ask, AskGenerator, Consult, Draft, Evidence, Shadow, Tentative
from confroute.decision import Measurement, Routed
from confroute.errors import PolicyError, StateError, loggable
from confroute.flow import intercept
from confroute.learning.sequential_certification import Learned, Looks
from confroute.policy.cascade import Cascade
from confroute.policy.gate import Gate
from confroute.policy.threshold import Threshold
from confroute.policy.wrapper import Wrapper, annotate, by_chance
from confroute.registry import register
from confroute.signals.base import Case, Range, Signal
from confroute.signals.equivalence import disagreement
from confroute.state.store import Store, open_store
from confroute.types import JSON, Generation, Request

_log = logging.getLogger("confroute")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A signal measured to its end: where it may stop early depends on the threshold, and a label must not."""

    signal: Signal

    @property
    def name(self) -> str:
        return self.signal.name

    @property
    def range(self) -> Range:
        return self.signal.range

    @property
    def top_logprobs(self) -> int:
        return getattr(self.signal, "top_logprobs", 0)

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        return (yield from self.signal.measure(replace(case, settled=lambda low, high: low == high)))


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class LearnOnline(Wrapper):
    """A cascade whose thresholds are learned from its own traffic, with a promise that holds at every moment.

    Parameters
    ----------
    policy : Cascade
        Of two tiers; its own thresholds stand until labels prove others.
    alpha, delta : float in (0, 1)
        The mean regret over calls that a certified threshold promises, and the probability that any one that is ever
        certified breaks it; see `Looks`. Regret is `loss` where the edge's answer is kept.
    share : float in (0, 1]
        Share of the calls that is labelled, drawn before the call and without looking at it. A label of a kept answer
        costs a cloud call, which the user never waits for; of an answer that was sent on it costs nothing.
    labels : int
        So many labels of a signal, and it is learned: nothing more is asked for it.
    loss : callable
        `loss(question, edge, cloud)` in [0, 1] of two `Generation`; whether their texts disagree, if not given.
    name : str
        Key in the store: policies of one name learn together.
    store : Store or str
        See `confroute.state.open_store`. "memory:..." forgets when the process ends.

    Raises
    ------
    PolicyError
        A number out of range, more than two tiers, or gates that hang together: grey zones, thresholds by tag.

    Notes
    -----
    Each signal is learned from the calls that it settled, and its promise is about those. A call that a rule, a forced
    route, a threshold of the caller's or a failure settled is not labelled. The promise assumes that calls to come are
    like those so far: `confroute.drift.Audited` around this watches for the day on which they are not. It is about
    agreement with the cloud as `loss` sees it; a cloud that is wrong counts as right.

    Examples
    --------
    >>> from confroute.state import MemoryStore
    >>> LearnOnline(policy=Cascade(), alpha=0.05, store=MemoryStore()).state()["token_logprob"].labels
    0
    """

    learns: ClassVar[bool] = True
    policy: Cascade
    alpha: float = 0.05
    delta: float = 0.1
    share: float = 0.1
    labels: int = 2000
    loss: Callable[[str, Generation, Generation], float] | None = None
    name: str = "edge"
    store: Store | str = "memory:learned"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            msg = f"share is {self.share}: expected the share of calls that is labelled, in (0, 1]"
            raise PolicyError(msg)
        if not isinstance(self.policy, Cascade) or len(self.policy.tiers) != 2:
            msg = f"policy is {self.policy!r}: expected a Cascade of two tiers, with other wrappers around LearnOnline"
            raise PolicyError(msg)
        tied = [gate.signal.name for gate in self.policy.gates if gate.grey is not None or gate.by_tag]
        if tied:
            msg = f"{', '.join(tied)} has a grey zone or thresholds by tag: expected gates whose thresholds can move alone"
            raise PolicyError(msg)
        # Refuses levels that no label could reach.
        _ = self.looks

    @property
    def looks(self) -> Looks:
        """When labels are looked at."""
        return Looks(alpha=self.alpha, delta=self.delta, most=self.labels)

    def state(self) -> dict[str, Learned]:
        """What has been learned, by signal."""
        names = [gate.signal.name for gate in self.policy.gates]
        found: list[dict[str, Any]] = open_store(self.store).change(
            [self._key(name) for name in names], lambda records: (_begun(records), _begun(records))
        )
        return {name: Learned.from_dict(data) for name, data in zip(names, found, strict=True)}

    def current(self) -> Cascade:
        """The policy with the thresholds learned so far: to look at, or to `save`."""
        return self._with(self.state())

    def reset(self) -> None:
        """Forget all labels and thresholds, as after the edge was changed."""
        for gate in self.policy.gates:
            open_store(self.store).change(
                self._keys(gate.signal.name), lambda _: ([Learned().to_dict(), {"rows": []}], None)
            )

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        if request.threshold is not None or request.route is not None:
            return (yield from self.policy.flow(request))
        store = open_store(self.store)
        try:
            drawn = yield Consult(work=lambda: (by_chance(self.share), self.state()), waits=store.waits)
        except StateError as error:
            _log.warning("%s: the policy's own thresholds stand, and nothing is learned", error)
            return annotate(
                (yield from self.policy.flow(request)), "learn", {"share": 0.0, "labelled": False}
            )
        wanted, learned = drawn.value
        label = _Label(learner=self, request=request, learned=learned) if wanted else None
        cascade = self._with(learned)
        if label is None:
            routed = yield from cascade.flow(request)
        else:
            whole = tuple(replace(gate, signal=_Whole(signal=gate.signal)) for gate in cascade.gates)
            routed = yield from intercept(replace(cascade, gates=whole).flow(request), label.seen)
        note: dict[str, JSON] = {"share": self.share, "labelled": False}
        known = learned.get(routed.decision.signal or "")
        if known is not None:
            note |= {"labels": known.labels, "look": known.look}
        if label is not None:
            note["labelled"] = yield from label.kept(routed, waits=store.waits)
        return annotate(routed, "learn", note)

    def _with(self, learned: dict[str, Learned]) -> Cascade:
        gates = tuple(_moved(gate, learned[gate.signal.name].threshold) for gate in self.policy.gates)
        return replace(self.policy, gates=gates)

    def _key(self, signal: str) -> str:
        return f"learn/{self.name}/{signal}"

    def _keys(self, signal: str) -> list[str]:
        # Apart: every call reads the first, and only a label the second.
        return [self._key(signal), f"{self._key(signal)}/rows"]

    def add(self, signal: str, uncertainty: float, loss: float) -> Learned:
        """Take one label, look if it is time, and log what changes.

        Parameters
        ----------
        signal : str
            Of one of the policy's gates.
        uncertainty : float
        loss : float in [0, 1]

        Raises
        ------
        PolicyError
            A loss outside [0, 1].
        """
        if not 0 <= loss <= 1:
            msg = f"the loss of a labelled call is {loss}: expected a number in [0, 1]"
            raise PolicyError(msg)
        own = next(gate.threshold.value for gate in self.policy.gates if gate.signal.name == signal)

        def change(
            records: list[dict[str, Any] | None],
        ) -> tuple[list[dict[str, Any]], tuple[Learned, Learned]]:
            before = Learned.from_dict(records[0] or Learned().to_dict())
            rows = [*(records[1] or {"rows": []})["rows"], [uncertainty, loss]]
            if before.look >= len(self.looks.at):
                return [before.to_dict(), records[1] or {"rows": []}], (before, before)
            after = self.looks.after(before, rows, own)
            return [after.to_dict(), {"rows": rows}], (before, after)

        before, after = open_store(self.store).change(self._keys(signal), change)
        self._say(signal, own, before, after)
        return after

    def _say(self, signal: str, own: float, before: Learned, after: Learned) -> None:
        if after.look == before.look:
            return
        was, now = (own if found.threshold is None else found.threshold.value for found in (before, after))
        if after.threshold == before.threshold:
            words = f"{after.labels} labels promise no further threshold a regret of at most {self.alpha:g}"
        else:
            words = "the policy's own again" if after.threshold is None else after.threshold.source
        _log.warning(
            "%s, look %d: threshold of %s %.4g -> %.4g (%s)", self.name, after.look, signal, was, now, words
        )


def _begun(records: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    return [record or Learned().to_dict() for record in records]


def _moved(gate: Gate, threshold: Threshold | None) -> Gate:
    return gate if threshold is None else replace(gate, threshold=threshold)


@dataclass(slots=True, kw_only=True)
class _Label:
    """One call on its way to a label."""

    learner: LearnOnline
    request: Request
    learned: dict[str, Learned]
    drafts: list[Generation] = field(default_factory=list)

    def seen(self, ask: Ask) -> AskGenerator[Evidence]:
        """Pass an ask on, and remember the draft it brings."""
        evidence = yield ask
        if isinstance(ask, (Draft, Tentative)):
            self.drafts.extend(evidence.generations)
        return evidence

    def kept(self, routed: Routed, *, waits: bool) -> AskGenerator[bool]:
        """Get the cloud's answer, if it is not here already, and keep the label; False if this call cannot be one."""
        decision = routed.decision
        known = self.learned.get(decision.signal or "")
        settled = decision.stage in {"draft", "evidence"} and not decision.private and not decision.degraded
        if not settled or known is None or not self.drafts or known.look >= len(self.learner.looks.at):
            return False
        try:
            if decision.route != self.learner.tiers[-1]:
                yield Shadow(
                    ask=Draft(tier=self.learner.tiers[-1]), then=lambda came: self.came(routed, came)
                )
                return True
            yield Consult(work=lambda: self.add(routed, routed.generation), waits=waits)
        except Exception as error:  # noqa: BLE001  a label that cannot be kept must not cost the user the answer
            _log.error("a label of %s could not be kept: %s", self.learner.name, loggable(error))
            return False
        return True

    def came(self, routed: Routed, outcome: Evidence | Exception) -> None:
        """The cloud's answer to a kept call, or what it ended in."""
        if isinstance(outcome, Exception):
            _log.warning("a label of %s was not to be had: %s", self.learner.name, type(outcome).__name__)
            return
        self.add(routed, outcome.generations[0])

    def add(self, routed: Routed, cloud: Generation) -> None:
        """Keep the label."""
        measured = routed.decision
        assert measured.signal is not None
        assert measured.uncertainty is not None
        loss = (self.learner.loss or disagreement)(self.request.asked, self.drafts[-1], cloud)
        self.learner.add(measured.signal, measured.uncertainty, loss)
