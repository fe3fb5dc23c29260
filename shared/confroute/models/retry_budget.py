"""A limit on the retries of all calls of a tier: in an outage, unlimited retries would multiply the load."""

from __future__ import annotations

import threading
from functools import partial

from confroute.errors import PolicyError


class RetryBudget:
    """Limits the retries of a tier to a share of its calls; pass it to the tier's `Limits`.

    Each call adds `share` of a retry to the budget, up to `burst`; each retry takes one. When none is left, a call
    raises its error without a retry.

    Parameters
    ----------
    share : float
        Retries per call in the long run, in [0, 1].
    burst : int
        The most retries at once, at least 1; also the initial budget.

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
            msg = f"share={share}, burst={burst}: expected a share in [0, 1] and a burst of at least 1"
            raise PolicyError(msg)
        self.share, self.burst = share, burst
        self._held = float(burst)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RetryBudget(share={self.share}, burst={self.burst})"

    def __deepcopy__(self, memo: object) -> RetryBudget:
        # Hosts copy their models; all copies share the budget.
        return self

    def __reduce__(self) -> tuple[partial[RetryBudget], tuple[()]]:
        return partial(RetryBudget, share=self.share, burst=self.burst), ()

    def add(self) -> None:
        """Add the share of one more call."""
        with self._lock:
            self._held = min(float(self.burst), self._held + self.share)

    def take(self) -> bool:
        """Take one retry; False if none is left."""
        with self._lock:
            if self._held < 1:
                return False
            self._held -= 1
            return True
