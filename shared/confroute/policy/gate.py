"""A signal and the threshold that its uncertainty is compared with."""

from __future__ import annotations

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

    Raises
    ------
    PolicyError
        No signal, no threshold or one outside the signal's range, a grey zone that is not a pair of numbers around the threshold, or a
        `by_tag` of anything but GroupThreshold.
    """

    signal: Signal
    threshold: Threshold
    grey: tuple[float, float] | None = None
    by_tag: tuple[GroupThreshold, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.signal, type) or not isinstance(self.signal, Signal):
            lacking = [name for name in ("name", "range", "measure") if not hasattr(self.signal, name)]
            lacks = f", which lacks {' and '.join(lacking)}" if lacking else ""
            msg = (
                f"signal is {self.signal!r}{lacks}: expected an object with a name, a range and a measure method, such as "
                "TokenLogprob()"
            )
            raise PolicyError(msg)
        if not isinstance(self.threshold, Threshold):
            msg = f"threshold is {self.threshold!r}: expected Threshold(value=...)"
            raise PolicyError(msg)
        check_threshold(self.signal, self.threshold.value)
        if self.grey is not None and not _is_around(self.grey, self.threshold.value):
            msg = f"grey zone {self.grey} of {self.signal.name}: expected (low, high) with the threshold {self.threshold.value} inside"
            raise PolicyError(msg)
        for group in self.by_tag:
            if not isinstance(group, GroupThreshold):
                msg = f"by_tag holds {group!r}: expected GroupThreshold(tag=..., threshold=...)"
                raise PolicyError(msg)
            check_threshold(self.signal, group.threshold.value)

    def for_tags(self, tags: frozenset[str]) -> Gate:
        """Return this gate with the threshold of the first group that a call with these tags belongs to."""
        for group in self.by_tag:
            if group.tag in tags:
                return replace(self, threshold=group.threshold, grey=None)
        return self


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
            "the lower end keeps only answers without any doubt"
        )
        raise PolicyError(msg)
