"""Trouble with tools: calls that failed, were made before or brought nothing new since the user spoke. No extra cost."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Case, Range
from confroute.types import JSON, Message

Trouble: TypeAlias = Literal["failed", "repeated", "nothing_new"]
_EMPTY = frozenset({"", "[]", "{}", "null", "none", '""'})
# At the start of a result only: further on, the same words belong to what was found.
_ERROR = re.compile(
    r"""\s*(?:
        (?:\w+\s+)?error\s*(?:[:(\[]|(?:calling|executing|invoking|occurred|running|while)\b)
      | \w*(?:error|exception)\s*[:(]
      | traceback\s\(most\srecent
      | (?:an?\s+)?(?:\w+\s+)?(?:error|exception)\s+(?:has\s+)?occurred
      | failed\s+to\s
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def tells_of_failure(text: str) -> bool:
    """Whether the result of a tool says that the call failed: by how it begins, or by an "error" in its JSON object.

    Examples
    --------
    >>> tells_of_failure("ValueError: no such city"), tells_of_failure('{"error": "timeout"}')
    (True, True)
    >>> tells_of_failure("Error handling in Python"), tells_of_failure('{"error": null, "temperature": 4}')
    (False, False)
    """
    if _ERROR.match(text):
        return True
    if not text.lstrip().startswith("{"):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, Mapping):
        return False
    said = any(value.get(name) for name in ("error", "is_error", "isError"))
    return said or value.get("status") == "error"


@register(kind="signal", needs="results of tools", columns={"tool_trouble": {}})
@dataclass(frozen=True, slots=True, kw_only=True)
class ToolTrouble:
    """Share of an agent's last steps that went wrong; in [0, 1], 1 where each of the last `steps` did.

    A step is one call of a tool since the user last spoke. It went wrong if its result failed (the host's status, or
    `tells_of_failure`), if the same tool was called with the same arguments before, or if it brought nothing new: an
    empty result or one that an earlier call had brought. A draft that is a tool call is a step too: it can repeat one.

    Parameters
    ----------
    steps : int
        How many steps the value looks back on, 1 or more. With fewer steps so far, those missing count as good: with the
        default, one failure is 0.33 and three in a row are 1.
    same_result : bool
        Whether a result that an earlier call had brought counts as nothing new. Turn it off for tools that answer "ok".

    Raises
    ------
    PolicyError
        `steps` is not a whole number of 1 or more.

    Notes
    -----
    0 says that the tools work, and nothing about the draft: let a gate of it only escalate, by a grey zone that begins
    below 0, and put the gates that judge the draft after it::

        Gate(signal=ToolTrouble(), threshold=Threshold(value=0.5), grey=(-1.0, 0.5))

    Repeated calls of a tool that waits for something (polling) count as repeated.

    Examples
    --------
    >>> from confroute.types import Generation, Tier
    >>> turn = (
    ...     Message(role="user", text="The weather in Oslo?"),
    ...     Message(role="assistant", text="", calls=("a",)),
    ...     Message(role="tool", text="TimeoutError: no answer"),
    ... )
    >>> case = Case(
    ...     tier=Tier(name="edge", model="m"), question="?", draft=Generation(text="4"), messages=turn
    ... )
    >>> next(ToolTrouble().measure(case))
    Traceback (most recent call last):
    StopIteration: Measurement(signal='tool_trouble', uncertainty=0.333333, ...
    """

    steps: int = 3
    same_result: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            msg = f"steps is {self.steps!r}: expected a whole number, 1 or more"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "tool_trouble"

    @property
    def range(self) -> Range:
        """0 to 1: a share of steps."""
        return Range(high=1.0, unit="of the last steps")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return the share of the last steps that went wrong.

        Raises
        ------
        SignalUnavailableError
            No tool has answered since the user spoke.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        turn = since_the_user(case.messages)
        if not any(message.role == "tool" for message in turn):
            raise SignalUnavailableError("no tool has answered since the user spoke")
        last = [*self._steps(turn, case.draft.calls)][-self.steps :]
        wrong = Counter(trouble for trouble in last if trouble is not None)
        details: dict[str, JSON] = {"steps": len(last), **{str(name): n for name, n in wrong.items()}}
        return Measurement(
            signal=self.name, uncertainty=round(wrong.total() / self.steps, 6), details=details
        )

    def _steps(self, turn: tuple[Message, ...], drafted: tuple[str, ...]) -> Iterator[Trouble | None]:
        """What went wrong in each step, the draft's own calls last; None where nothing did."""
        made: set[str] = set()
        results: set[str] = set()
        open_: deque[bool] = deque()
        for message in turn:
            for call in message.calls:
                open_.append(call in made)
                made.add(call)
            if message.role == "tool":
                # Results come in the order of the calls.
                repeated = bool(open_) and open_.popleft()
                yield self._trouble(message, repeated=repeated, before=results)
                results.add(message.text.strip())
        for call in drafted:
            yield "repeated" if call in made else None

    def _trouble(self, message: Message, *, repeated: bool, before: set[str]) -> Trouble | None:
        text = message.text.strip()
        if message.failed or tells_of_failure(text):
            return "failed"
        if repeated:
            return "repeated"
        stale = self.same_result and text in before
        return "nothing_new" if stale or text.lower() in _EMPTY else None


def since_the_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages after the user's last."""
    spoke = [at for at, message in enumerate(messages) if message.role == "user"]
    return messages[spoke[-1] + 1 :] if spoke else messages
