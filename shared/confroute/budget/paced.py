"""A policy within budgets: reserve before a call, settle after it, and move the threshold so that the money lasts."""

from __future__ import annotations

import logging
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
)
from confroute.budget import budget as ledger
from confroute.budget.budget import Budget
from confroute.budget.pacing import counted
from confroute.decision import Routed
from confroute.errors import DeadlineError, PolicyError, StateError, StreamInterruptedError
from confroute.flow import Policy, intercept
from confroute.policy.wrapper import Wrapper, annotate, nested_policies
from confroute.prices import Price
from confroute.registry import register
from confroute.state.store import Store, open_store
from confroute.types import JSON, Request, Usage

# Chat templates set every message in a few tokens of their own.
_TOKENS_A_MESSAGE = 32
_log = logging.getLogger("confroute")


class Books:
    """One call's way through the budgets of a `Paced`."""

    def __init__(self, wrapper: Paced, request: Request) -> None:
        self.wrapper, self.request = wrapper, request
        self.store = open_store(wrapper.store)
        self.keys = [budget.key(request) for budget in wrapper.budgets]
        self.tier = wrapper.tiers[-1]
        self.charged = dict.fromkeys((budget.name for budget in wrapper.budgets), 0.0)
        self.leases: dict[Final, str] = {}

    def run(self) -> AskGenerator[Routed]:
        """The policy's own flow, paced and paid for."""
        levels = yield from self.tried(
            lambda: self.change(lambda records: [record["level"] for record in records]),
            "this call is not paced",
        )
        request = self.request if levels is None else self.with_pace(levels)
        routed = yield from intercept(self.wrapper.policy.flow(request), self.answer)
        counts = routed.decision.signal is not None or any(self.charged.values())
        left = yield from self.tried(lambda: self.observed(counts=counts), "this call is not counted")
        note: dict[str, JSON] = {
            name: {
                "charged": round(self.charged[name], 9),
                "left": None if left is None else round(left[name], 9),
            }
            for name in self.charged
        }
        return annotate(routed, "budget", note)

    def tried(self, work: Callable[[], Any], otherwise: str) -> AskGenerator[Any]:
        """What the store says; None where it cannot be reached, which costs a caller no answer."""
        try:
            evidence = yield self.consult(work)
        except StateError as error:
            _log.warning("%s: %s", error, otherwise)
            return None
        return evidence.value

    def consult(self, work: Callable[[], Any]) -> Consult:
        """Ask for something that the store does."""
        return Consult(work=work, waits=self.store.waits)

    def change(self, change: Callable[[list[dict[str, Any]]], Any]) -> Any:
        """Change the current records of all budgets at once."""
        now = self.store.now()

        def current(found: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]], Any]:
            pairs = zip(self.wrapper.budgets, found, strict=True)
            records = [budget.current(record, now) for budget, record in pairs]
            return records, change(records)

        return self.store.change(self.keys, current)

    def with_pace(self, levels: list[float]) -> Request:
        """The request with the strictest threshold of each signal that a budget paces."""
        found: dict[str, float] = {}
        for budget, level in zip(self.wrapper.budgets, levels, strict=True):
            if budget.pace is not None:
                value = budget.pace.threshold(level)
                found[budget.pace.signal] = max(value, found.get(budget.pace.signal, value))
        given = self.request.threshold
        if isinstance(given, Mapping):
            found |= given
        if not found or isinstance(given, (int, float)):
            return self.request
        return replace(self.request, threshold=found, threshold_source="paced by the budget")

    def observed(self, *, counts: bool) -> dict[str, float]:
        """Count the call, move the levels, and say what is left."""
        now = self.store.now()

        def change(records: list[dict[str, Any]]) -> dict[str, float]:
            for budget, record in zip(self.wrapper.budgets, records, strict=True):
                if not counts:
                    continue
                counted(record, budget.part(now))
                if budget.pace is not None:
                    sent = self.charged[budget.name] > 0
                    budget.pace.moved(record, budget.part(now), budget.limit, sent=sent)
            return {b.name: b.left(r) for b, r in zip(self.wrapper.budgets, records, strict=True)}

        left: dict[str, float] = self.change(change)
        return left

    def answer(self, ask: Ask) -> AskGenerator[Evidence]:
        """Pass an ask on; what the last tier is asked is reserved before and settled after."""
        if isinstance(ask, Begin) and ask.ask.tier == self.tier:
            self.leases[ask.ask] = yield from self.reserved(ask.ask)
            return (yield ask)
        if isinstance(ask, Cancel) and ask.ask in self.leases:
            evidence = yield ask
            yield from self.settled(self.leases.pop(ask.ask), ask.ask, evidence)
            return evidence
        if isinstance(ask, Shadow) and ask.ask.tier == self.tier:
            lease = yield from self.reserved(ask.ask)
            return (yield replace(ask, then=self.paying(ask, lease)))
        if isinstance(ask, Gather):
            return (yield from self.gathered(ask))
        if not isinstance(ask, (Draft, Sample, Final, Prompt)) or ask.tier != self.tier:
            return (yield ask)
        begun = self.leases.pop(ask, None) if isinstance(ask, Final) else None
        lease = begun or (yield from self.reserved(ask))
        try:
            evidence = yield ask
        except Exception as error:
            yield from self.settled(lease, ask, error)
            raise
        yield from self.settled(lease, ask, evidence)
        return evidence

    def gathered(self, ask: Gather) -> AskGenerator[Evidence]:
        """Reserve every part before any is asked, and settle each by what it brought."""
        paid: list[tuple[int, ModelAsk, str]] = []
        try:
            for place, part in enumerate(ask.asks):
                if isinstance(part, (Draft, Sample, Final, Prompt)) and part.tier == self.tier:
                    paid.append((place, part, (yield from self.reserved(part))))
            evidence = yield ask
        except Exception as error:
            # A part brings its error, it does not raise: what raises here comes before any is asked.
            for _, part, lease in paid:
                yield from self.settled(lease, part, error)
            raise
        for place, part, lease in paid:
            yield from self.settled(lease, part, evidence.parts[place])
        return evidence

    def reserved(self, ask: ModelAsk) -> AskGenerator[str]:
        """Set the worst case of an ask aside; return its lease."""
        amounts = self.worst(ask)
        wrapper, now = self.wrapper, self.store.now

        def work() -> str:
            lease: str = self.change(
                lambda records: ledger.reserve(
                    wrapper.budgets,
                    records,
                    amounts,
                    now=now(),
                    lease_s=wrapper.lease_s,
                    keeps_draft=wrapper.on_spent == "edge",
                )
            )
            return lease

        evidence = yield self.consult(work)
        lease: str = evidence.value
        return lease

    def settled(self, lease: str, ask: ModelAsk, outcome: Evidence | Exception) -> AskGenerator[None]:
        """Charge what came of an ask."""
        amounts = self.took(ask, outcome)
        for budget, amount in zip(self.wrapper.budgets, amounts, strict=True):
            self.charged[budget.name] += amount
        yield from self.tried(
            lambda: self.settle(lease, amounts), "what was reserved is charged in full when its lease ends"
        )

    def settle(self, lease: str, amounts: list[float]) -> None:
        """Write what one ask took into the books."""
        over = self.change(lambda records: ledger.settle(records, lease, amounts))
        for budget, amount in zip(self.wrapper.budgets, over, strict=True):
            if amount > 0:
                _log.warning(
                    "budget %s: a call took %.6g %s more than its worst case was thought to be; "
                    "raise max_output_tokens or extra_input_tokens",
                    *(budget.name, amount, budget.unit),
                )

    def paying(self, ask: Shadow, lease: str) -> Callable[[Evidence | Exception], None]:
        """What a shadow's outcome is told to: the books first, then whoever asked."""

        def then(outcome: Evidence | Exception) -> None:
            self.settle(lease, self.took(ask.ask, outcome))
            ask.then(outcome)

        return then

    def worst(self, ask: ModelAsk) -> list[float]:
        """The most that an ask can take, in each budget's unit."""
        request, count = self.request, ask.n if isinstance(ask, Sample) else 1
        note = getattr(ask, "note", None) or ""
        texts = [note, *(message.text for message in request.messages)]
        size = sum(len(text.encode("utf-8", "replace")) + _TOKENS_A_MESSAGE for text in texts)
        size += self.wrapper.extra_input_tokens
        usage = Usage(input_tokens=size * count, output_tokens=self.wrapper.max_output_tokens * count)
        return self.amounts(usage, count)

    def took(self, ask: ModelAsk, outcome: Evidence | Exception) -> list[float]:
        """What an ask took: as reported, nothing if no answer came, the worst case where nobody knows."""
        if isinstance(outcome, Exception):
            return self.worst(ask) if _may_be_billed(outcome) else [0.0] * len(self.keys)
        usages = [answer.usage for answer in outcome.generations]
        known = [usage for usage in usages if usage]
        if not known or (isinstance(ask, Final) and None in usages):
            return self.worst(ask)
        return self.amounts(sum(known, Usage()), len(usages))

    def amounts(self, usage: Usage, calls: int) -> list[float]:
        """A usage in each budget's unit."""
        usd = self.wrapper.price.of(usage) if self.wrapper.price else 0.0
        by_unit = {"usd": usd, "tokens": float(usage.total_tokens), "calls": float(calls)}
        return [by_unit[budget.unit] for budget in self.wrapper.budgets]


def _may_be_billed(error: Exception) -> bool:
    """Whether a call was under way when it ended: nobody knows what the provider counts."""
    if isinstance(error, DeadlineError):
        return False
    known = isinstance(error, (TimeoutError, StreamInterruptedError))
    return known or any("Timeout" in base.__name__ for base in type(error).__mro__)


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class Paced(Wrapper):
    """A policy whose calls to the last tier stay within budgets. Stands outermost, so that it sees all that is paid.

    Before a call to that tier its worst case is reserved: bytes of the prompt (no tokenizer makes more tokens of it)
    and `max_output_tokens`, at `price`. What does not fit into a hard budget is not asked. Afterwards the provider's
    own count takes the reservation's place. So no hard budget is ever overspent while the model keeps to
    `max_output_tokens`; give it the same limit.

    Parameters
    ----------
    policy : Policy
    budgets : tuple of Budget
        All of them hold; a call is reserved in all or in none.
    price : Price or None
        Of the last tier; needed for budgets in USD.
    max_output_tokens : int
        The longest answer of the last tier.
    extra_input_tokens : int
        Room for what the conversation does not show: tool descriptions, images.
    store : Store or str
        Where the books are kept; see `confroute.state.open_store`. A text can be saved with the policy.
    on_spent : {"edge", "raise"}
        When nothing is left: return the rejected draft, flagged `degraded`, or raise `BudgetSpentError`. Where there is
        no draft (a forced or ruled call, a broken edge) it is raised in both cases.
    lease_s : float
        A reservation that nobody settles (a process that died, a stream that was left) is charged in full after this.

    Raises
    ------
    PolicyError
        No budget, two of one name, a price that is missing, or an order of wrappers that would leave calls unpaid.

    Notes
    -----
    What is charged: the provider's usage; the whole reservation where it reports none, and after a time-out, a stream
    that broke off or a cancelled hedge, which may have been billed. An answer that never came (HTTP errors, refused
    connections) is charged nothing, and so is an attempt that was tried again. The pace moves only thresholds that the
    caller did not give for the call.

    A store that cannot be reached is said in the log and ends no call that has its answer: drafts are judged unpaced and
    kept as ever, and a call that is to be reserved fails as its tier would (`StateError`).
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

    def __post_init__(self) -> None:
        names = [budget.name for budget in self.budgets]
        if not names or len(set(names)) < len(names):
            msg = f"budgets are named {names}: expected at least one, each with a name of its own"
            raise PolicyError(msg)
        if self.price is None and any(budget.unit == "usd" for budget in self.budgets):
            msg = "a budget in USD needs the price of the last tier: give price=Price(input_usd=..., output_usd=...)"
            raise PolicyError(msg)
        if any(isinstance(inner, Paced) for inner in nested_policies(self.policy)):
            msg = "a Paced inside another one would pay twice: give one of them all budgets"
            raise PolicyError(msg)
        paces = any(budget.pace is not None for budget in self.budgets)
        if paces and any(getattr(inner, "learns", False) for inner in nested_policies(self.policy)):
            msg = "a pace would set the thresholds that are learned inside: take budgets without pace, or another policy"
            raise PolicyError(msg)
        if self.on_spent not in {"edge", "raise"}:
            msg = f"on_spent is {self.on_spent!r}: expected 'edge' or 'raise'"
            raise PolicyError(msg)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        return (yield from Books(self, request).run())
