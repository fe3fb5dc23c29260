"""From recorded rows to the provenance of the policy that is fitted on them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version

from confroute.policy import Cascade
from confroute.policy.provenance import Provenance, RecordedUncertainty, RowSketch
from confroute.recording import Row
from confroute.recording.packed import hash_of, models_of, outlines_of


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
    models = models_of(rows)
    first, *between, last = (models.of(tier) for tier in policy.tiers)
    name = policy.gates[0].signal.name
    return Provenance(
        edge=first.recorded,
        between=tuple(one.recorded for one in between),
        cloud=last.recorded if last.n else None,
        kind=" or ".join(sorted(models.kinds)) or None,
        n=len(rows),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        data_hash=hash_of(rows),
        version=version("confroute"),
        uncertainty=(RecordedUncertainty.of(name, uncertainties),) if uncertainties else (),
        rows=RowSketch.of(one.fingerprint for one in outlines_of(rows)),
    )
