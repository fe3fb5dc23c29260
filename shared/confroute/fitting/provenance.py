"""From recorded rows to the provenance of the policy that is fitted on them."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

from confroute.drift.shift import measured_by
from confroute.fitting.rates import tokens
from confroute.fitting.replay import ReplayedCall
from confroute.policy import Cascade
from confroute.policy.provenance import Provenance, RecordedModel, RecordedUncertainty
from confroute.recording import Row, Side
from confroute.recording.rows import ASKED, KIND, json_line


def provenance_of(policy: Cascade, rows: Sequence[Row], replayed: Iterable[ReplayedCall]) -> Provenance:
    """Say what a policy was fitted on.

    Parameters
    ----------
    policy : Cascade
    rows : sequence of Row
        The whole run, as it was read.
    replayed : iterable of ReplayedCall
        What the policy does on those calls that gave its threshold: their uncertainties are compared with those of new calls, and
        so are taken as the policy measures them, with draws that stop early.
    """
    first, *between, last = policy.tiers
    sides = {
        tier: [side for row in rows if tier in row.models and (side := row.side(tier)) is not None]
        for tier in policy.tiers
    }
    kinds = {kind for row in rows if isinstance(kind := row.extra.get(KIND), str)}
    uncertainties = measured_by(policy, (one.decision for one in replayed if one.decision is not None))
    name = policy.gates[0].signal.name
    return Provenance(
        edge=_model(sides[first]),
        between=tuple(_model(sides[tier]) for tier in between),
        cloud=_model(sides[last]) if sides[last] else None,
        kind=" or ".join(sorted(kinds)) or None,
        n=len(rows),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        data_hash=hash_of(rows),
        version=version("confroute"),
        uncertainty=(RecordedUncertainty.of(name, uncertainties),) if uncertainties else (),
    )


def hash_of(rows: Iterable[Row]) -> str:
    """SHA-256 of rows as JSON lines."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(json_line(row))
    return whole.hexdigest()


def _model(sides: Sequence[Side]) -> RecordedModel:
    answered = [side for side in sides if side.text is not None]
    lengths = [used.output_tokens for side in answered if (used := tokens(side)) is not None]
    limits = [limit for side in sides if isinstance(limit := _asked(side).get("max_tokens"), int)]
    cut = sum(side.finish == "length" for side in answered)
    return RecordedModel(
        names=tuple(dict.fromkeys(name for side in sides for name in _names(side))),
        max_tokens=max(limits, default=None),
        longest=max(lengths, default=None),
        cut_off=cut / len(answered) if answered else 0.0,
    )


def _asked(side: Side) -> Mapping[str, object]:
    asked = side.extra.get(ASKED)
    return asked if isinstance(asked, dict) else {}


def _names(side: Side) -> Iterable[str]:
    """The names of a side's model; none where the run says that it was asked for by none."""
    asked = _asked(side)
    name = asked.get("model", side.model)
    return [one for one in dict.fromkeys((name, side.model)) if isinstance(one, str)] if name else []
