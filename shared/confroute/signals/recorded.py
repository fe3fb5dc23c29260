"""A placeholder for an uncertainty that exists only as a column of a recorded run."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Case, Range


@register(
    kind="signal",
    needs="nothing that a new call has",
    why_not="stands for a recorded column that nothing measures on new calls",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Stands for a recorded column in a policy: it can be replayed, but not measured on a new call.

    Parameters
    ----------
    column : str
        A key of the recorded rows' `signals`.

    Notes
    -----
    On a new call it is never available, so the policy's `on_no_signal` decides. Before you deploy the policy, replace it
    with a signal of your own that computes the column.
    """

    column: str

    @property
    def name(self) -> str:
        """Key in the decision."""
        return self.column

    @property
    def range(self) -> Range:
        """Unbounded: the range of a recorded column is unknown."""
        return Range(low=float("-inf"), unit="as recorded")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Raise: a recorded column cannot be measured.

        Raises
        ------
        SignalUnavailableError
            Always.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        msg = f"{self.column!r} exists in recorded runs only: replace it in the policy with a signal that measures it"
        raise SignalUnavailableError(msg)
