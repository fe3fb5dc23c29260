"""Says where a router is given other models than those that its policy was fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache

from confroute.hosts.model import ModelFacts
from confroute.policy.provenance import Provenance, ProvenanceWarning
from confroute.registry import parts_of


def warn_of_other_models(policy: object, models: Mapping[str, ModelFacts]) -> None:
    """Warn, once per policy and difference, where a fitted policy is given other models or shorter answers than it was fitted on.

    Parameters
    ----------
    policy : Policy
    models : mapping of str to ModelFacts
        By tier, cheapest first; those between the first and the last are compared where as many were recorded. A model without a name of
        its own, or without a limit, is not compared by it.

    Warns
    -----
    ProvenanceWarning
        Its thresholds, and what it promises, are about the recorded models. As any Python warning it can be filtered by its category.
    """
    first, *between, last = models.items()
    for recorded in (part for part in parts_of(policy) if isinstance(part, Provenance)):
        # Their number is that of another chain where it differs.
        middle = between if len(between) == len(recorded.between) else []
        places = [
            ("edge", first[1], None),
            *((*one, at) for at, one in enumerate(middle)),
            ("cloud", last[1], None),
        ]
        found = (
            recorded.differs(tier, facts.model if facts.named else None, facts.answer_limit, between=at)
            for tier, facts, at in places
        )
        if different := tuple(filter(None, found)):
            _warn(recorded, different)


@lru_cache(maxsize=1024)
def _warn(recorded: Provenance, different: tuple[str, ...]) -> None:
    warnings.warn(
        f"this policy is used with other models than it was fitted on: {'; '.join(different)}. Its thresholds and promises may not hold: "
        "record with these models and fit again, or give it the recorded ones",
        ProvenanceWarning,
        stacklevel=4,
    )
