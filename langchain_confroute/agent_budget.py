"""`AgentBudget`: what one run or one thread of an agent may use of the cloud, and what happens when it is used up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, SystemMessage

from confroute.display import logger
from confroute.errors import BudgetSpentError, PolicyError
from confroute.prices import Price
from confroute.types import Usage

_log = logger()
# Keys of the agent's state; LangGraph drops those of a run when it ends.
PLACES = {"run": "confroute_run", "thread": "confroute_cloud"}
UNITS = ("calls", "tokens", "usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentBudget:
    """How much of the cloud an agent may use; what is spent stands in its state, that of a thread in its checkpoint.

    Attributes
    ----------
    per : {"run", "thread"}
        One invocation of the agent (a resumed one is another), or all of a thread; without a checkpointer the two are the same.
    calls : int or None
        Model calls that the cloud answers or is asked to.
    tokens : int or None
        Tokens, input and output, that the cloud bills.
    usd : float or None
        What the cloud bills, by `price`. The call that passes a limit is still made.
    price : Price or None
        Of the cloud's tokens.
    on_budget : {"edge", "end", "raise"}
        When it is spent. "edge": the edge answers, and its system message says so, in words; a private rule and a route that
        the caller forces come first. "end": no model is asked, and the agent's answer says so. "raise": `BudgetSpentError`.

    Raises
    ------
    PolicyError
        No limit, one below 0, `usd` without `price`, or an unknown choice.

    Examples
    --------
    >>> budget = AgentBudget(per="run", usd=0.05, price=Price(input_usd=1.0, output_usd=4.0))
    >>> budget.spent({"confroute_run_usd": 0.06})
    'the run has used 0.06 of 0.05 USD of the cloud'
    """

    per: Literal["run", "thread"] = "thread"
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    price: Price | None = None
    on_budget: Literal["edge", "end", "raise"] = "edge"

    def __post_init__(self) -> None:
        given = [value for value in (self.calls, self.tokens, self.usd) if value is not None]
        if not given or not all(0 <= value < math.inf for value in given):
            msg = f"calls is {self.calls}, tokens {self.tokens} and usd {self.usd}: expected at least one of them, 0 or more"
            raise PolicyError(msg)
        if self.usd is not None and self.price is None:
            msg = f"usd is {self.usd}, and what a token costs is not known: give price=Price(input_usd=..., output_usd=...)"
            raise PolicyError(msg)
        for name, value, known in (
            ("per", self.per, tuple(PLACES)),
            ("on_budget", self.on_budget, ("edge", "end", "raise")),
        ):
            if value not in known:
                msg = f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}"
                raise PolicyError(msg)

    def spent(self, state: Mapping[str, Any]) -> str | None:
        """Why no more may be used, or None."""
        for unit, limit in zip(UNITS, (self.calls, self.tokens, self.usd), strict=True):
            used = state.get(f"{PLACES[self.per]}_{unit}", 0)
            if limit is not None and used >= limit:
                return f"the {self.per} has used {used:.6g} of {limit:.6g} {'USD' if unit == 'usd' else unit} of the cloud"
        return None

    def error(self, state: Mapping[str, Any]) -> BudgetSpentError:
        """What a spent budget raises."""
        limits = zip(UNITS, (self.calls, self.tokens, self.usd), strict=True)
        left = {
            unit: limit - state.get(f"{PLACES[self.per]}_{unit}", 0)
            for unit, limit in limits
            if limit is not None
        }
        unit = min(left, key=left.__getitem__)
        return BudgetSpentError(budget=self.per, left=max(0.0, left[unit]), unit=unit)


def spending(
    state: Mapping[str, Any], steps: Iterable[Mapping[str, Any]], budget: AgentBudget | None
) -> dict[str, float]:
    """The state's counters after these steps of the cloud, those of the run and those of the thread; empty where there are none."""
    bills = [step["usage"] for step in steps]
    if not bills:
        return {}
    billed = [Usage(**bill) for bill in bills if bill]
    if budget is not None and len(billed) < len(bills) and (budget.tokens, budget.usd) != (None, None):
        _log.warning(
            "the cloud reports no usage for %d of %d calls: the budget of the %s cannot count them",
            len(bills) - len(billed),
            len(bills),
            budget.per,
        )
    total = sum(billed, Usage())
    added: dict[str, float] = {"calls": len(bills), "tokens": total.total_tokens}
    if budget is not None and budget.price is not None:
        added["usd"] = budget.price.of(total)
    return {
        f"{place}_{unit}": state.get(f"{place}_{unit}", 0) + amount
        for place in PLACES.values()
        for unit, amount in added.items()
    }


def told(message: SystemMessage | None, why: str) -> SystemMessage:
    """The system message of an agent whose budget is spent: its own, then that."""
    words = f"Budget: {why}. From here on a smaller model answers: finish with what there is, and say what is missing."
    if message is None:
        return SystemMessage(words)
    content = message.content
    longer: Any = (
        f"{content}\n\n{words}" if isinstance(content, str) else [*content, {"type": "text", "text": words}]
    )
    return message.model_copy(update={"content": longer})


def farewell(why: str) -> AIMessage:
    """The answer of an agent that ends for its budget."""
    return AIMessage(f"I stop here: {why}, and its budget allows no more.")
