"""A recorded run as one page: every question with both answers and grades, what a policy decides, and what was right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from confroute.decision import Decision
from confroute.display import plain
from confroute.fitting import ReplayedCall, replay
from confroute.fitting.recorded import request_of
from confroute.flow import Policy
from confroute.policy import KeepPrivate
from confroute.policy.rules import Rule
from confroute.policy.wrapper import inner_of
from confroute.recording import Row, Side
from confroute.recording.rows import comparable
from confroute.types import Message, Request
from confroute.views.html import Sifted, Tile, coded, counted, folded, page, sifted, tiles
from confroute.views.html import text as cell

# Kinds of rows, those to look at first before the others: by what was decided, or without a policy by the grades alone.
LOST = "kept, worse"
BOTH_WRONG = "kept, both wrong"
NEEDLESS = "sent, no better"
FAILED = "failed"
SENT = "sent, better"
KEPT = "kept, as good"
CLOUD_BETTER = "cloud better"
WRONG = "both wrong"
ENOUGH = "edge enough"
UNGRADED = "not graded"
KINDS = (LOST, BOTH_WRONG, NEEDLESS, FAILED, SENT, KEPT, CLOUD_BETTER, WRONG, ENOUGH, UNGRADED)
# Of an answer that is more wrong than right.
_WRONG = 0.5
_LONG = 120
_SHOWN = 80
_HEAD = ("kind", "question", "edge", "grade", "cloud", "grade")
_DECIDED = ("uncertainty", "decided", "right")
_MORE = ("reference", "id", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One row of the page.

    Attributes
    ----------
    row : Row
    call : ReplayedCall or None
        What the policy did; None without one.
    private : bool
        Whether its texts stay out of the page.
    """

    row: Row
    call: ReplayedCall | None
    private: bool

    @property
    def right(self) -> str | None:
        """The tier that should have answered: the edge where the cloud's answer is no better; None where the grades do not tell."""
        edge, cloud = _grade(self.row.edge), _grade(self.row.cloud)
        if edge is None or (cloud is None and edge < 1):
            return None
        return "edge" if cloud is None or edge >= cloud else "cloud"

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        right, edge = self.right, _grade(self.row.edge)
        if self.call is not None and self.call.failed:
            return FAILED
        if right is None:
            return UNGRADED
        wrong = right == "edge" and edge is not None and edge < _WRONG
        if self.call is None:
            return CLOUD_BETTER if right == "cloud" else WRONG if wrong else ENOUGH
        if self.call.cloud:
            return SENT if right == "cloud" else NEEDLESS
        return LOST if right == "cloud" else BOTH_WRONG if wrong else KEPT

    @property
    def order(self) -> tuple[int, float, float]:
        """What the page is sorted by: kind, the loss of the largest first, the most certain first."""
        edge, cloud = _grade(self.row.edge) or 0.0, _grade(self.row.cloud) or 0.0
        doubt = None if self.decision is None else self.decision.uncertainty
        return KINDS.index(self.kind), edge - cloud, math.inf if doubt is None else doubt

    @property
    def decision(self) -> Decision | None:
        """What the policy decided."""
        return None if self.call is None else self.call.decision


def _grade(side: Side | None) -> float | None:
    return None if side is None else side.quality


def run_rows(rows: Sequence[Row], policy: Policy | None = None) -> list[RunRow]:
    """Replay a policy on recorded rows, and sort them: kept answers that are worse than the cloud's come first.

    Parameters
    ----------
    rows : sequence of Row
    policy : Policy, optional

    Raises
    ------
    CalibrationError
        The policy cannot be replayed; see `confroute.fitting.replay`.
    """
    calls: Sequence[ReplayedCall | None] = [None] * len(rows) if policy is None else replay(policy, rows)
    rules = [KeepPrivate(), *_rules(policy)]
    found = [
        RunRow(row=row, call=call, private=_is_private(row, call, rules))
        for row, call in zip(rows, calls, strict=True)
    ]
    return sorted(found, key=lambda one: one.order)


def _rules(policy: Any) -> Iterator[Rule]:
    """The rules of a policy and of those inside it."""
    yield from getattr(policy, "rules", ())
    for inner in inner_of(policy).values():
        yield from _rules(inner)


def _is_private(row: Row, call: ReplayedCall | None, rules: Iterable[Rule]) -> bool:
    """Whether a rule keeps the question private, or would keep a conversation that holds the answers too."""
    if call is not None and call.decision is not None and call.decision.private:
        return True
    request = request_of(row)
    sides = [side for side in (row.edge, row.cloud) if side is not None]
    answers = [text for side in sides for text in (side.text, side.error, comparable(side.answer)) if text]
    more = [*answers, *filter(None, [comparable(row.reference)])]
    said = (*request.messages, *(Message(role="assistant", text=text) for text in more))
    return any(_keeps(rule, replace(request, messages=said)) for rule in rules)


def _keeps(rule: Rule, request: Request) -> bool:
    try:
        ruling = rule(request)
    except Exception:  # noqa: BLE001  what could not be checked counts as private
        return True
    return ruling is not None and ruling.private


def run_page(rows: Sequence[Row], policy: Policy | None = None) -> str:
    """Write the page of a recorded run.

    Parameters
    ----------
    rows : sequence of Row
    policy : Policy, optional
        What it decides on each row is shown, and its private rules hold here too.

    Returns
    -------
    str
        One self-contained document, with filters and sorting where scripts run, and a table where they do not. Of a private row it holds
        the id, the grades and the decision, and no text.

    Raises
    ------
    CalibrationError
        See `run_rows`.
    """
    found = run_rows(rows, policy)
    return page(counted(len(found), "recorded question"), _parts(found, decided=policy is not None))


def _parts(found: Sequence[RunRow], *, decided: bool) -> Iterator[str]:
    if not found:
        yield "<p>The run is empty.</p>"
        return
    counts = Counter(one.kind for one in found)
    yield tiles(
        Tile(name=kind, value=str(counts[kind]), beside=[f"{counts[kind] / len(found):.1%} of the rows"])
        for kind in KINDS
        if counts[kind]
    )
    yield (
        "<p>Kept answers are the edge's, sent questions were answered by the cloud. The right tier is the one with the better answer, and "
        f"the edge where both are as good. An answer is wrong below a grade of {_WRONG:g}.{' Of private rows no text is shown.' if any(one.private for one in found) else ''}</p>"
    )
    head = (*_HEAD, *(_DECIDED if decided else ()), *(_MORE if decided else _MORE[:-1]))
    yield sifted(head, [Sifted(cells=[*_cells(one)], kinds=[*_kinds(one)]) for one in found])


def _kinds(one: RunRow) -> Iterator[str]:
    yield one.kind
    if one.private:
        yield "private"


def _cells(one: RunRow) -> Iterator[str]:
    row, kind = one.row, one.kind
    texts = (row.question, _said(row.edge), _said(row.cloud), comparable(row.reference) or "")
    question, edge, cloud, reference = (_masked() if one.private else _prose(text) for text in texts)
    yield f"<td data-key='{KINDS.index(kind)}'>{escape(kind)}</td>"
    yield from (question, edge, _number(_grade(row.edge)), cloud, _number(_grade(row.cloud)))
    if one.call is not None:
        decision = one.decision
        yield _number(None if decision is None else decision.uncertainty)
        yield f"<td>{coded(_route(one.call))}</td>"
        yield f"<td>{coded(one.right) if one.right else '-'}</td>"
    yield from (reference, _prose(row.id))
    if one.call is not None:
        yield _prose("" if one.decision is None else one.decision.reason)


def _route(call: ReplayedCall) -> str:
    return FAILED if call.failed else "cloud" if call.cloud else "edge"


def _said(side: Side | None) -> str:
    if side is None:
        return ""
    if side.error is not None:
        return f"failed: {side.error}"
    return side.text if side.text is not None else comparable(side.answer) or ""


def _masked() -> str:
    return "<td class='q'>private</td>"


def _prose(text: str) -> str:
    """A cell of words, folded where they are long."""
    shown = plain(text)
    if len(shown) <= _LONG:
        return cell(shown)
    return f"<td class='t'>{folded(shown[:_SHOWN] + ' ...', [f'<p>{escape(shown)}</p>'])}</td>"


def _number(value: float | None) -> str:
    # What is unknown is sorted behind every number.
    if value is None or not math.isfinite(value):
        return "<td class='n' data-key='9e999'>-</td>"
    return f"<td class='n' data-key='{value!r}'>{value:.3g}</td>"
