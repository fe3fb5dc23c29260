"""A limit on retries of all calls together: when everything fails, retries would multiply the load."""

from __future__ import annotations

import threading
from functools import partial

from confroute.errors import PolicyError


class RetryBudget:
    """Retries of a tier as a share of its calls; give one to the `Limits` of that tier.

    Each call puts `share` of a retry into the budget, which holds `burst` at the most; each retry takes one out. With
    none left, the first error is the call's.

    Parameters
    ----------
    share : float
        Retries for each call in the long run, in [0, 1].
    burst : int
        Retries at once, at least 1; also what it begins with.

    Raises
    ------
    PolicyError
        A number out of range.

    Examples
    --------
    >>> budget = RetryBudget(share=0.5, burst=1)
    >>> budget.take(), budget.take()
    (True, False)
    >>> for _ in range(2):
    ...     budget.add()
    >>> budget.take()
    True
    """

    def __init__(self, *, share: float = 0.1, burst: int = 10) -> None:
        if not 0 <= share <= 1 or burst < 1:
            msg = f"share={share}, burst={burst}: expected a share in [0, 1] and at least one retry"
            raise PolicyError(msg)
        self.share, self.burst = share, burst
        self._held = float(burst)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RetryBudget(share={self.share}, burst={self.burst})"

    def __deepcopy__(self, memo: object) -> RetryBudget:
        # Hosts copy their models; what all calls share stays one.
        return self

    def __reduce__(self) -> tuple[partial[RetryBudget], tuple[()]]:
        return partial(RetryBudget, share=self.share, burst=self.burst), ()

    def add(self) -> None:
        """One more call was begun."""
        with self._lock:
            self._held = min(float(self.burst), self._held + self.share)

    def take(self) -> bool:
        """Whether one more retry may be made; if so, it is taken."""
        with self._lock:
            if self._held < 1:
                return False
            self._held -= 1
            return True
