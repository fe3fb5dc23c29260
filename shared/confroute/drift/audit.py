"""Shadow audits: the cloud is also asked a share of the calls that the edge answered, after the user has the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from confroute.asks import AskGenerator, Consult, Draft, Evidence, Shadow
from confroute.decision import Decision, Routed
from confroute.display import logger
from confroute.drift.eprocess import DriftTest
from confroute.errors import BudgetSpentError, PolicyError, StateError
from confroute.flow import Policy
from confroute.observe.trace import AuditedLoss, publish_loss
from confroute.policy.wrapper import (
    Wrapper,
    annotate,
    by_chance,
    nested_policies,
    refuse_paced,
    with_closed_tiers,
)
from confroute.registry import register
from confroute.signals.equivalence import disagreement
from confroute.state.store import Store, keep_address, open_store, using
from confroute.types import JSON, Generation, Request

_log = logger()


def _judged(decision: Decision) -> bool:
    """Whether a draft was kept or not on its own evidence."""
    judged = decision.stage in {"draft", "evidence", "no_signal"}
    return judged and not decision.private and not decision.degraded


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class Audited(Wrapper):
    """Audits a share of the edge's kept answers, and reacts when they have become worse than promised.

    Parameters
    ----------
    policy : Policy
    test : DriftTest
        The promised loss and the false-alarm rate.
    share : float in (0, 1]
        Share of the edge's kept answers to audit; their decisions record it as the propensity. Each audit costs a cloud
        call; the user never waits for it.
    on_alarm : {"warn", "widen", "cloud"}
        Log a warning; multiply the policy's thresholds by `widen`, so that fewer answers are kept; or skip the edge.
        Each holds until `reset`. Rules still come first: private text never leaves the edge.
    widen : float in (0, 1)
    loss : callable
        `loss(question, edge, cloud)` in [0, 1] of two `Generation`; `disagreement` by default.
    name : str
        Key in the store: audits of the same name share their test.
    store : Store or str
        See `confroute.state.open_store`.

    Raises
    ------
    PolicyError
        A number out of range, an unknown `on_alarm`, or a budget inside, which would not see what audits cost.

    Notes
    -----
    Only calls whose draft was kept on its own evidence are audited: no private calls, no calls settled by a forced route
    or a rule, no degraded answers. The calls to audit are drawn beforehand, without looking at them, so that the audited
    losses are a random sample. Each is published (`confroute.observe.subscribe_losses`), and a decision log keeps it; a call that was
    drawn and that the last tier answered anyway is marked "drawn" in its decision, since it lost nothing.
    """

    policy: Policy
    test: DriftTest
    share: float = 0.02
    on_alarm: Literal["warn", "widen", "cloud"] = "warn"
    widen: float = 0.5
    loss: Callable[[str, Generation, Generation], float] | None = None
    name: str = "edge"
    store: Store | str = "memory:audits"

    def __post_init__(self) -> None:
        keep_address(self)
        if not 0 < self.share <= 1 or not 0 < self.widen < 1:
            msg = f"share={self.share}, widen={self.widen}: expected share in (0, 1] and widen in (0, 1)"
            raise PolicyError(msg)
        if self.on_alarm not in {"warn", "widen", "cloud"}:
            msg = f"on_alarm is {self.on_alarm!r}: expected 'warn', 'widen' or 'cloud'"
            raise PolicyError(msg)
        refuse_paced(self.policy, "Audited")
        if self.on_alarm == "widen" and any(
            getattr(inner, "learns", False) for inner in nested_policies(self.policy)
        ):
            msg = "on_alarm='widen' would undo the thresholds that the policy learns: use 'warn' or 'cloud'"
            raise PolicyError(msg)
        if self.on_alarm == "widen" and not self._gates:
            msg = "on_alarm='widen' moves the thresholds of gates, and this policy has none: use 'warn' or 'cloud'"
            raise PolicyError(msg)

    @property
    def _gates(self) -> tuple[Any, ...]:
        return next((inner.gates for inner in nested_policies(self.policy) if hasattr(inner, "gates")), ())

    @property
    def _key(self) -> str:
        return f"audit/{self.name}"

    def state(self) -> dict[str, Any]:
        """The test's state: number of audits, sum of losses, wealth of each bet, and the audit that raised the alarm."""
        return self._change(lambda state: state)

    def reset(self) -> None:
        """Start a new test, once the edge has been repaired or the policy fitted again."""
        open_store(self.store).remove(self._key)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        store = open_store(self.store)
        try:
            evidence = yield Consult(
                work=lambda: (by_chance(self.share), self.state()["alarm_at"]), waits=store.waits
            )
        except StateError as error:
            _log.warning("%s: calls are not audited and an alarm has no effect", error)
            return annotate(
                (yield from self.policy.flow(request)), "audit", {"propensity": 0.0, "audited": False}
            )
        audit, alarm_at = evidence.value
        routed = yield from self.policy.flow(
            request if alarm_at is None else self._under_alarm(request, alarm_at)
        )
        note: dict[str, JSON] = {"propensity": self.share, "audited": False}
        if alarm_at is not None:
            note |= {"alarm_at": alarm_at, "on_alarm": self.on_alarm}
        if not self._can_audit(routed):
            note["propensity"] = 0.0
            if audit and self._escalated(routed):
                note["drawn"] = True
        elif audit:
            try:
                yield Shadow(ask=Draft(tier=self.tiers[-1]), then=self._recorder(request, routed.generation))
                note["audited"] = True
            except (BudgetSpentError, StateError) as error:
                # The answer is there already: an audit that fails must not cost it.
                note |= {"propensity": 0.0, "skipped": type(error).__name__}
        return annotate(routed, "audit", note)

    def _can_audit(self, routed: Routed) -> bool:
        return routed.decision.route != self.tiers[-1] and _judged(routed.decision)

    def _escalated(self, routed: Routed) -> bool:
        """Whether a call would have been audited, had its draft been kept: among all calls it is one that lost nothing."""
        return routed.decision.route == self.tiers[-1] and _judged(routed.decision)

    def _under_alarm(self, request: Request, alarm_at: int) -> Request:
        """The request with the tiers that draft closed, or their thresholds narrowed."""
        drafting = self.tiers[:-1]
        if self.on_alarm == "cloud":
            return with_closed_tiers(request, drafting, f"drift alarm after {alarm_at} audits")
        if self.on_alarm == "widen" and request.threshold is None:
            thresholds = {
                tier: {
                    gate.signal.name: gate.for_call(tier, request.tags).threshold.value * self.widen
                    for gate in self._gates
                }
                for tier in drafting
            }
            source = f"times {self.widen:g} after a drift alarm"
            return replace(request, threshold=thresholds, threshold_source=source)
        return request

    def _recorder(self, request: Request, edge: Generation) -> Callable[[Evidence | Exception], None]:
        """A function that takes the cloud's answer, updates the test, and logs an alarm."""

        def record(outcome: Evidence | Exception) -> None:
            if isinstance(outcome, Exception):
                _log.warning("an audit of %s failed: %s", self.name, type(outcome).__name__)
                return
            answer = outcome.generations[0]
            loss = float((self.loss or disagreement)(request.asked, edge, answer))
            before, after = self._transition(lambda state: self.test.update(state, loss))
            publish_loss(AuditedLoss(name=self.name, loss=loss, tier=self.tiers[-1], usage=answer.usage))
            if before["alarm_at"] is None and after["alarm_at"] is not None:
                _log.warning(
                    "drift alarm of %s: mean loss %.3g in %d audits, promised %.3g; on_alarm=%r",
                    *(self.name, after["lost"] / after["audits"], after["audits"]),
                    *(self.test.level, self.on_alarm),
                )

        return record

    def _change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Change the test's state in the store; return the new state."""
        return self._transition(change)[1]

    def _transition(
        self, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Change the test's state in the store; return the states before and after."""

        def on_records(records: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]], Any]:
            if records[0] is not None:
                with using(self._key):
                    self.test.check(records[0])
            before = records[0] or self.test.begin()
            after = change(before)
            return [after], (before, after)

        states: tuple[dict[str, Any], dict[str, Any]] = open_store(self.store).change([self._key], on_records)
        return states
