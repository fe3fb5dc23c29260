"""What a host is given of its tiers: two models by name, or any number of them in a mapping, and the limits of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from typing import TypeVar

from confroute.errors import PolicyError
from confroute.hosts.options import AUTO
from confroute.models.resilience import Limits
from confroute.policy import Cascade
from confroute.types import TIERS

T = TypeVar("T")
_DEFAULT = Limits()
_FORMS = "expected edge=... and cloud=..., or tiers={'edge': ..., 'mid': ..., 'cloud': ...}, cheapest first"


def models_by_tier(edge: T | None, cloud: T | None, tiers: Mapping[str, T] | None) -> dict[str, T]:
    """The models by tier, cheapest first, from whichever of the two forms was given.

    Raises
    ------
    PolicyError
        Both forms, half of the first, or tiers that are not two or more names.

    Examples
    --------
    >>> models_by_tier("small", "large", None)
    {'edge': 'small', 'cloud': 'large'}
    >>> list(models_by_tier(None, None, {"small": "1B", "mid": "8B", "large": "70B"}))
    ['small', 'mid', 'large']
    """
    pair = {name: model for name, model in zip(TIERS, (edge, cloud), strict=True) if model is not None}
    if not tiers:
        if len(pair) < len(TIERS):
            msg = f"{' and '.join(name for name in TIERS if name not in pair)} not given: {_FORMS}"
            raise PolicyError(msg)
        return pair
    if pair:
        msg = f"{' and '.join(pair)} given beside tiers: {_FORMS}"
        raise PolicyError(msg)
    if not isinstance(tiers, Mapping) or not all(isinstance(name, str) and name for name in tiers):
        msg = f"tiers is a {type(tiers).__name__} whose keys are not all names: {_FORMS}"
        raise PolicyError(msg)
    if len(tiers) < 2 or AUTO in tiers:
        msg = f"tiers are {', '.join(tiers)}: expected two or more names other than {AUTO!r}, cheapest first"
        raise PolicyError(msg)
    return dict(tiers)


def default_policy(tiers: object) -> Cascade:
    """The uncalibrated policy of a router whose caller gave none; `tiers` is what was given as such, if anything."""
    return Cascade(tiers=tuple(tiers)) if tiers and isinstance(tiers, Mapping) else Cascade()


def limits_by_tier(
    tiers: Collection[str], limits: Mapping[str, Limits] | None, **of_two: Limits | None
) -> dict[str, Limits]:
    """The limits of every tier, in the tiers' order.

    Parameters
    ----------
    tiers : collection of str
    limits : mapping of str to Limits, optional
        By tier.
    **of_two : Limits, optional
        `edge_limits` and `cloud_limits`: those of the tiers "edge" and "cloud". The default ones count as not given.

    Raises
    ------
    PolicyError
        Limits of a tier that does not exist, given twice, or that are no Limits.

    Examples
    --------
    >>> limits_by_tier(("edge", "mid"), {"mid": Limits(attempts=1)}, edge_limits=None)["mid"].attempts
    1
    """
    given = {name.removesuffix("_limits"): own for name, own in of_two.items() if own not in (None, _DEFAULT)}
    if twice := sorted(set(given) & set(limits or {})):
        msg = f"{twice[0]}_limits is given beside limits[{twice[0]!r}]: expected one of them"
        raise PolicyError(msg)
    given |= limits or {}
    for name, own in given.items():
        if name not in tiers:
            msg = f"limits for {name!r}: expected some of {', '.join(tiers)}, as limits={{{next(iter(tiers))!r}: Limits(...)}}"
            raise PolicyError(msg)
        if not isinstance(own, Limits):
            msg = f"the limits of {name} are a {type(own).__name__}: expected Limits(...)"
            raise PolicyError(msg)
    return {tier: given.get(tier, _DEFAULT) for tier in tiers}


def refuse_same(
    models: Mapping[str, T], same: Callable[[T, T], bool], name: Callable[[T], str], *, kind: str = "model"
) -> None:
    """Refuse two tiers of one model: routing between them decides nothing.

    Raises
    ------
    PolicyError
    """
    for (one, first), (other, second) in combinations(models.items(), 2):
        if same(first, second):
            msg = (
                f"{one} and {other} are the same {kind} ({name(first)}), and routing between them decides nothing: expected different "
                f"{kind}s, the cheapest first"
            )
            raise PolicyError(msg)


def check_members(members: Collection[str], tiers: Collection[str]) -> None:
    """Refuse members of an ensemble that are named like a tier.

    Raises
    ------
    PolicyError
    """
    if taken := sorted(set(members) & set(tiers)):
        msg = f"a member is named {taken[0]!r}: expected a name that is not a tier's"
        raise PolicyError(msg)
