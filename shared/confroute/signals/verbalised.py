"""Verbalised confidence: the edge is asked for a number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from confroute.decision import Measurement
from confroute.errors import SignalUnavailableError
from confroute.signals.base import Asking, Case, Range
from confroute.signals.p_true import prompted

_NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d+)?)\s*(%|/\s*100)?(?![\w]|\.\d)")


def stated_confidence(text: str) -> float | None:
    """The confidence that a reply states, in [0, 1]; None where it states none.

    The first number counts, of 100. A fraction up to 1 that does not say "%" is taken for a probability.

    Examples
    --------
    >>> stated_confidence("85"), stated_confidence("I am 70% sure."), stated_confidence("0.9")
    (0.85, 0.7, 0.9)
    >>> stated_confidence("very sure") is None, stated_confidence("250") is None
    (True, True)
    """
    found = _NUMBER.search(text)
    if found is None:
        return None
    value = float(found[1])
    if "." in found[1] and value <= 1.0 and not found[2]:
        return value
    return value / 100.0 if value <= 100.0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbalised:
    """1 - the confidence that the edge states in words; in [0, 1], higher means less reliable.

    Notes
    -----
    Tian et al. (arXiv 2305.14975). Costs one short call of the same tier, and never leaves it; needs no
    log-probabilities, so it works where nothing else does. **Known weakness:** models say 80 to 100 whatever they
    know, in steps of 5, so many calls tie and a threshold is coarse; in the largest comparison of routing signals
    it was the worst (arXiv 2502.04428). Use it only where neither log-probabilities nor samples can be had.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "verbalised"

    @property
    def range(self) -> Range:
        """1 - a stated probability."""
        return Range(high=1.0, unit="1 - stated confidence")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Ask for the number.

        Raises
        ------
        SignalUnavailableError
            The reply states no number from 0 to 100.
        """
        question = (
            "How likely is it that the proposed answer is correct? Reply with one number from 0 to 100 only."
        )
        said = yield from prompted(case, question, top_logprobs=0, max_tokens=16)
        stated = stated_confidence(said.text)
        if stated is None:
            raise SignalUnavailableError(f"{case.tier.model} stated no confidence from 0 to 100")
        return Measurement(signal=self.name, uncertainty=1.0 - stated)
