"""What two models were found to be able to do, which signals that allows, and the policy to start with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confroute.policy import Cascade
from confroute.policy.cascade import default_gates
from confroute.policy.files import to_json
from confroute.types import JSON
from confroute.views.html import fragment, table

_MARKS = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One ability of one model.

    Attributes
    ----------
    name : str
    ok : bool or None
        Whether it works; None where it could not be found out.
    detail : str
        What was seen and, where it does not work, what to do.
    """

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was found out about an edge and a cloud.

    Attributes
    ----------
    models : mapping of str to str
        Each tier's model by name.
    checks : mapping of str to tuple of Check
        By tier.
    signals : mapping of str to str
        "possible", or why not, for each signal on this edge.
    """

    models: Mapping[str, str]
    checks: Mapping[str, tuple[Check, ...]]
    signals: Mapping[str, str]

    def works(self, tier: str, name: str) -> bool | None:
        """What the check `name` of `tier` came to; None if it was not made."""
        return next((check.ok for check in self.checks[tier] if check.name == name), None)

    @property
    def ok(self) -> bool:
        """Whether both models answer and the edge can be measured at all."""
        answers = all(self.works(tier, "answers") for tier in self.checks)
        return answers and self.policy is not None

    @property
    def policy(self) -> Cascade | None:
        """The uncalibrated cascade of those default gates that can be measured; None where none can."""
        gates = tuple(gate for gate in default_gates() if self.signals.get(gate.signal.name) == "possible")
        return Cascade(gates=gates) if gates else None

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        tiers: dict[str, JSON] = {
            tier: {
                "model": self.models[tier],
                "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
            }
            for tier, checks in self.checks.items()
        }
        policy = None if self.policy is None else json.loads(to_json(self.policy))
        return {"ok": self.ok, "tiers": tiers, "signals": dict(self.signals), "policy": policy}

    def rows(self) -> Iterable[tuple[str, str, str, str]]:
        """Tier, check, answer and detail in words."""
        for tier, checks in self.checks.items():
            for check in checks:
                yield tier, check.name, _MARKS[check.ok], check.detail
        for name, state in self.signals.items():
            yield "signal", name, "yes" if state == "possible" else "no", "" if state == "possible" else state

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return fragment([table(("", "", "works", ""), self.rows())], label="diagnosis of two models")
