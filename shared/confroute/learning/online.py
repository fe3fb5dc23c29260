"""Learns a cascade's thresholds online: a share of the calls is labelled by the cloud's answers, as `loss` compares them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from confroute.asks import Ask, AskGenerator, Consult, Draft, Evidence, Shadow, Tentative
from confroute.decision import Measurement, Routed
from confroute.display import logger
from confroute.errors import FormatError, PolicyError, StateError, loggable
from confroute.flow import intercept
from confroute.learning.sequential_certification import LearningState, SequentialCertification
from confroute.policy.cascade import Cascade
from confroute.policy.wrapper import Wrapper, annotate, by_chance
from confroute.reading import items, refused
from confroute.registry import register
from confroute.signals.base import Case, Range, Signal
from confroute.signals.equivalence import disagreement
from confroute.state.store import Store, keep_address, open_store, using
from confroute.types import JSON, Generation, Request

_log = logger()
_PAIRS = [[one, other] for one in (int, float) for other in (int, float)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unstopped:
    """A signal measured without early stopping, which depends on the threshold, as a label must not."""

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
    """Learns the thresholds of a cascade from its own traffic, with a guarantee that holds at every moment.

    Parameters
    ----------
    policy : Cascade
        With two tiers; its own thresholds are in force until labels prove others.
    alpha, delta : float in (0, 1)
        The mean regret over calls that a certified threshold promises, and the probability that any threshold that is
        ever certified exceeds it; see `SequentialCertification`. Regret is `loss` where the edge's answer is kept.
    share : float in (0, 1]
        Share of the calls to label, drawn before the call and without looking at it. The label of a kept answer costs a
        cloud call, for which the user never waits; that of an escalated answer costs nothing.
    labels : int
        Number of labels per signal after which its learning ends.
    loss : callable
        `loss(question, edge, cloud)` in [0, 1] of two `Generation`; by default whether their texts disagree.
    name : str
        Key in the store: policies of the same name learn together.
    store : Store or str
        See `confroute.state.open_store`. "memory:..." forgets when the process ends.

    Raises
    ------
    PolicyError
        A number out of range, more than two tiers, or gates whose thresholds cannot move alone: grey zones, thresholds
        by tag.

    Notes
    -----
    Each signal is learned from the calls that it settled, and its guarantee is about those. Calls settled by a rule, a
    forced route, a threshold of the caller's or a failure are not labelled. The guarantee assumes that future calls are
    like past ones: put `confroute.drift.Audited` around this policy to detect when they no longer are. It is about
    agreement with the cloud as `loss` measures it; a cloud that is wrong counts as right.

    Examples
    --------
    >>> from confroute.state import MemoryStore
    >>> LearnOnline(policy=Cascade(), alpha=0.05, store=MemoryStore()).state()["token_logprob"].labels
    0
    """

    # Wrappers that set thresholds from outside would override what is learned, and check this.
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
        keep_address(self)
        if not 0 < self.share <= 1:
            msg = f"share is {self.share}: expected the share of calls to label, in (0, 1]"
            raise PolicyError(msg)
        if not isinstance(self.policy, Cascade) or len(self.policy.tiers) != 2:
            msg = f"policy is {self.policy!r}: expected a Cascade of two tiers; put other wrappers around LearnOnline"
            raise PolicyError(msg)
        tied = [
            gate.signal.name
            for gate in self.policy.gates
            if gate.grey is not None or gate.by_tag or gate.by_tier
        ]
        if tied:
            msg = f"{', '.join(tied)} has a grey zone or thresholds by tag: expected gates whose thresholds can move alone"
            raise PolicyError(msg)
        # Refuses levels that these labels could never prove.
        _ = self.certification

    @property
    def certification(self) -> SequentialCertification:
        """When and how labels become thresholds."""
        return SequentialCertification(alpha=self.alpha, delta=self.delta, max_labels=self.labels)

    def state(self) -> dict[str, LearningState]:
        """What has been learned so far, by signal."""
        names = [gate.signal.name for gate in self.policy.gates]
        keys = [self._key(name) for name in names]

        def read(
            records: list[dict[str, Any] | None],
        ) -> tuple[list[dict[str, Any]], list[LearningState]]:
            states = [*map(_state, keys, records)]
            return [state.to_dict() for state in states], states

        states: list[LearningState] = open_store(self.store).change(keys, read)
        return dict(zip(names, states, strict=True))

    def current(self) -> Cascade:
        """The policy with the thresholds learned so far, to inspect or to `save`."""
        return self._with(self.state())

    def reset(self) -> None:
        """Forget all labels and thresholds, for example after a change of the edge."""
        for gate in self.policy.gates:
            for key in self._keys(gate.signal.name):
                open_store(self.store).remove(key)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        if request.threshold is not None or request.route is not None:
            return (yield from self.policy.flow(request))
        store = open_store(self.store)
        try:
            evidence = yield Consult(work=lambda: (by_chance(self.share), self.state()), waits=store.waits)
        except StateError as error:
            _log.warning("%s: the policy's own thresholds are used, and nothing is learned", error)
            return annotate(
                (yield from self.policy.flow(request)), "learn", {"share": 0.0, "labelled": False}
            )
        draw, states = evidence.value
        label = _Label(learner=self, request=request, states=states) if draw else None
        cascade = self._with(states)
        if label is None:
            routed = yield from cascade.flow(request)
        else:
            gates = tuple(replace(gate, signal=_Unstopped(signal=gate.signal)) for gate in cascade.gates)
            routed = yield from intercept(replace(cascade, gates=gates).flow(request), label.observe)
        note: dict[str, JSON] = {"share": self.share, "labelled": False}
        state = states.get(routed.decision.signal or "")
        if state is not None:
            note |= {"labels": state.labels, "look": state.look}
        if label is not None:
            note["labelled"] = yield from label.complete(routed, waits=store.waits)
        return annotate(routed, "learn", note)

    def _with(self, states: dict[str, LearningState]) -> Cascade:
        """The policy with these thresholds."""
        gates = tuple(
            replace(gate, threshold=states[gate.signal.name].threshold or gate.threshold)
            for gate in self.policy.gates
        )
        return replace(self.policy, gates=gates)

    def _key(self, signal: str) -> str:
        return f"learn/{self.name}/{signal}"

    def _keys(self, signal: str) -> list[str]:
        # Two records, as every call reads the first and only a label the second.
        return [self._key(signal), f"{self._key(signal)}/rows"]

    def add(self, signal: str, uncertainty: float, loss: float) -> LearningState:
        """Add one label, take the next look if it is due, and log a change of threshold.

        Parameters
        ----------
        signal : str
            The signal of one of the policy's gates.
        uncertainty : float
        loss : float in [0, 1]

        Raises
        ------
        PolicyError
            The loss is outside [0, 1].
        """
        if not 0 <= loss <= 1:
            msg = f"the loss of a labelled call is {loss}: expected a number in [0, 1]"
            raise PolicyError(msg)
        keys = self._keys(signal)
        own = next(gate.threshold.value for gate in self.policy.gates if gate.signal.name == signal)

        def change(
            records: list[dict[str, Any] | None],
        ) -> tuple[list[dict[str, Any]], tuple[LearningState, LearningState]]:
            before = _state(keys[0], records[0])
            stored = _rows(keys[1], records[1], before)
            if before.look >= len(self.certification.looks):
                return [before.to_dict(), {"rows": stored}], (before, before)
            rows = [*stored, [uncertainty, loss]]
            after = self.certification.update(before, rows, own)
            return [after.to_dict(), {"rows": rows}], (before, after)

        before, after = open_store(self.store).change(keys, change)
        self._log_look(signal, own, before, after)
        return after

    def _log_look(self, signal: str, own: float, before: LearningState, after: LearningState) -> None:
        if after.look == before.look:
            return
        old, new = (own if state.threshold is None else state.threshold.value for state in (before, after))
        if after.threshold == before.threshold:
            reason = (
                f"{after.labels} labels prove no larger threshold with a regret of at most {self.alpha:g}"
            )
        else:
            reason = "the policy's own again" if after.threshold is None else after.threshold.source
        _log.warning(
            "%s, look %d: threshold of %s %.4g -> %.4g (%s)", self.name, after.look, signal, old, new, reason
        )


def _state(key: str, record: dict[str, Any] | None) -> LearningState:
    if record is None:
        return LearningState()
    with using(key):
        return LearningState.from_dict(record)


def _rows(key: str, record: dict[str, Any] | None, state: LearningState) -> list[Any]:
    """The labels behind a state, which have to be as many as it counts: fewer would prove what they do not."""
    with using(key):
        found = items(None if record is None else record.get("rows"), "rows")
        if len(found) != state.labels:
            msg = f"it holds {len(found)} labels and {key.removesuffix('/rows')!r} counts {state.labels}: reset both"
            raise FormatError(msg)
        for at, row in enumerate(found):
            if type(row) is not list or [*map(type, row)] not in _PAIRS:
                raise refused(f"rows[{at}]", row, "[uncertainty, loss]")
    return found


@dataclass(slots=True, kw_only=True)
class _Label:
    """One call that is to become a label."""

    learner: LearnOnline
    request: Request
    states: dict[str, LearningState]
    drafts: list[Generation] = field(default_factory=list)

    def observe(self, ask: Ask) -> AskGenerator[Evidence]:
        """Pass an ask on, and remember the draft that answers it."""
        evidence = yield ask
        if isinstance(ask, (Draft, Tentative)):
            self.drafts.extend(evidence.generations)
        return evidence

    def complete(self, routed: Routed, *, waits: bool) -> AskGenerator[bool]:
        """Get the cloud's answer, unless it is there already, and store the label; False if the call cannot be one."""
        decision = routed.decision
        state = self.states.get(decision.signal or "")
        settled = decision.stage in {"draft", "evidence"} and not decision.private and not decision.degraded
        if not settled or state is None or not self.drafts:
            return False
        if state.look >= len(self.learner.certification.looks):
            return False
        try:
            if decision.route != self.learner.tiers[-1]:
                yield Shadow(
                    ask=Draft(tier=self.learner.tiers[-1]),
                    then=lambda outcome: self.on_cloud_answer(routed, outcome),
                )
                return True
            yield Consult(work=lambda: self.store(routed, routed.generation), waits=waits)
        except Exception as error:  # noqa: BLE001  a label that cannot be stored must not cost the user the answer
            _log.error("a label of %s could not be stored: %s", self.learner.name, loggable(error))
            return False
        return True

    def on_cloud_answer(self, routed: Routed, outcome: Evidence | Exception) -> None:
        """Store the label of a kept call, once the cloud has answered or failed."""
        if isinstance(outcome, Exception):
            _log.warning("no label for %s: the cloud failed (%s)", self.learner.name, type(outcome).__name__)
            return
        self.store(routed, outcome.generations[0])

    def store(self, routed: Routed, cloud: Generation) -> None:
        """Compare the two answers and store the label."""
        decision = routed.decision
        assert decision.signal is not None
        assert decision.uncertainty is not None
        loss = (self.learner.loss or disagreement)(self.request.asked, self.drafts[-1], cloud)
        self.learner.add(decision.signal, decision.uncertainty, loss)
