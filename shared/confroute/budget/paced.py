"""Keeps a policy within budgets: a call's worst case is reserved before it, and its real cost is charged after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from confroute.asks import (
    Ask,
    AskGenerator,
    Begin,
    Cancel,
    Consult,
    Draft,
    Evidence,
    Final,
    Gather,
    ModelAsk,
    Prompt,
    Sample,
    Shadow,
    Tentative,
)
from confroute.budget import budget as reservations
from confroute.budget.budget import Budget
from confroute.budget.pacing import count_call
from confroute.decision import Routed
from confroute.display import logger
from confroute.error_notes import noted_usage
from confroute.errors import CallEndedError, DeadlineError, PolicyError, StreamInterruptedError
from confroute.flow import Policy, intercept
from confroute.policy.wrapper import Wrapper, annotate, consulted, nested_policies
from confroute.prices import Price
from confroute.registry import register
from confroute.state.store import UNTIL, Store, keep_address, open_store, using
from confroute.types import JSON, TIERS, Request, Usage

# Chat templates wrap every message in a few tokens of their own.
_TOKENS_PER_MESSAGE = 32
_PAID = (Draft, Tentative, Sample, Final, Prompt)
_NOTHING = {"charged": 0.0}
_log = logger()


class BudgetedCall:
    """One call under a `Paced`: what it reserves, what it is charged, and how it moves the pace."""

    def __init__(self, paced: Paced, request: Request) -> None:
        self.paced, self.request = paced, request
        self.store = open_store(paced.store)
        self.keys = [budget.key(request) for budget in paced.budgets]
        self.tier = paced.paid_tier
        self.charged = dict.fromkeys((budget.name for budget in paced.budgets), 0.0)
        self.leases: dict[Final, str] = {}

    def run(self) -> AskGenerator[Routed]:
        """The policy's own flow, with thresholds set by the pace and every cloud call reserved and charged."""
        levels = yield from self.attempt(
            lambda: self.change(lambda records: [record["level"] for record in records]),
            "this call is not paced",
        )
        request = self.request if levels is None else self.with_pace(levels)
        routed = yield from intercept(self.paced.policy.flow(request), self.answer)
        counts = routed.decision.signal is not None or any(self.charged.values())
        left = yield from self.attempt(lambda: self.record_call(counts=counts), "this call is not counted")
        # Of a Paced inside, for another tier, whose budgets may be the same.
        inside: Any = routed.decision.layers.get("budget", {})
        note: dict[str, JSON] = {
            name: {
                "charged": round(self.charged[name] + inside.get(name, _NOTHING)["charged"], 9),
                "left": None if left is None else round(left[name], 9),
            }
            for name in self.charged
        }
        return annotate(routed, "budget", {**inside, **note})

    def attempt(self, work: Callable[[], Any], consequence: str) -> AskGenerator[Any]:
        """Do work on the store; None and a line in the log if it cannot be reached, which must not cost the answer."""
        return (yield from consulted(self.store, work, consequence))

    def consult(self, work: Callable[[], Any]) -> Consult:
        """The ask for work on the store."""
        return Consult(work=work, waits=self.store.waits)

    def change(self, change: Callable[[list[dict[str, Any]]], Any]) -> Any:
        """Change the records of all budgets in one transaction, each brought up to date first."""
        now = self.store.now()

        def on_records(stored: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]], Any]:
            records = []
            for budget, key, record in zip(self.paced.budgets, self.keys, stored, strict=True):
                if record is not None:
                    with using(key):
                        reservations.check_record(record)
                records.append(budget.current(record, now))
            result = change(records)
            for budget, record in zip(self.paced.budgets, records, strict=True):
                if (until := budget.kept_until(record, now)) is not None:
                    record[UNTIL] = until
            return records, result

        return self.store.change(self.keys, on_records)

    def with_pace(self, levels: list[float]) -> Request:
        """The request with the thresholds of the paces; of several for one signal, the one that sends fewest calls."""
        thresholds: dict[str, float] = {}
        for budget, level in zip(self.paced.budgets, levels, strict=True):
            if budget.pace is not None:
                value = budget.pace.threshold(level)
                thresholds[budget.pace.signal] = max(value, thresholds.get(budget.pace.signal, value))
        override = self.request.threshold
        if not thresholds or isinstance(override, (int, float)):
            return self.request
        return replace(
            self.request,
            threshold=self.merged(thresholds, override or {}),
            threshold_source="paced by the budget",
        )

    def merged(self, paced: dict[str, float], override: Mapping[str, Any]) -> dict[str, Any]:
        """The thresholds of the paces, of the tier whose drafts the paid one stands in for, under those that the caller set."""
        tiers = self.paced.tiers
        if len(tiers) == len(TIERS):
            return {**paced, **override}
        before = tiers[tiers.index(self.tier) - 1]
        own = override.get(before, {})
        if isinstance(own, (int, float)):
            return dict(override)
        free = {signal: value for signal, value in paced.items() if signal not in override}
        return {**override, before: {**free, **own}}

    def record_call(self, *, counts: bool) -> dict[str, float]:
        """Count the call and move the levels, if it counts; return what each budget has left."""
        now = self.store.now()

        def change(records: list[dict[str, Any]]) -> dict[str, float]:
            for budget, record in zip(self.paced.budgets, records, strict=True):
                if not counts:
                    continue
                count_call(record, budget.elapsed(now))
                if budget.pace is not None:
                    sent = self.charged[budget.name] > 0
                    budget.pace.move(record, budget.elapsed(now), budget.limit, sent=sent)
            return {b.name: b.left(r) for b, r in zip(self.paced.budgets, records, strict=True)}

        left: dict[str, float] = self.change(change)
        return left

    def answer(self, ask: Ask) -> AskGenerator[Evidence]:
        """Pass an ask on; if it is for the paid tier, reserve its worst case before and settle it after."""
        if isinstance(ask, Begin) and ask.ask.tier == self.tier:
            self.leases[ask.ask] = yield from self.reserve(ask.ask)
            return (yield ask)
        if isinstance(ask, Cancel) and ask.ask in self.leases:
            evidence = yield ask
            error = evidence.value
            outcome = error if isinstance(error, Exception) else evidence
            yield from self.settle(self.leases.pop(ask.ask), ask.ask, outcome)
            return evidence
        if isinstance(ask, Shadow) and ask.ask.tier == self.tier:
            lease = yield from self.reserve(ask.ask)
            return (yield replace(ask, then=self.settle_shadow(ask, lease)))
        if isinstance(ask, Gather):
            return (yield from self.answer_gather(ask))
        if not isinstance(ask, _PAID) or ask.tier != self.tier:
            return (yield ask)
        # A `Begin` of this answer has reserved it already.
        lease_of_begin = self.leases.pop(ask, None) if isinstance(ask, Final) else None
        lease = lease_of_begin or (yield from self.reserve(ask))
        try:
            evidence = yield ask
        except (Exception, CallEndedError) as error:
            yield from self.settle(lease, ask, error)
            raise
        yield from self.settle(lease, ask, evidence)
        return evidence

    def answer_gather(self, ask: Gather) -> AskGenerator[Evidence]:
        """Reserve every part before any is asked, and settle each by its outcome."""
        leases: list[tuple[int, ModelAsk | Tentative, str]] = []
        try:
            for index, part in enumerate(ask.asks):
                if isinstance(part, _PAID) and part.tier == self.tier:
                    leases.append((index, part, (yield from self.reserve(part))))
            evidence = yield ask
        except (Exception, CallEndedError) as error:
            # The error of a part is in the evidence: what is raised here comes before any part was asked.
            for _, part, lease in leases:
                yield from self.settle(lease, part, error)
            raise
        for index, part, lease in leases:
            yield from self.settle(lease, part, evidence.parts[index])
        return evidence

    def reserve(self, ask: ModelAsk | Tentative) -> AskGenerator[str]:
        """Reserve the worst case of an ask; return its lease."""
        amounts = self.worst_case(ask)
        paced, now = self.paced, self.store.now

        def work() -> str:
            lease: str = self.change(
                lambda records: reservations.reserve(
                    paced.budgets,
                    records,
                    amounts,
                    now=now(),
                    lease_s=paced.lease_s,
                    keeps_draft=paced.on_spent == "edge",
                )
            )
            return lease

        evidence = yield self.consult(work)
        lease: str = evidence.value
        return lease

    def settle(
        self, lease: str, ask: ModelAsk | Tentative, outcome: Evidence | BaseException
    ) -> AskGenerator[None]:
        """Charge the cost of an ask in place of its reservation."""
        amounts = self.cost(ask, outcome)
        for budget, amount in zip(self.paced.budgets, amounts, strict=True):
            self.charged[budget.name] += amount
        yield from self.attempt(
            lambda: self.store_settlement(lease, amounts),
            "the reservation is charged in full when its lease ends",
        )

    def settle_shadow(self, ask: Shadow, lease: str) -> Callable[[Evidence | Exception], None]:
        """A shadow's `then` that charges its cost first."""

        def then(outcome: Evidence | Exception) -> None:
            self.store_settlement(lease, self.cost(ask.ask, outcome))
            ask.then(outcome)

        return then

    def store_settlement(self, lease: str, amounts: list[float]) -> None:
        """Write the cost of one ask to the store, and warn if it was more than was reserved."""
        excess = self.change(lambda records: reservations.settle(records, lease, amounts))
        for budget, amount in zip(self.paced.budgets, excess, strict=True):
            if amount > 0:
                _log.warning(
                    "budget %s: a call cost %.6g %s more than its assumed worst case; "
                    "raise max_output_tokens or extra_input_tokens",
                    *(budget.name, amount, budget.unit),
                )

    def worst_case(self, ask: ModelAsk | Tentative) -> list[float]:
        """The most that an ask can cost, in each budget's unit."""
        request, count = self.request, ask.n if isinstance(ask, Sample) else 1
        note = getattr(ask, "note", None) or ""
        texts = [note, *(message.text for message in request.messages)]
        size = sum(len(text.encode("utf-8", "replace")) + _TOKENS_PER_MESSAGE for text in texts)
        size += self.paced.extra_input_tokens
        usage = Usage(input_tokens=size * count, output_tokens=self.paced.max_output_tokens * count)
        return self.amounts(usage, count)

    def cost(self, ask: ModelAsk | Tentative, outcome: Evidence | BaseException) -> list[float]:
        """The cost of an ask: as reported, nothing if no answer came, the worst case if it is unknown."""
        if isinstance(outcome, BaseException):
            if _may_be_billed(outcome):
                return self.worst_case(ask)
            return self.amounts(noted_usage(outcome) or Usage(), 1 if noted_usage(outcome) else 0)
        usages = [answer.usage for answer in outcome.generations]
        reported = [usage for usage in usages if usage]
        if not reported or (isinstance(ask, Final) and None in usages):
            return self.worst_case(ask)
        made = sum(not answer.from_cache for answer in outcome.generations)
        return self.amounts(sum(reported, outcome.lost or Usage()), made)

    def amounts(self, usage: Usage, calls: int) -> list[float]:
        """Convert a usage to each budget's unit."""
        usd = self.paced.price.of(usage) if self.paced.price else 0.0
        by_unit = {"usd": usd, "tokens": float(usage.total_tokens), "calls": float(calls)}
        return [by_unit[budget.unit] for budget in self.paced.budgets]


def _may_be_billed(error: BaseException) -> bool:
    """Whether a call may have been under way when it failed, so that the provider may bill it."""
    if isinstance(error, DeadlineError):
        return False
    under_way = isinstance(error, (TimeoutError, StreamInterruptedError, CallEndedError))
    return under_way or any("Timeout" in base.__name__ for base in type(error).__mro__)


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class Paced(Wrapper):
    """Keeps a policy's calls to a tier, by default the last one, within budgets. Must be outermost, so that it sees everything that is paid.

    Before a call to that tier its worst case is reserved: the bytes of the prompt (no tokenizer makes more tokens of
    it) and `max_output_tokens`, at `price`. A call that does not fit into a hard budget is not made. Afterwards the
    provider's own count replaces the reservation. So a hard budget is never overspent as long as the model keeps to
    `max_output_tokens`; give it the same limit.

    Parameters
    ----------
    policy : Policy
    budgets : tuple of Budget
        All of them apply; a call is reserved in all or in none.
    price : Price or None
        Price of the tier; needed for budgets in USD.
    max_output_tokens : int
        The longest answer of the tier.
    extra_input_tokens : int
        Reserve for input that the messages do not contain: tool descriptions, images.
    store : Store or str
        Where the budgets' records are kept; see `confroute.state.open_store`. A policy with a string here can be saved.
    on_spent : {"edge", "raise"}
        If nothing is left: return the rejected draft, flagged `degraded`, or raise `BudgetSpentError`. Without a draft
        (a forced or ruled call, a failed edge) it is raised in both cases.
    lease_s : float
        A reservation that is never settled (the process died, the stream was abandoned) is charged in full after this.
    tier : str or None
        The tier whose calls are paid; None for the last one. Where its budget is spent, a tier that drafts is passed over as one that
        failed. For several tiers put one `Paced` around another: budgets of the same name in one store are one purse.

    Raises
    ------
    PolicyError
        No budget, two of the same name, a missing price, a tier that does not exist or is paid already, a pace for the first tier, or an
        order of wrappers that would leave calls unpaid.

    Notes
    -----
    A call is charged the provider's usage. The whole reservation is charged if none is reported, and after a time-out, a
    broken stream or a cancelled hedge, which may have been billed. An answer that never came (HTTP errors, refused
    connections) costs nothing, and neither does an attempt that was retried. The pace never moves a threshold that the
    caller set for the call.

    If the store cannot be reached, the log says so, and a call that has its answer still returns it: drafts are judged
    without the pace. A call that would need a reservation fails as its tier would (`StateError`).
    """

    pays: ClassVar[bool] = True
    policy: Policy
    budgets: tuple[Budget, ...]
    price: Price | None = None
    max_output_tokens: int = 1024
    extra_input_tokens: int = 256
    store: Store | str = "memory:budgets"
    on_spent: Literal["edge", "raise"] = "edge"
    lease_s: float = 600.0
    tier: str | None = None

    def __post_init__(self) -> None:
        keep_address(self)
        names = [budget.name for budget in self.budgets]
        if not names or len(set(names)) < len(names):
            msg = f"budgets are named {names}: expected at least one, and different names"
            raise PolicyError(msg)
        if self.price is None and any(budget.unit == "usd" for budget in self.budgets):
            msg = "a budget in USD needs the price of the last tier: pass price=Price(input_usd=..., output_usd=...)"
            raise PolicyError(msg)
        if self.tier is not None and self.tier not in self.tiers:
            msg = f"tier is {self.tier!r}: expected one of {', '.join(self.tiers)}"
            raise PolicyError(msg)
        inside = [inner for inner in nested_policies(self.policy) if isinstance(inner, Paced)]
        if any(inner.paid_tier == self.paid_tier for inner in inside):
            msg = "a Paced inside another one would charge calls twice: give all budgets of a tier to one of them"
            raise PolicyError(msg)
        paces = any(budget.pace is not None for budget in self.budgets)
        if paces and self.paid_tier == self.tiers[0]:
            msg = f"a pace decides which drafts go on to a tier, and {self.paid_tier} is the first: use budgets without pace"
            raise PolicyError(msg)
        if paces and any(getattr(inner, "learns", False) for inner in nested_policies(self.policy)):
            msg = "a pace would override the thresholds that the policy learns: use budgets without pace, or another policy"
            raise PolicyError(msg)
        if self.on_spent not in {"edge", "raise"}:
            msg = f"on_spent is {self.on_spent!r}: expected 'edge' or 'raise'"
            raise PolicyError(msg)

    @property
    def paid_tier(self) -> str:
        """The tier whose calls are paid from the budgets."""
        return self.tiers[-1] if self.tier is None else self.tier

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        return (yield from BudgetedCall(self, request).run())
