"""An uncertainty that exists only as a column of a recorded run."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.decision import Measurement
from confroute.errors import SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range


@register(
    kind="signal",
    needs="nothing that a new call has",
    why_not="stands for a recorded column that nothing measures on new calls",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The place of a recorded column in a policy: it can be replayed, but not measured on a new call.

    Parameters
    ----------
    column : str
        Key in a recorded row's `signals`.

    Notes
    -----
    On a new call it is never available, so the policy's `on_no_signal` decides. Put a signal of your own that computes the
    column in its place before you deploy the policy.
    """

    column: str

    @property
    def name(self) -> str:
        """Key in the decision."""
        return self.column

    @property
    def range(self) -> Range:
        """Nothing is known of a column's range."""
        return Range(low=float("-inf"), unit="as recorded")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Say that it cannot be measured.

        Raises
        ------
        SignalUnavailableError
            Always.
        """
        yield from ()  # a generator like every other signal, though it asks for nothing
        msg = f"{self.column!r} is a column of recorded runs only: give the policy a signal that measures it"
        raise SignalUnavailableError(msg)
