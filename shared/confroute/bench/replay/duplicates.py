"""Which training prompts are, or almost are, test prompts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_GRAM = 5
_CONTAINED = 0.5
# A sequence of words in more test prompts than this is a form to fill in, not a question (cf. the 13-grams of Brown et
# al., arXiv 2005.14165, appendix C, which are dropped beyond ten documents).
_FORM = 10


def near_duplicates(prompts: Sequence[str], tests: Sequence[str]) -> set[int]:
    """Which of `prompts` share half of their five-word sequences with a test prompt; all of a shorter prompt's words.

    Numbers count as equal, letters without case: a problem with other figures is a duplicate too. Sequences that stand
    in more than ten test prompts are left out of the count, so that two questions of one form are no duplicates.

    Examples
    --------
    >>> near_duplicates(
    ...     ["Tom has 3 red apples and eats one.", "Why?"], ["tom has 12 red apples, and eats one"]
    ... )
    {0}
    """
    theirs = [_grams(text) for text in tests]
    held = Counter(gram for grams in theirs for gram in grams)
    forms = {gram for gram, count in held.items() if count > _FORM}
    mine = [_grams(text) for text in prompts]
    # A prompt that is nothing but form is compared as a whole.
    mine = [grams - forms or grams for grams in mine]
    holders: dict[str, list[int]] = defaultdict(list)
    for at, grams in enumerate(mine):
        for gram in grams:
            holders[gram].append(at)
    found: set[int] = set()
    for grams in theirs:
        shared = Counter(at for gram in grams for at in holders.get(gram, ()))
        found |= {at for at, count in shared.items() if count >= _CONTAINED * len(mine[at])}
    return found


def _grams(text: str) -> set[str]:
    words = re.findall(r"[a-z]+|0", re.sub(r"\d[\d.,]*", " 0 ", text.lower()))
    if len(words) < _GRAM:
        return {" ".join(words)} if words else set()
    return {" ".join(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)}
