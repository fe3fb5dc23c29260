"""Which option a first token stands for, and how sure a model was among the options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def by_option(alternatives: Iterable[tuple[str, float]], letters: Sequence[str]) -> dict[str, float]:
    """Log-probability, in nats, that a token spells each letter; letters that no alternative spells are left out.

    Parameters
    ----------
    alternatives : iterable of (token, log-probability)
        Different tokens at one place: "A" and " A" exclude each other, so the probabilities of all spellings of a letter
        add up.
    letters : sequence of str

    Examples
    --------
    >>> found = by_option([("A", math.log(0.5)), (" A", math.log(0.25)), ("The", math.log(0.2))], ("A", "B"))
    >>> {letter: round(math.exp(nats), 3) for letter, nats in found.items()}
    {'A': 0.75}
    """
    spelt: dict[str, list[float]] = {}
    for token, nats in alternatives:
        if token.strip() in letters:
            spelt.setdefault(token.strip(), []).append(nats)
    return {letter: min(0.0, float(np.logaddexp.reduce(nats))) for letter, nats in spelt.items()}


def option_doubt(options: Mapping[str, float], chosen: str) -> float | None:
    """1 - probability of the chosen option among those that are known; in [0, 1].

    Parameters
    ----------
    options : mapping of str to float
        Log-probability of each option as the answer's first token, natural logarithms. Options outside the provider's
        top-k are missing, and count as impossible.
    chosen : str
        The option that was answered.

    Returns
    -------
    float or None
        None where the chosen option has no log-probability, or none but minus infinity.

    Notes
    -----
    The probabilities are divided by their sum: what a model gives to "The" or to a line break says nothing about
    which option it prefers. On MMLU answers of a 1.5B model this ranks errors clearly better than the raw token
    probability.

    Examples
    --------
    >>> round(option_doubt({"A": math.log(0.3), "B": math.log(0.1)}, "A"), 3)
    0.25
    """
    if not math.isfinite(options.get(chosen, -math.inf)):
        return None
    highest = max(options.values())
    shares = {name: math.exp(value - highest) for name, value in options.items()}
    rest = math.fsum(share for name, share in shares.items() if name != chosen)
    return rest / (rest + shares[chosen])
