"""From recorded rows to the provenance of the policy that is fitted on them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version

from confroute.policy import Cascade
from confroute.policy.provenance import Provenance, RecordedUncertainty
from confroute.recording import Row
from confroute.recording.packed import hash_of, models_of


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
    name = policy.gates[0].signal.name
    return Provenance(
        edge=models.edge.recorded,
        cloud=models.cloud.recorded if models.cloud.n else None,
        kind=" or ".join(sorted(models.kinds)) or None,
        n=len(rows),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        data_hash=hash_of(rows),
        version=version("confroute"),
        uncertainty=(RecordedUncertainty.of(name, uncertainties),) if uncertainties else (),
    )
