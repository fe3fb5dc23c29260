"""A judge's reply as a verdict or a score. What says two things, or nothing, says nothing."""

from __future__ import annotations

import re

from confroute.errors import ConfrouteError
from confroute.judge.verdicts import HIGHEST, LOWEST, Winner

_END = r"[\s*_`.\]]*$"
_VERDICT = re.compile(
    rf"^[\s*_`#>]*(?:final\s+)?verdict[\s*_`]*[:=][\s*_`\[]*(?:answer\s+)?(a|b|c|tie){_END}",
    re.IGNORECASE | re.MULTILINE,
)
# What judges write that were trained on MT-Bench's own prompts.
_BRACKETED = re.compile(r"\[\[\s*(a|b|c|tie)\s*\]\]", re.IGNORECASE)
_BARE_VERDICT = re.compile(rf"[\s*_`\[]*(?:answer\s+)?(a|b|tie){_END}", re.IGNORECASE)
_NUMBER = r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?"
_SCORE = re.compile(
    rf"^[\s*_`#>]*(?:final\s+)?(?:score|rating)[\s*_`]*[:=][\s*_`\[]*{_NUMBER}{_END}",
    re.IGNORECASE | re.MULTILINE,
)
_BRACKETED_SCORE = re.compile(rf"\[\[\s*{_NUMBER}\s*\]\]")
_BARE_SCORE = re.compile(rf"[\s*_`\[]*{_NUMBER}{_END}")
_WINNERS: dict[str, Winner] = {"a": "a", "b": "b", "tie": "tie", "c": "tie"}


class UnparsableReplyError(ConfrouteError, ValueError):
    """A judge's reply that holds no verdict, or more than one."""


def _only(text: str, patterns: tuple[re.Pattern[str], ...], bare: re.Pattern[str], wanted: str) -> str:
    found = {str(one).lower() for pattern in patterns for one in pattern.findall(text)}
    if not found and (alone := bare.fullmatch(text)):
        found = {alone.group(1).lower()}
    if len(found) == 1:
        return found.pop()
    said = "none" if not found else " and ".join(sorted(found))
    msg = f"the reply of {len(text)} characters holds {said}: expected one line {wanted!r}"
    raise UnparsableReplyError(msg)


def read_winner(text: str, *, swapped: bool = False) -> Winner:
    r"""The verdict in a reply, in terms of answers a and b.

    Parameters
    ----------
    text : str
    swapped : bool
        Whether the judge saw answer b as "A".

    Raises
    ------
    UnparsableReplyError
        No verdict, or different ones: of two, one may be quoted from an answer.

    Examples
    --------
    >>> read_winner("B forgets the unit.\nVERDICT: A"), read_winner("**Verdict: B**", swapped=True)
    ('a', 'a')
    >>> read_winner("[[C]]")
    'tie'
    """
    seen = _WINNERS[_only(text, (_VERDICT, _BRACKETED), _BARE_VERDICT, "VERDICT: A, B or TIE")]
    if not swapped or seen == "tie":
        return seen
    return "b" if seen == "a" else "a"


def read_score(text: str) -> float:
    r"""The score in a reply, in [1, 10].

    Raises
    ------
    UnparsableReplyError
        No score, different ones, or one that is out of range.

    Examples
    --------
    >>> read_score("Right, but curt.\nSCORE: 7"), read_score("[[8.5]]"), read_score("Rating: 9/10")
    (7.0, 8.5, 9.0)
    """
    score = float(_only(text, (_SCORE, _BRACKETED_SCORE), _BARE_SCORE, "SCORE: 1 to 10"))
    if not LOWEST <= score <= HIGHEST:
        msg = f"the score is {score:g}: expected 1 to 10"
        raise UnparsableReplyError(msg)
    return score
