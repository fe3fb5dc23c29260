"""A fitted function of one number, as a policy file holds it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from confroute.errors import PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A function that never falls, linear between its knots and constant outside.

    Attributes
    ----------
    at : tuple of float
        Distinct, rising; one or more.
    values : tuple of float
        Never falling, one a knot.

    Raises
    ------
    PolicyError
        No knot, different lengths, or an order that is not rising.

    Examples
    --------
    >>> curve = Curve(at=(0.0, 1.0), values=(0.0, 10.0))
    >>> curve(0.25), curve(-1), curve(7)
    (2.5, 0.0, 10.0)
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.at, self.at[1:], strict=False))
        falls = any(a > b for a, b in zip(self.values, self.values[1:], strict=False))
        if not self.at or len(self.at) != len(self.values) or not rising or falls:
            msg = (
                f"a curve of {len(self.at)} knots and {len(self.values)} values: expected one of each, rising"
            )
            raise PolicyError(msg)

    def __call__(self, x: float) -> float:
        """The value at `x`; plain Python, since numpy takes longer for a single number."""
        at, values = self.at, self.values
        if x <= at[0]:
            return values[0]
        if x >= at[-1]:
            return values[-1]
        right = bisect_left(at, x)
        share = (x - at[right - 1]) / (at[right] - at[right - 1])
        return values[right - 1] + share * (values[right] - values[right - 1])
