"""A policy within budgets: reserve before a call, settle after it, and move the threshold so that the money lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from confroute.budget.books import Books
from confroute.budget.ledger import Budget
from confroute.errors import PolicyError
from confroute.flow import Flow, Policy
from confroute.policy.files import register
from confroute.policy.layer import Shown, layers_of
from confroute.prices import Price
from confroute.state.store import Store
from confroute.types import Request


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Paced(Shown):
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
        No budget, two of one name, a price that is missing, or a layer order that would leave calls unpaid.

    Notes
    -----
    What is charged: the provider's usage; the whole reservation where it reports none, and after a time-out, a stream
    that broke off or a cancelled hedge, which may have been billed. An answer that never came (HTTP errors, refused
    connections) is charged nothing, and so is an attempt that was tried again. The pace moves only thresholds that the
    caller did not give for the call.

    A store that cannot be reached is said in the log and ends no call that has its answer: drafts are judged unpaced and
    kept as ever, and a call that is to be reserved fails as its tier would (`StateError`).
    """

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
        if any(isinstance(layer, Paced) for layer in layers_of(self.policy)):
            msg = "a Paced inside another one would pay twice: give one of them all budgets"
            raise PolicyError(msg)
        paces = any(budget.pace is not None for budget in self.budgets)
        if paces and any(getattr(layer, "learns", False) for layer in layers_of(self.policy)):
            msg = "a pace would set the thresholds that are learned inside: take budgets without pace, or another policy"
            raise PolicyError(msg)
        if self.on_spent not in {"edge", "raise"}:
            msg = f"on_spent is {self.on_spent!r}: expected 'edge' or 'raise'"
            raise PolicyError(msg)

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those of the policy."""
        tiers: tuple[str, ...] = getattr(self.policy, "tiers", ("edge", "cloud"))
        return tiers

    def flow(self, request: Request) -> Flow:
        """Route one request; see `confroute.flow.Policy`."""
        return (yield from Books(self, request).run())
