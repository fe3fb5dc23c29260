"""One call's way through budgets: what is reserved, charged and counted for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from confroute.asks import (
    Ask,
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
from confroute.budget import ledger
from confroute.budget.traffic import counted
from confroute.errors import DeadlineError, StateError, StreamInterruptedError
from confroute.flow import Flow
from confroute.policy.layer import noted, through
from confroute.state.store import open_store
from confroute.types import JSON, Request, Usage

if TYPE_CHECKING:
    from confroute.budget.paced import Paced

# Chat templates set every message in a few tokens of their own.
_TOKENS_A_MESSAGE = 32
_log = logging.getLogger("confroute")


class Books:
    """One call's way through the budgets of a `Paced`."""

    def __init__(self, layer: Paced, request: Request) -> None:
        self.layer, self.request = layer, request
        self.store = open_store(layer.store)
        self.keys = [budget.key(request) for budget in layer.budgets]
        self.tier = layer.tiers[-1]
        self.charged = dict.fromkeys((budget.name for budget in layer.budgets), 0.0)
        self.leases: dict[Final, str] = {}

    def run(self) -> Flow:
        """The policy's own flow, paced and paid for."""
        levels = yield from self.tried(
            lambda: self.change(lambda records: [record["level"] for record in records]),
            "this call is not paced",
        )
        request = self.request if levels is None else self.with_pace(levels)
        routed = yield from through(self.layer.policy.flow(request), self.answer)
        counts = routed.decision.signal is not None or any(self.charged.values())
        left = yield from self.tried(lambda: self.observed(counts=counts), "this call is not counted")
        note: dict[str, JSON] = {
            name: {
                "charged": round(self.charged[name], 9),
                "left": None if left is None else round(left[name], 9),
            }
            for name in self.charged
        }
        return noted(routed, "budget", note)

    def tried(self, work: Callable[[], Any], otherwise: str) -> Generator[Ask, Evidence, Any]:
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
            pairs = zip(self.layer.budgets, found, strict=True)
            records = [budget.current(record, now) for budget, record in pairs]
            return records, change(records)

        return self.store.change(self.keys, current)

    def with_pace(self, levels: list[float]) -> Request:
        """The request with the strictest threshold of each signal that a budget paces."""
        found: dict[str, float] = {}
        for budget, level in zip(self.layer.budgets, levels, strict=True):
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
            for budget, record in zip(self.layer.budgets, records, strict=True):
                if not counts:
                    continue
                counted(record, budget.part(now))
                if budget.pace is not None:
                    sent = self.charged[budget.name] > 0
                    budget.pace.moved(record, budget.part(now), budget.limit, sent=sent)
            return {b.name: b.left(r) for b, r in zip(self.layer.budgets, records, strict=True)}

        left: dict[str, float] = self.change(change)
        return left

    def answer(self, ask: Ask) -> Generator[Ask, Evidence, Evidence]:
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

    def gathered(self, ask: Gather) -> Generator[Ask, Evidence, Evidence]:
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

    def reserved(self, ask: ModelAsk) -> Generator[Ask, Evidence, str]:
        """Set the worst case of an ask aside; return its lease."""
        amounts = self.worst(ask)
        layer, now = self.layer, self.store.now

        def work() -> str:
            lease: str = self.change(
                lambda records: ledger.reserve(
                    layer.budgets,
                    records,
                    amounts,
                    now=now(),
                    lease_s=layer.lease_s,
                    keeps_draft=layer.on_spent == "edge",
                )
            )
            return lease

        evidence = yield self.consult(work)
        lease: str = evidence.value
        return lease

    def settled(
        self, lease: str, ask: ModelAsk, outcome: Evidence | Exception
    ) -> Generator[Ask, Evidence, None]:
        """Charge what came of an ask."""
        amounts = self.took(ask, outcome)
        for budget, amount in zip(self.layer.budgets, amounts, strict=True):
            self.charged[budget.name] += amount
        yield from self.tried(
            lambda: self.settle(lease, amounts), "what was reserved is charged in full when its lease ends"
        )

    def settle(self, lease: str, amounts: list[float]) -> None:
        """Write what one ask took into the books."""
        over = self.change(lambda records: ledger.settle(records, lease, amounts))
        for budget, amount in zip(self.layer.budgets, over, strict=True):
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
        size += self.layer.extra_input_tokens
        usage = Usage(input_tokens=size * count, output_tokens=self.layer.max_output_tokens * count)
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
        usd = self.layer.price.of(usage) if self.layer.price else 0.0
        by_unit = {"usd": usd, "tokens": float(usage.total_tokens), "calls": float(calls)}
        return [by_unit[budget.unit] for budget in self.layer.budgets]


def _may_be_billed(error: Exception) -> bool:
    """Whether a call was under way when it ended: nobody knows what the provider counts."""
    if isinstance(error, DeadlineError):
        return False
    known = isinstance(error, (TimeoutError, StreamInterruptedError))
    return known or any("Timeout" in base.__name__ for base in type(error).__mro__)
