"""Policies around a policy: they see every ask and its evidence, and add to the decision."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

from confroute.asks import Ask, AskGenerator, Consult, Evidence, Report
from confroute.decision import Decision, Routed, Step
from confroute.display import Displayable, logger
from confroute.errors import PolicyError, StateError
from confroute.flow import Policy
from confroute.state.store import Store
from confroute.types import JSON, TIERS, Request, Tier

_log = logger()
_coin = random.Random()  # noqa: S311  no secret: the calls need only be chosen without looking at them


def by_chance(share: float) -> bool:
    """Draw whether a call is among this share of all; work of a `Consult`."""
    return _coin.random() < share


class Wrapper(Displayable):
    """A policy around another one, its `policy`.

    Attributes
    ----------
    learns : bool
        Whether it sets the thresholds of the policy inside, which no other wrapper may set then.
    pays : bool
        Whether it charges the calls that it sees to budgets.
    begins_ahead : bool
        Whether it begins a last answer before it is asked for.
    """

    __slots__ = ()
    learns: ClassVar[bool] = False
    pays: ClassVar[bool] = False
    begins_ahead: ClassVar[bool] = False
    policy: Any

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those of the policy inside, cheapest first."""
        tiers: tuple[str, ...] = getattr(self.policy, "tiers", TIERS)
        return tiers


def annotate(routed: Routed, wrapper: str, note: dict[str, JSON], *steps: Step, **changes: Any) -> Routed:
    """Add to a decision what a wrapper did.

    Parameters
    ----------
    routed : Routed
    wrapper : str
        Key of the note in `Decision.layers`.
    note : dict
    *steps : Step
        Further steps.
    **changes : object
        Other fields of the decision.
    """
    return replace(routed, decision=with_layer(routed.decision, wrapper, note, *steps, **changes))


def with_layer(
    decision: Decision, wrapper: str, note: dict[str, JSON], *steps: Step, **changes: Any
) -> Decision:
    """What `annotate` does, to the decision of a call that may have failed."""
    noted: Decision = replace(
        decision,
        layers={**decision.layers, wrapper: note},
        steps=(*decision.steps, *steps),
        **changes,
    )
    return noted


def inner_of(policy: object) -> dict[str, Any]:
    """The policy that a wrapper stands around, by the name of its field; empty for what is no wrapper."""
    return {name: getattr(policy, name) for name in ("policy", "cascade") if hasattr(policy, name)}


def nested_policies(policy: Policy) -> Iterator[Any]:
    """A policy and every one inside it, outermost first."""
    inner: Any = policy
    while inner is not None:
        yield inner
        inner = getattr(inner, "policy", None)


def with_closed_tiers(request: Request, names: Iterable[str], why: str) -> Request:
    """The request with these tiers passed over, unless a rule or the caller names one."""
    known = {name: request.tiers.get(name) or Tier(name=name, model=name) for name in names}
    closed = {name: replace(tier, closed=why) for name, tier in known.items()}
    return replace(request, tiers={**request.tiers, **closed})


def consulted(store: Store, work: Callable[[], Any], consequence: str) -> AskGenerator[Any]:
    """Do work on a store; None and a line in the log if it cannot be reached, which must not cost the answer."""
    try:
        evidence = yield Consult(work=work, waits=store.waits)
    except StateError as error:
        _log.warning("%s: %s", error, consequence)
        return None
    return evidence.value


def hold_back(failed: list[Decision]) -> Callable[[Ask], AskGenerator[Evidence]]:
    """For `intercept`: hold back the record of a failed call, which is reported only if no other tier answers."""

    def answer(ask: Ask) -> AskGenerator[Evidence]:
        if not isinstance(ask, Report):
            return (yield ask)
        failed.append(ask.decision)
        return Evidence()

    return answer


def refuse_paced(policy: Policy, wrapper: str) -> None:
    """Refuse a policy inside `wrapper` that charges budgets: it would not see what the wrapper asks for.

    Raises
    ------
    PolicyError
    """
    if any(getattr(inner, "pays", False) for inner in nested_policies(policy)):
        msg = (
            f"a Paced inside {wrapper} would not see everything that is paid for: put Paced around {wrapper}"
        )
        raise PolicyError(msg)
