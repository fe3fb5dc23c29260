"""Conversations stay where their prompt is cached, as long as the discount is worth more than staying costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from confroute.asks import AskGenerator, Report
from confroute.decision import Decision, Routed
from confroute.errors import CallEndedError, PolicyError, StreamInterruptedError
from confroute.flow import Policy, intercept
from confroute.policy.wrapper import (
    Wrapper,
    annotate,
    consulted,
    hold_back,
    nested_policies,
    refuse_paced,
    with_closed_tiers,
)
from confroute.prices import Price
from confroute.reading import fields, number, numbers, refused, whole
from confroute.registry import register
from confroute.signals.combined import Combined
from confroute.state.store import UNTIL, Record, Store, keep_address, open_store, using
from confroute.types import JSON, Request, Usage

# The answers whose prompt is the conversation's: samples have the same, prompts of signals another.
_CONVERSATION = ("draft", "final")


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class TierPrice:
    """What the tokens of one tier cost.

    Attributes
    ----------
    tier : str
    price : Price
    """

    tier: str
    price: Price


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky(Wrapper):
    """Keep a conversation on the tier whose prompt cache holds it, unless that costs more than the discount is worth.

    A cache that is not used ends after `ttl_s`, and the next call of its tier pays the whole prompt again. So where a tier's cache
    would end before the next turn, that tier is asked this turn too, which renews it, as long as that costs no more than the
    discount is worth times the probability that a turn needs it in time, and until all has cost as much as the discount is worth.

    Parameters
    ----------
    policy : Policy
        Its rules come first: private text, a tier that a rule names and a forced route hold as without `Sticky`.
    prices : tuple of TierPrice
        Of later tiers; only those whose `Price.cached_usd` is below `input_usd` have a discount to lose.
    value_usd : float or None
        What an answer turned from wrong to right is worth, in USD, above 0. A draft then goes on where the expected gain, the
        calibrated uncertainty times this, is above what the next tier's answer will be billed, given how much of the prompt is
        cached there: the threshold is that bill divided by the value. It needs a `Combined` signal, which is a probability or an
        expected gain; log-probabilities and shares of samples are neither. None: the policy's own thresholds say what is worth a
        switch.
    per : str
        The label that holds the conversation: calls tagged "thread_id=7" are one. Calls without it are routed as without `Sticky`.
    ttl_s : float
        Seconds after its last use that a provider keeps a prompt, above 0.
    name : str
        Key in the store.
    store : Store or str
        See `confroute.state.open_store`. It holds, by conversation, counts of tokens, times and USD; nothing of the text.

    Raises
    ------
    PolicyError
        A tier that does not exist, is the first or appears twice, a number out of range, `value_usd` without a calibrated signal or
        with thresholds that are learned, or a budget inside.

    Notes
    -----
    A tier's cache is taken to hold the tokens that the provider reported as read or written for its last answer; where none are reported it
    is worth nothing. It is worth these tokens times the discount. Staying for a turn costs these tokens at the cached price and as many
    output tokens as the last answer had; prompt tokens that the tier has not read yet cost the same now or later and are left out.

    The next turn is expected after as long a pause as the last one. The probability that a turn needs the tier is estimated from the turns
    that the policy has decided, p = (needed + 1) / (decided + 2); a renewed cache lasts for n turns, one of which needs it with probability
    1 - (1 - p)^n. If turns need the tier independently, comparing cost and expected worth in this way is best on average.

    To stop once it has cost the discount bounds the loss where they do not: whenever the tier is needed again, or never, to stay until
    then costs at most twice what the best choice in hindsight would have (renting or buying: Karlin et al., Competitive snoopy
    caching, Algorithmica 3, 1988). A turn that stays is answered by the later tier, so no answer is kept that the policy would not have
    kept, and what its thresholds promise of the loss against the last tier stays true. If that tier fails, the call is routed anew.
    With `value_usd` the thresholds are this wrapper's own, and promise nothing.

    Examples
    --------
    >>> from confroute import Cascade
    >>> price = Price(input_usd=3.0, output_usd=15.0, cached_usd=0.3)
    >>> policy = Sticky(policy=Cascade(), prices=(TierPrice(tier="cloud", price=price),))
    >>> policy.ttl_s, policy.tiers
    (300.0, ('edge', 'cloud'))
    """

    policy: Policy
    prices: tuple[TierPrice, ...]
    value_usd: float | None = None
    per: str = "thread_id"
    ttl_s: float = 300.0
    name: str = "conversations"
    store: Store | str = "memory:sticky"

    def __post_init__(self) -> None:
        keep_address(self)
        refuse_paced(self.policy, "Sticky")
        named = [one.tier for one in self.prices]
        if not named or len(set(named)) < len(named) or not set(named) <= set(self.tiers[1:]):
            msg = f"prices are for {named}: expected one or more of {', '.join(self.tiers[1:])}, each once"
            raise PolicyError(msg)
        if not 0 < self.ttl_s < math.inf:
            msg = f"ttl_s is {self.ttl_s}: expected a number of seconds above 0"
            raise PolicyError(msg)
        if self.value_usd is not None:
            self._check_value(self.value_usd)

    def _check_value(self, value: float) -> None:
        if not 0 < value < math.inf:
            msg = f"value_usd is {value}: expected the value of a right answer in USD, above 0"
            raise PolicyError(msg)
        if not self.calibrated:
            msg = (
                "value_usd is compared with a calibrated uncertainty, and this policy measures none: fit one "
                "(`confroute fit --signal combined`), or leave it out, and the thresholds decide"
            )
            raise PolicyError(msg)
        if any(getattr(inner, "learns", False) for inner in nested_policies(self.policy)):
            msg = "value_usd would override the thresholds that the policy learns: leave it out"
            raise PolicyError(msg)

    @property
    def calibrated(self) -> tuple[Combined, ...]:
        """The signals of the policy inside whose uncertainty is a probability or an expected gain."""
        gates: tuple[Any, ...] = ()
        for inner in nested_policies(self.policy):
            # A `HeadFirst` has its gates in its cascade.
            gates += getattr(getattr(inner, "cascade", inner), "gates", ())
        return tuple(gate.signal for gate in gates if isinstance(gate.signal, Combined))

    def price_of(self, tier: str) -> Price | None:
        """Of a tier; None where none was given."""
        return next((one.price for one in self.prices if one.tier == tier), None)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        label = request.label(self.per)
        if label is None:
            return (yield from self.policy.flow(request))
        return (yield from _Turn(self, request, f"sticky/{self.name}/{label}").run())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """What is known of a tier's cache.

    Attributes
    ----------
    tokens, output_tokens : int
        In it, and of its last answer.
    at : float
        When that was.
    needed : int
        Turns that needed the tier.
    paid_usd : float
        What renewing it has cost since the last of them.
    """

    tokens: int
    output_tokens: int
    at: float
    needed: int
    paid_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thread:
    """A conversation: when its last turn was, how many turns the policy has decided, and its caches by tier."""

    at: float
    decided: int
    caches: Mapping[str, _Cache]

    @classmethod
    def read(cls, record: Record) -> _Thread:
        """From the store's record of it, each field checked."""
        caches = {}
        for tier, value in fields(record.get("caches"), "caches").items():
            found = numbers(value, f"caches.{tier}", low=0)
            if len(found) != 5:
                raise refused(f"caches.{tier}", value, "5 numbers")
            caches[tier] = _Cache(
                tokens=int(found[0]),
                output_tokens=int(found[1]),
                at=found[2],
                needed=int(found[3]),
                paid_usd=found[4],
            )
        decided = whole(record.get("decided"), "decided")
        return cls(at=number(record.get("at"), "at"), decided=decided, caches=caches)

    def written(self) -> Record:
        """As the store keeps it."""
        return {
            "at": self.at,
            "decided": self.decided,
            "caches": {
                tier: [one.tokens, one.output_tokens, one.at, one.needed, one.paid_usd]
                for tier, one in self.caches.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stake:
    """A cache that would end before the next turn.

    Attributes
    ----------
    tier : str
    tokens : int
        That it holds.
    worth_usd : float
        What it would cost to write them anew.
    need : float in [0, 1]
        Probability that a turn needs the tier before the renewed cache ends.
    turn_usd : float
        What it costs to stay for this turn.
    cost_usd : float
        The same, with all turns that stayed since a turn needed the tier.
    """

    tier: str
    tokens: int
    worth_usd: float
    need: float
    turn_usd: float
    cost_usd: float

    @property
    def stays(self) -> bool:
        return self.turn_usd <= self.need * self.worth_usd and self.cost_usd <= self.worth_usd

    @property
    def words(self) -> str:
        return (
            f"the prompt cache of {self.tier}, {self.tokens} tokens, is worth {self.worth_usd:.2g} USD and would end before the next "
            f"turn; staying costs {self.turn_usd:.2g} ({self.cost_usd:.2g} since a turn needed that tier), and the renewed cache is needed in "
            f"time with probability {self.need:.2f}"
        )

    def note(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "stayed": self.stays,
            "tier": self.tier,
            "cached_tokens": self.tokens,
            "worth_usd": round(self.worth_usd, 9),
            "need": round(self.need, 6),
            "turn_usd": round(self.turn_usd, 9),
            "cost_usd": round(self.cost_usd, 9),
        }


class _Turn:
    """One turn of a conversation."""

    def __init__(self, sticky: Sticky, request: Request, key: str) -> None:
        self.sticky, self.request, self.key = sticky, request, key
        self.store = open_store(sticky.store)

    def run(self) -> AskGenerator[Routed]:
        """The policy's own flow, with earlier tiers closed where the conversation stays."""
        seen = yield from consulted(self.store, self.read, "this turn is routed as if nothing were cached")
        if seen is None:
            return (yield from self.sticky.policy.flow(self.request))
        now, thread = seen
        stake = self.stake(now, thread)
        if stake is not None and stake.stays:
            routed = yield from self.stay(stake)
        else:
            routed = yield from self.sticky.policy.flow(self.with_value(now, thread))
        routed = _noted(routed, stake)
        yield from consulted(
            self.store, lambda: self.write(routed.decision, stake), "what this turn cached is not known"
        )
        return routed

    def change(self, change: Callable[[float, _Thread], _Thread]) -> tuple[float, _Thread]:
        """Change the record of this conversation; returns the time, and the conversation as it was."""
        now = self.store.now()

        def on_records(records: list[Record | None]) -> tuple[list[Record], tuple[float, _Thread]]:
            with using(self.key):
                thread = (
                    _Thread(at=now, decided=0, caches={}) if records[0] is None else _Thread.read(records[0])
                )
            changed = change(now, thread).written()
            # Records end together, so that the store need not look for ended ones at every change.
            until = (math.floor(now / self.sticky.ttl_s) + 2) * self.sticky.ttl_s
            return [{**changed, UNTIL: until}], (now, thread)

        result: tuple[float, _Thread] = self.store.change([self.key], on_records)
        return result

    def read(self) -> tuple[float, _Thread]:
        """The time, and the conversation with the caches that have not ended."""
        now, thread = self.change(lambda _, thread: thread)
        warm = {tier: one for tier, one in thread.caches.items() if one.at + self.sticky.ttl_s > now}
        return now, replace(thread, caches=warm)

    def write(self, decision: Decision, stake: _Stake | None) -> None:
        """Keep what the turn's answers were billed."""
        used = {
            step.tier: step.usage
            for step in decision.steps
            if step.kind in _CONVERSATION
            and step.tier
            and step.usage
            and self.sticky.price_of(step.tier) is not None
        }

        def change(now: float, thread: _Thread) -> _Thread:
            stayed = stake.tier if stake is not None and stake.stays else None
            caches = dict(thread.caches)
            for tier, usage in used.items():
                known = caches.get(tier)
                caches[tier] = _Cache(
                    tokens=min(usage.input_tokens, usage.cached_tokens + usage.cache_write_tokens),
                    output_tokens=usage.output_tokens,
                    at=now,
                    needed=(known.needed if known else 0) + (tier != stayed),
                    paid_usd=stake.cost_usd if stake is not None and tier == stayed else 0.0,
                )
            return _Thread(at=now, decided=thread.decided + (stayed is None), caches=caches)

        self.change(change)

    def stake(self, now: float, thread: _Thread) -> _Stake | None:
        """The cache that would end before the next turn, the latest tier's first; None where none would."""
        gap_s = now - thread.at
        for tier in reversed(self.sticky.tiers[1:]):
            cache, price = thread.caches.get(tier), self.sticky.price_of(tier)
            if cache is None or price is None or cache.at + self.sticky.ttl_s > now + gap_s:
                continue
            worth = cache.tokens * price.cache_discount_usd / 1e6
            if worth > 0:
                again = Usage(
                    input_tokens=cache.tokens, cached_tokens=cache.tokens, output_tokens=cache.output_tokens
                )
                turn = price.of(again)
                # The mean of its posterior under a uniform prior.
                rate = (cache.needed + 1) / (thread.decided + 2)
                return _Stake(
                    tier=tier,
                    tokens=cache.tokens,
                    worth_usd=worth,
                    need=1 - (1 - rate) ** (self.sticky.ttl_s // gap_s),
                    turn_usd=turn,
                    cost_usd=cache.paid_usd + turn,
                )
        return None

    def stay(self, stake: _Stake) -> AskGenerator[Routed]:
        """Route with the tiers before the stake's closed; anew if it fails, since the others may answer."""
        tiers = self.sticky.tiers
        closed = with_closed_tiers(self.request, tiers[: tiers.index(stake.tier)], stake.words)
        failed: list[Decision] = []
        try:
            return (yield from intercept(self.sticky.policy.flow(closed), hold_back(failed)))
        except (Exception, CallEndedError) as error:
            ended = isinstance(error, (CallEndedError, StreamInterruptedError, PolicyError))
            if ended or not failed or failed[-1].private or failed[-1].route != stake.tier:
                while failed:
                    yield Report(decision=failed.pop())
                raise
        routed = yield from self.sticky.policy.flow(self.request)
        reason = f"{failed[-1].reason}; {routed.decision.reason}"
        steps = (*failed[-1].steps, *routed.decision.steps)
        return replace(routed, decision=replace(routed.decision, reason=reason, steps=steps))

    def with_value(self, now: float, thread: _Thread) -> Request:
        """The request with thresholds at which the expected gain pays what the next tier will bill."""
        value = self.sticky.value_usd
        if value is None or self.request.threshold is not None:
            return self.request
        thresholds = {
            before: {one.name: min(one.range.high, bill / value) for one in self.sticky.calibrated}
            for before, bill in self.bills(thread)
        }
        if not thresholds:
            return self.request
        source = f"what the next tier bills, with its cache, of {value:g} USD for a right answer"
        return replace(self.request, threshold=thresholds, threshold_source=source)

    def bills(self, thread: _Thread) -> Iterator[tuple[str, float]]:
        """For each tier that drafts, what an answer of the next one is expected to be billed, where that is known."""
        tiers = self.sticky.tiers
        for before, tier in itertools.pairwise(tiers):
            facts, price = self.request.tiers.get(tier), self.sticky.price_of(tier)
            if facts is None or facts.input_tokens is None or price is None:
                continue
            cache = thread.caches.get(tier)
            usage = Usage(
                input_tokens=facts.input_tokens,
                cached_tokens=cache.tokens if cache else 0,
                output_tokens=cache.output_tokens if cache else 0,
            )
            yield before, price.of(usage)


def _noted(routed: Routed, stake: _Stake | None) -> Routed:
    """The decision with what was at stake, in its reason too."""
    decision = routed.decision
    if stake is None:
        return annotate(routed, "sticky", {"stayed": False})
    if not stake.stays:
        reason = f"{decision.reason}; not stayed for it: {stake.words}"
        return annotate(routed, "sticky", stake.note(), reason=reason)
    stayed = decision.route == stake.tier and decision.rule == "capability"
    note: dict[str, JSON] = {**stake.note(), "stayed": decision.route == stake.tier}
    return annotate(routed, "sticky", note, rule="sticky" if stayed else decision.rule)
