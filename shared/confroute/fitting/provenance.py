"""From recorded rows to the provenance of the policy that is fitted on them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from confroute.fitting.rates import tokens
from confroute.policy import Cascade
from confroute.policy.provenance import Provenance, RecordedModel, RecordedUncertainty
from confroute.recording import Row, Side
from confroute.recording.packed import hash_of
from confroute.recording.rows import ASKED, KIND


def provenance_of(policy: Cascade, rows: Sequence[Row], uncertainties: Sequence[float | None]) -> Provenance:
    """Say what a policy was fitted on.

    Parameters
    ----------
    policy : Cascade
    rows : sequence of Row
        The whole run, as it was read.
    uncertainties : sequence of float or None
        Of those calls that gave its threshold, as the policy measures them, with draws that stop early, since those of new calls are
        compared with them; see `confroute.drift.shift.measured_by`.
    """
    edge, cloud, kinds = _Answers(), _Answers(), set[str]()
    for row in rows:
        edge.add(row.edge)
        if row.cloud is not None:
            cloud.add(row.cloud)
        if isinstance(kind := row.extra.get(KIND), str):
            kinds.add(kind)
    name = policy.gates[0].signal.name
    return Provenance(
        edge=edge.model,
        cloud=cloud.model if cloud.n else None,
        kind=" or ".join(sorted(kinds)) or None,
        n=len(rows),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        data_hash=hash_of(rows),
        version=version("confroute"),
        uncertainty=(RecordedUncertainty.of(name, uncertainties),) if uncertainties else (),
    )


@dataclass(slots=True, kw_only=True)
class _Answers:
    """What is kept of the answers of one tier's model, answer by answer."""

    n: int = 0
    answered: int = 0
    cut: int = 0
    longest: int | None = None
    most: int | None = None
    names: dict[str, None] = field(default_factory=dict)

    def add(self, side: Side) -> None:
        self.n += 1
        self.names.update(dict.fromkeys(_names(side)))
        if isinstance(limit := _asked(side).get("max_tokens"), int):
            self.most = max(limit, self.most or limit)
        if side.text is None:
            return
        self.answered += 1
        self.cut += side.finish == "length"
        if (used := tokens(side)) is not None:
            self.longest = max(used.output_tokens, self.longest or 0)

    @property
    def model(self) -> RecordedModel:
        return RecordedModel(
            names=tuple(self.names),
            max_tokens=self.most,
            longest=self.longest,
            cut_off=self.cut / self.answered if self.answered else 0.0,
        )


def _asked(side: Side) -> Mapping[str, object]:
    asked = side.extra.get(ASKED)
    return asked if isinstance(asked, dict) else {}


def _names(side: Side) -> Iterable[str]:
    """The names of a side's model; none where the run says that it was asked for by none."""
    asked = _asked(side)
    name = asked.get("model", side.model)
    return [one for one in dict.fromkeys((name, side.model)) if isinstance(one, str)] if name else []
