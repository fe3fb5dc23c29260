"""A signal and the threshold that its uncertainty is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from confroute.errors import PolicyError
from confroute.policy.threshold import Threshold
from confroute.registry import register
from confroute.signals.base import Signal


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupThreshold:
    """The threshold of calls with a tag; see `Threshold.certify_groups`.

    Attributes
    ----------
    tag : str
    threshold : Threshold
    """

    tag: str
    threshold: Threshold


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class TierThreshold:
    """The threshold of one tier's drafts: what a log-probability is worth differs from model to model.

    Attributes
    ----------
    tier : str
        Any tier of the policy but the last, whose answers are not judged.
    threshold : Threshold
    grey : tuple of two floats or None
    by_tag : tuple of GroupThreshold
        As those of `Gate`, in place of the gate's own.
    """

    tier: str
    threshold: Threshold
    grey: tuple[float, float] | None = None
    by_tag: tuple[GroupThreshold, ...] = ()


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A signal, its threshold, and the zone around the threshold in which a further signal is asked.

    Attributes
    ----------
    signal : Signal
    threshold : Threshold
    grey : tuple of two floats or None
        Uncertainties above the first number and up to the second are left to the next gate that can be measured. None: this gate always
        decides.
    by_tag : tuple of GroupThreshold
        Thresholds of calls with a tag (`Request.tags`), in place of `threshold`; the first one that applies counts.
    by_tier : tuple of TierThreshold
        What holds for the drafts of one tier, in place of `threshold`, `grey` and `by_tag`.

    Raises
    ------
    PolicyError
        No signal, no threshold or one outside the signal's range, a grey zone that is not a pair of numbers around the threshold, a
        `by_tag` of anything but GroupThreshold, or a `by_tier` of anything but TierThreshold or with a tier twice.

    Examples
    --------
    >>> from confroute.signals import TokenLogprob
    >>> own = TierThreshold(tier="mid", threshold=Threshold(value=0.5))
    >>> gate = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.2), by_tier=(own,))
    >>> [gate.for_call(tier, frozenset()).threshold.value for tier in ("edge", "mid")]
    [0.2, 0.5]
    """

    signal: Signal
    threshold: Threshold
    grey: tuple[float, float] | None = None
    by_tag: tuple[GroupThreshold, ...] = ()
    by_tier: tuple[TierThreshold, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.signal, type) or not isinstance(self.signal, Signal):
            lacking = [name for name in ("name", "range", "measure") if not hasattr(self.signal, name)]
            lacks = f", which lacks {' and '.join(lacking)}" if lacking else ""
            msg = (
                f"signal is {self.signal!r}{lacks}: expected an object with a name, a range and a measure method, such as "
                "TokenLogprob()"
            )
            raise PolicyError(msg)
        _check_limits(self.signal, self)
        for own in self.by_tier:
            if not isinstance(own, TierThreshold):
                msg = f"by_tier holds {own!r}: expected TierThreshold(tier=..., threshold=...)"
                raise PolicyError(msg)
            _check_limits(self.signal, own)
        tiers = [own.tier for own in self.by_tier]
        if len(set(tiers)) < len(tiers):
            msg = f"by_tier of {self.signal.name} is for {', '.join(tiers)}: expected each tier once"
            raise PolicyError(msg)

    def for_call(self, tier: str, tags: frozenset[str]) -> Gate:
        """Return this gate with the threshold that judges a tier's draft of a call with these tags."""
        gate = self
        for own in self.by_tier:
            if own.tier == tier:
                gate = replace(self, threshold=own.threshold, grey=own.grey, by_tag=own.by_tag, by_tier=())
        for group in gate.by_tag:
            if group.tag in tags:
                return replace(gate, threshold=group.threshold, grey=None)
        return gate

    def thresholds(self) -> Iterator[tuple[str, Threshold]]:
        """Every threshold, with the drafts that it is for in words; the first, for all others, has none."""
        yield "", self.threshold
        yield from ((f"calls tagged {group.tag}", group.threshold) for group in self.by_tag)
        for own in self.by_tier:
            yield f"drafts of {own.tier}", own.threshold
            for group in own.by_tag:
                yield f"drafts of {own.tier}, calls tagged {group.tag}", group.threshold


def _check_limits(signal: Signal, limits: Gate | TierThreshold) -> None:
    """Refuse thresholds and a grey zone that cannot be."""
    if not isinstance(limits.threshold, Threshold):
        msg = f"threshold is {limits.threshold!r}: expected Threshold(value=...)"
        raise PolicyError(msg)
    check_threshold(signal, limits.threshold.value)
    if limits.grey is not None and not _is_around(limits.grey, limits.threshold.value):
        msg = f"grey zone {limits.grey} of {signal.name}: expected (low, high) with the threshold {limits.threshold.value} inside"
        raise PolicyError(msg)
    for group in limits.by_tag:
        if not isinstance(group, GroupThreshold):
            msg = f"by_tag holds {group!r}: expected GroupThreshold(tag=..., threshold=...)"
            raise PolicyError(msg)
        check_threshold(signal, group.threshold.value)


def _is_around(grey: tuple[float, float], value: float) -> bool:
    try:
        low, high = grey
        return low <= value <= high
    except (TypeError, ValueError):
        # A policy file may hold anything.
        return False


def check_threshold(signal: Signal, value: float) -> None:
    """Refuse a threshold outside the signal's range.

    Raises
    ------
    PolicyError
    """
    allowed = signal.range
    if not isinstance(value, (int, float)) or value not in allowed:
        msg = (
            f"threshold {value!r} of {signal.name} is outside its range [{allowed.low:g}, {allowed.high:g}] ({allowed.unit}): "
            "the lower end keeps only answers without any uncertainty"
        )
        raise PolicyError(msg)
