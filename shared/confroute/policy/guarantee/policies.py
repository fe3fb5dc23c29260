"""One promise for the whole loss of a policy that is taken from a sequence of them, whatever thresholds each of them has."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from confroute.certificate import Certificate, Loss
from confroute.errors import UnmetPromiseError
from confroute.policy.guarantee.losses import LEAST_KEPT, Array, digest, is_binary
from confroute.stats.tails import betting, binomial_cdf, check_levels, first_failure


def certified_policies(
    losses: Sequence[Array],
    columns: Sequence[Array],
    *,
    alpha: float,
    delta: float = 0.1,
    loss: Loss = "regret",
    seed: int = 0,
    date: str | None = None,
) -> tuple[int, Certificate]:
    """Find the last of a sequence of policies whose mean loss is proved to be at most `alpha`, and its certificate.

    Parameters
    ----------
    losses : sequence of array of float, shape (n,)
        By policy, the loss of each call; for "selective" of the calls that it keeps. The policies and their order were fixed without these
        calls, the most cautious first.
    columns : sequence of array of float, shape (n,)
        What the losses were computed from, for the certificate's hash.
    alpha, delta, loss, date
        See `confroute.policy.Threshold.certify`.
    seed : int
        Of the order in which the betting bound takes the calls.

    Returns
    -------
    tuple of int and Certificate
        The place of the policy in the sequence.

    Raises
    ------
    UnmetPromiseError
        The first policy is not proved; the message holds the numbers.
    CalibrationError
        Levels that mean nothing.

    Notes
    -----
    Learn-then-Test with fixed-sequence testing (Angelopoulos et al., arXiv 2110.01052): each policy is tested at the full level, and the
    first that is not proved ends the tests. The bound is about the long-run mean. It needs no order between the policies' losses, which
    thresholds of several steps do not have: what one step keeps, another would have answered better or worse.

    Examples
    --------
    >>> calls = np.zeros((3, 200))
    >>> calls[1, :4], calls[2, :40] = 1.0, 1.0
    >>> at, promise = certified_policies(calls, calls, alpha=0.05, date="2026-01-01")
    >>> at, promise.method, promise.observed
    (1, 'ltt-binomial', 0.02)
    """
    check_levels(alpha, delta, low=-1.0 if loss == "net" else 0.0)
    exact = loss != "net" and all(map(is_binary, losses))
    generator = np.random.default_rng(seed)

    def proves(at: int) -> bool:
        values = losses[at]
        if values.size < LEAST_KEPT:
            return False
        if exact:
            return binomial_cdf(round(values.sum()), values.size, alpha) <= delta
        # Rows may be sorted by topic, and the bets need an order that does not depend on the losses.
        low = -1.0 if loss == "net" else 0.0
        return betting(generator.permutation(values), alpha, delta, low=low) <= delta

    proved = first_failure(proves, len(losses))
    if proved == 0:
        raise UnmetPromiseError(_unproved(losses[0], loss, alpha, delta))
    return proved - 1, Certificate(
        loss=loss,
        alpha=alpha,
        delta=delta,
        n=columns[0].size,
        method="ltt-binomial" if exact else "ltt-betting",
        observed=float(losses[proved - 1].mean()),
        date=date or datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        data_hash=digest(*columns),
    )


def _unproved(first: Array, loss: Loss, alpha: float, delta: float) -> str:
    return (
        f"a {loss} of {alpha:g} with confidence {1 - delta:g} cannot be guaranteed: the most cautious thresholds lose "
        f"{first.sum():g} on {first.size} calls; use better models or another signal, record more rows, or allow more loss or less confidence"
    )
