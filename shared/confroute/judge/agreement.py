"""Measures how far judges agree with humans, and with themselves when the order of the answers changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from confroute import reading as read
from confroute.judge.verdicts import Winner, combine_orders, majority
from confroute.recording import RecordError
from confroute.stats.metrics import bootstrap_ci
from confroute.types import JSON

_SIDES: dict[str, Winner] = {"1": "a", "2": "b", "tie": "tie"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A pair of answers that humans compared.

    Attributes
    ----------
    id, subset, question, a, b : str
    human : {"a", "b"}
    verdicts : mapping of str to (Winner or None, Winner or None)
        Verdicts in both orders by judge, in terms of a and b; None if the judge gave none.
    """

    id: str
    subset: str
    question: str = field(repr=False)
    a: str = field(repr=False)
    b: str = field(repr=False)
    human: Winner
    verdicts: Mapping[str, tuple[Winner | None, Winner | None]]


def read_items(path: str | os.PathLike[str]) -> list[Item]:
    """Read pairs with human labels.

    Parameters
    ----------
    path : path-like
        JSON lines, plain or gzip: "id", "dataset", "prompt", "output_1", "output_2", "human_label" (1 or 2), and "verdicts",
        a mapping from "JUDGE|orig" and "JUDGE|swap" (JUDGE may contain bars) to "1", "2", "tie" or null; both orders are
        in terms of output_1 and output_2.

    Raises
    ------
    RecordError
        A line is not such a pair.
    """
    pairs = []
    for at, data in read.json_lines(path, RecordError):
        with read.refusing(RecordError, f"{path}, line {at}"):
            pairs.append(_item(data))
    return pairs


def _item(data: JSON) -> Item:
    row = read.fields(data, "the pair")
    human = _SIDES.get(str(row.get("human_label")))
    if human not in ("a", "b"):
        raise read.refused("human_label", row.get("human_label"), "1 or 2")
    orders: dict[str, dict[str, Winner | None]] = {}
    for key, value in (read.optional_fields(row.get("verdicts"), "verdicts") or {}).items():
        judge, _, order = key.rpartition("|")
        verdict = None if value is None else _SIDES.get(str(value))
        if value is not None and verdict is None:
            raise read.refused(f"verdicts[{key!r}]", value, "1, 2, tie or null")
        orders.setdefault(judge, {})[order] = verdict
    return Item(
        id=read.text(row.get("id"), "id"),
        subset=read.optional_text(row.get("dataset"), "dataset") or "",
        question=read.text(row.get("prompt"), "prompt"),
        a=read.text(row.get("output_1"), "output_1"),
        b=read.text(row.get("output_2"), "output_2"),
        human=human,
        verdicts={judge: (of.get("orig"), of.get("swap")) for judge, of in orders.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of one judge with human labels, which contain no ties.

    Attributes
    ----------
    n, errors : int
        Number of pairs with a verdict in both orders, and of pairs in which an order failed; the latter count nowhere else.
    first, second : float in [0, 1]
        Agreement in the original order alone, and in the swapped order alone.
    per_order : float in [0, 1]
        Mean of both: the agreement of judging each pair once, in a random order.
    inconsistent : float in [0, 1]
        Share of pairs in which the two orders disagree.
    decided : float in [0, 1]
        Share of pairs that are not a tie after both orders.
    agreement : float in [0, 1] or None
        Agreement on decided pairs: the share of wins that are right. None if all pairs are ties.
    with_ties : float in [0, 1]
        The same over all pairs, with one half for a tie. If no single verdict is a tie it equals `per_order` exactly:
        swapping does not make a judge better, it shows where not to trust it.
    *_ci : tuple of float or None
        95 % bootstrap interval over pairs.
    """

    n: int
    errors: int
    first: float
    second: float
    per_order: float
    per_order_ci: tuple[float, float] | None
    inconsistent: float
    inconsistent_ci: tuple[float, float] | None
    decided: float
    agreement: float | None
    agreement_ci: tuple[float, float] | None
    with_ties: float

    def to_dict(self) -> dict[str, JSON]:
        """Return the agreement as JSON."""
        data: dict[str, JSON] = {}
        for key in self.__slots__:
            value = getattr(self, key)
            if isinstance(value, tuple):
                data[key] = [round(end, 4) for end in value]
            else:
                data[key] = round(value, 4) if isinstance(value, float) else value
        return data


def agreement_of(
    humans: Sequence[Winner],
    orders: Sequence[tuple[Winner | None, Winner | None]],
    *,
    winners: Sequence[Winner | None] | None = None,
    resamples: int = 2000,
) -> Agreement | None:
    """Compare verdicts with human labels; None if no pair has a verdict in both orders.

    Parameters
    ----------
    humans : sequence of {"a", "b"}
    orders : sequence of (Winner or None, Winner or None)
    winners : sequence of Winner or None, optional
        Verdicts after both orders, for a panel; by default `combine_orders` of each pair of orders.
    resamples : int
        Number of bootstrap resamples.

    Examples
    --------
    >>> agreement = agreement_of(["a", "a", "b"], [("a", "a"), ("a", "b"), ("b", "b")], resamples=10)
    >>> agreement.agreement, round(agreement.per_order, 3), round(agreement.inconsistent, 3)
    (1.0, 0.833, 0.333)
    """
    if winners is None:
        winners = [combine_orders(*both) for both in orders]
    pairs: list[tuple[Winner, Winner, Winner, Winner]] = [
        (human, one, other, winner)
        for human, (one, other), winner in zip(humans, orders, winners, strict=True)
        if one is not None and other is not None and winner is not None
    ]
    if not pairs:
        return None
    first, second = (np.array([_credit(pair[0], pair[order]) for pair in pairs]) for order in (1, 2))
    decided = np.array([winner != "tie" for *_, winner in pairs])
    right = np.array([winner == human for human, *_, winner in pairs])
    inconsistent = np.array([one != other for _, one, other, _ in pairs])
    per_order = (first + second) / 2

    def share(decided: np.ndarray, right: np.ndarray) -> float | None:
        return float(right[decided].mean()) if decided.any() else None

    return Agreement(
        n=len(pairs),
        errors=len(orders) - len(pairs),
        first=float(first.mean()),
        second=float(second.mean()),
        per_order=float(per_order.mean()),
        per_order_ci=bootstrap_ci(_mean, per_order, n=resamples),
        inconsistent=float(inconsistent.mean()),
        inconsistent_ci=bootstrap_ci(_mean, inconsistent, n=resamples),
        decided=float(decided.mean()),
        agreement=share(decided, right),
        agreement_ci=bootstrap_ci(share, decided, right, n=resamples),
        with_ties=float((right + 0.5 * ~decided).mean()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _credit(human: Winner, verdict: Winner) -> float:
    return 0.5 if verdict == "tie" else float(verdict == human)


def agreements(
    items: Iterable[Item], *, resamples: int = 2000, panel: bool = True
) -> dict[str, dict[str, Agreement]]:
    """Agreement of every judge, and of all of them as a panel, on each subset and on all pairs ("all").

    Parameters
    ----------
    items : iterable of Item
    resamples : int
        Number of bootstrap resamples.
    panel : bool
        Add "panel": the majority of all judges that judged every pair, if there are 3 or more. In each order it is the
        majority of that order's verdicts; after both orders, the majority of the judges' verdicts after both.

    Returns
    -------
    dict
        By judge, then by subset.
    """
    items = list(items)
    judges = list(dict.fromkeys(judge for item in items for judge in item.verdicts))
    members = [judge for judge in judges if all(judge in item.verdicts for item in items)]
    verdicts = {
        judge: [_verdict(item, judge) for item in items if judge in item.verdicts] for judge in judges
    }
    if panel and len(members) > 2:
        verdicts["panel"] = [_panel_verdict(item, members) for item in items]
    result: dict[str, dict[str, Agreement]] = {}
    for judge, judged in verdicts.items():
        for subset in ["all", *dict.fromkeys(verdict.item.subset for verdict in judged)]:
            part = [verdict for verdict in judged if subset in ("all", verdict.item.subset)]
            agreement = agreement_of(
                [verdict.item.human for verdict in part],
                [verdict.orders for verdict in part],
                winners=[verdict.winner for verdict in part],
                resamples=resamples,
            )
            if agreement is not None:
                result.setdefault(judge, {})[subset] = agreement
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """The verdict of one judge, or of the panel, on one item."""

    item: Item
    orders: tuple[Winner | None, Winner | None]
    winner: Winner | None


def _verdict(item: Item, judge: str) -> _Verdict:
    orders = item.verdicts[judge]
    return _Verdict(item=item, orders=orders, winner=combine_orders(*orders))


def _panel_verdict(item: Item, judges: Sequence[str]) -> _Verdict:
    orders = [item.verdicts[judge] for judge in judges]
    return _Verdict(
        item=item,
        orders=(majority([first for first, _ in orders]), majority([second for _, second in orders])),
        winner=majority([combine_orders(*both) for both in orders]),
    )
