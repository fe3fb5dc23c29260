"""What stands around a policy without being one: it sees every ask and its evidence, and adds to the decision."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

from confroute.asks import Ask, Evidence
from confroute.decision import Decision, Routed, Step
from confroute.flow import Flow, Policy, advance
from confroute.types import JSON

_coin = random.Random()  # noqa: S311  no secret: the calls need only be chosen without looking at them


def by_chance(share: float) -> bool:
    """Whether a call is one of this share, which is drawn without looking at it; work of a `Consult`."""
    return _coin.random() < share


class Shown:
    """A policy, or a layer around one, that a notebook shows as a table."""

    __slots__ = ()

    def _repr_html_(self: Policy) -> str:
        """What a notebook shows."""
        from confroute.views.policy import policy_html

        return policy_html(self)


def through(inner: Flow, answer: Callable[[Ask], Generator[Ask, Evidence, Evidence]]) -> Flow:
    """Run `inner` with each of its asks answered by `answer`, which may ask for more or for something else.

    What `answer` raises is thrown into `inner`, as if the ask itself had failed.
    """
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(wanted := advance(inner, evidence, error), Routed):
            evidence, error = None, None
            try:
                evidence = yield from answer(wanted)
            except Exception as caught:  # noqa: BLE001  the inner policy judges it
                error = caught
        return wanted
    finally:
        inner.close()


def noted(routed: Routed, layer: str, note: dict[str, JSON], *steps: Step, **changes: Any) -> Routed:
    """The result with what a layer did in its decision."""
    decision: Decision = replace(
        routed.decision,
        layers={**routed.decision.layers, layer: note},
        steps=(*routed.decision.steps, *steps),
        **changes,
    )
    return replace(routed, decision=decision)


def inner_of(policy: object) -> dict[str, Any]:
    """The policy that a wrapper stands around, by the name of its field; empty for what is no wrapper."""
    return {name: getattr(policy, name) for name in ("policy", "cascade") if hasattr(policy, name)}


def layers_of(policy: Policy) -> Iterator[Any]:
    """The policy and everything inside it, outermost first."""
    inner: Any = policy
    while inner is not None:
        yield inner
        inner = getattr(inner, "policy", None)
