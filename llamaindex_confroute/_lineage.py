"""Which model wrote an answer that a later call is to refine."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

# A synthesis refines the answer just given: far fewer than this are under way at once.
_MOST = 512


class Lineage:
    """The tiers of the last answers, by question and answer; neither text is kept.

    The host's synthesizers say nothing of one call to the next but the answer itself, which comes back as the "existing
    answer". So the steps of one synthesis are found by it, in threads, tasks and lazily read streams alike.
    """

    def __init__(self) -> None:
        self._tiers: OrderedDict[bytes, str] = OrderedDict()

    def note(self, question: str, answer: str, tier: str) -> None:
        """Keep who answered."""
        self._tiers[_key(question, answer)] = tier
        while len(self._tiers) > _MOST:
            self._tiers.popitem(last=False)

    def tier_of(self, question: str | None, answer: str | None) -> str | None:
        """Who gave this answer to this question, if it was given here and not long ago."""
        if question is None or answer is None:
            return None
        return self._tiers.get(_key(question, answer))


def _key(question: str, answer: str) -> bytes:
    return blake2b(
        f"{question.strip()}\0{answer.strip()}".encode("utf-8", "replace"), digest_size=16
    ).digest()
