"""Regular expressions of rules: those that cannot be, and those whose search may never end."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from confroute.errors import PolicyError

# The standard library's own reader of expressions; its name is another one before Python 3.11.
_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)


def check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression, and warn of one whose search may take for ever.

    Raises
    ------
    PolicyError

    Examples
    --------
    >>> check_pattern(r"(?i)salary")
    >>> check_pattern("(")
    Traceback (most recent call last):
    ...
    confroute.errors.PolicyError: pattern '(' is not a regular expression: missing ), unterminated subpattern at position 0
    """
    try:
        parsed = _parser.parse(pattern)
    except re.error as error:
        msg = f"pattern {pattern!r} is not a regular expression: {error}"
        raise PolicyError(msg) from error
    if _repeats_repeats(parsed):
        warnings.warn(
            f"pattern {pattern!r} repeats a part that repeats itself: on some texts its search takes for ever, and every call of this "
            "process waits. Separate the repeats by something that has to stand between them, or search in linear time: "
            "detect=re2.compile(...).search",
            stacklevel=5,
        )


def _repeats_repeats(parsed: Any, inside: bool = False) -> bool:
    """Whether an endless repeat consists of another one and of nothing that has to be there, as in `(a+b?)+`: exponential."""
    for kind, given in parsed:
        if kind in _REPEATS:
            _, most, body = given
            endless = most == _parser.MAXREPEAT
            if (endless and inside) or _repeats_repeats(body, inside=endless and _is_one_repeat(body)):
                return True
        elif any(_repeats_repeats(part, inside) for part in _parts_of(given)):
            return True
    return False


def _is_one_repeat(body: Any) -> bool:
    """Whether all that has to be there is at most one repeat, in a group or not."""
    needed = [(kind, given) for kind, given in body if kind not in _REPEATS or given[0] > 0]
    groups = (kind in _REPEATS or next(_parts_of(given), None) is not None for kind, given in needed)
    return len(needed) <= 1 and all(groups)


def _parts_of(given: Any) -> Iterator[Any]:
    """The patterns inside a group, a look around, or the branches of an alternative."""
    if isinstance(given, _parser.SubPattern):
        yield given
    elif isinstance(given, (tuple, list)):
        for part in given:
            yield from _parts_of(part)
