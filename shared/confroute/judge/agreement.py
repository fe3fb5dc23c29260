"""How far judges agree with humans, and with themselves when the order changes."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from confroute.judge.verdicts import Winner, agreed, majority
from confroute.recording import RecordError
from confroute.recording import rows as read
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
        By judge, in both orders, in terms of a and b; None where the judge gave none.
    """

    id: str
    subset: str
    question: str
    a: str
    b: str
    human: Winner
    verdicts: Mapping[str, tuple[Winner | None, Winner | None]]


def read_items(path: str | os.PathLike[str]) -> list[Item]:
    """Read pairs with human labels.

    Parameters
    ----------
    path : path-like
        JSON lines, plain or gzip: "id", "dataset", "prompt", "output_1", "output_2", "human_label" (1 or 2), and "verdicts",
        a mapping from "JUDGE|orig" and "JUDGE|swap" (JUDGE may hold bars) to "1", "2" or null, both in terms of the outputs.

    Raises
    ------
    RecordError
        A line is none of these.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).splitlines()
        return [_item(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        msg = f"{path}: {error}; expected JSON lines of pairs with human labels"
        raise RecordError(msg) from error


def _item(data: JSON) -> Item:
    row = read.fields(data, "the pair")
    human = _SIDES.get(str(row.get("human_label")))
    if human not in ("a", "b"):
        raise read.refused("human_label", row.get("human_label"), "1 or 2")
    orders: dict[str, dict[str, Winner | None]] = {}
    for key, value in (read.optional_fields(row.get("verdicts"), "verdicts") or {}).items():
        judge, _, order = key.rpartition("|")
        said = None if value is None else _SIDES.get(str(value))
        if value is not None and said is None:
            raise read.refused(f"verdicts[{key!r}]", value, "1, 2, tie or null")
        orders.setdefault(judge, {})[order] = said
    return Item(
        id=read.text(row.get("id"), "id"),
        subset=read.optional_text(row.get("dataset"), "dataset") or "",
        question=read.text(row.get("prompt"), "prompt"),
        a=read.text(row.get("output_1"), "output_1"),
        b=read.text(row.get("output_2"), "output_2"),
        human=human,
        verdicts={judge: (found.get("orig"), found.get("swap")) for judge, found in orders.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One judge against humans who know no ties.

    Attributes
    ----------
    n, errors : int
        Pairs with a verdict in both orders; pairs where one failed, which count nowhere else.
    first, second : float in [0, 1]
        Agreement of the order as written, and of the swapped one alone.
    per_order : float in [0, 1]
        Mean of both: what one gets by judging each pair once, in a random order.
    inconsistent : float in [0, 1]
        Share of pairs where the orders disagree.
    decided : float in [0, 1]
        Share of pairs that are no tie after the swap.
    agreement : float in [0, 1] or None
        Agreement where decided: right wins among wins. None where all are ties.
    with_ties : float in [0, 1]
        The same over all pairs, a tie counting one half. Where no single verdict is a tie it equals `per_order` exactly: the
        swap does not make a judge better, it tells where not to trust it.
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
        """JSON form."""
        told: dict[str, JSON] = {}
        for key in self.__slots__:
            value = getattr(self, key)
            if isinstance(value, tuple):
                told[key] = [round(end, 4) for end in value]
            else:
                told[key] = round(value, 4) if isinstance(value, float) else value
        return told


def agreement_of(
    humans: Sequence[Winner],
    orders: Sequence[tuple[Winner | None, Winner | None]],
    *,
    winners: Sequence[Winner | None] | None = None,
    resamples: int = 2000,
) -> Agreement | None:
    """Compare verdicts with human labels; None where no pair has both verdicts.

    Parameters
    ----------
    humans : sequence of {"a", "b"}
    orders : sequence of (Winner or None, Winner or None)
    winners : sequence of Winner or None, optional
        Verdicts after both orders, where they are not what `agreed` makes of `orders`: a panel's.
    resamples : int
        Of the bootstrap.

    Examples
    --------
    >>> found = agreement_of(["a", "a", "b"], [("a", "a"), ("a", "b"), ("b", "b")], resamples=10)
    >>> found.agreement, round(found.per_order, 3), round(found.inconsistent, 3)
    (1.0, 0.833, 0.333)
    """
    final: Sequence[Winner | None] = [agreed(*both) for both in orders] if winners is None else winners
    pairs: list[tuple[Winner, Winner, Winner, Winner]] = [
        (human, one, other, winner)
        for human, (one, other), winner in zip(humans, orders, final, strict=True)
        if one is not None and other is not None and winner is not None
    ]
    if not pairs:
        return None
    first, second = (np.array([_credit(pair[0], pair[at]) for pair in pairs]) for at in (1, 2))
    won = np.array([winner != "tie" for *_, winner in pairs])
    right = np.array([winner == human for human, *_, winner in pairs])
    unequal = np.array([one != other for _, one, other, _ in pairs])
    both = (first + second) / 2

    def share(of_won: np.ndarray, of_right: np.ndarray) -> float | None:
        return float(of_right[of_won].mean()) if of_won.any() else None

    return Agreement(
        n=len(pairs),
        errors=len(orders) - len(pairs),
        first=float(first.mean()),
        second=float(second.mean()),
        per_order=float(both.mean()),
        per_order_ci=bootstrap_ci(_mean, both, n=resamples),
        inconsistent=float(unequal.mean()),
        inconsistent_ci=bootstrap_ci(_mean, unequal, n=resamples),
        decided=float(won.mean()),
        agreement=share(won, right),
        agreement_ci=bootstrap_ci(share, won, right, n=resamples),
        with_ties=float((right + 0.5 * ~won).mean()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _credit(human: Winner, said: Winner) -> float:
    return 0.5 if said == "tie" else float(said == human)


def agreements(
    items: Iterable[Item], *, resamples: int = 2000, panel: bool = True
) -> dict[str, dict[str, Agreement]]:
    """Agreement of every judge, and of all of them as a panel, by subset and over all ("all").

    Parameters
    ----------
    items : iterable of Item
    resamples : int
        Of the bootstrap.
    panel : bool
        Add "panel": the majority of all judges that judged every pair, if there are 3 or more. Its single orders are the
        majorities of single orders, its verdict the majority of the judges' verdicts after both.

    Returns
    -------
    dict
        By judge, by subset.
    """
    rows = list(items)
    judges = list(dict.fromkeys(judge for row in rows for judge in row.verdicts))
    voting = [judge for judge in judges if all(judge in row.verdicts for row in rows)]
    cast = {judge: [_cast(row, judge) for row in rows if judge in row.verdicts] for judge in judges}
    if panel and len(voting) > 2:
        cast["panel"] = [_panel(row, voting) for row in rows]
    found: dict[str, dict[str, Agreement]] = {}
    for judge, said in cast.items():
        for subset in ["all", *dict.fromkeys(one.item.subset for one in said)]:
            part = [one for one in said if subset in ("all", one.item.subset)]
            agreement = agreement_of(
                [one.item.human for one in part],
                [one.orders for one in part],
                winners=[one.winner for one in part],
                resamples=resamples,
            )
            if agreement is not None:
                found.setdefault(judge, {})[subset] = agreement
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cast:
    """One judge's verdict on one item."""

    item: Item
    orders: tuple[Winner | None, Winner | None]
    winner: Winner | None


def _cast(row: Item, judge: str) -> _Cast:
    return _Cast(item=row, orders=row.verdicts[judge], winner=agreed(*row.verdicts[judge]))


def _panel(row: Item, judges: Sequence[str]) -> _Cast:
    return _Cast(
        item=row,
        orders=(
            majority([row.verdicts[judge][0] for judge in judges]),
            majority([row.verdicts[judge][1] for judge in judges]),
        ),
        winner=majority([agreed(*row.verdicts[judge]) for judge in judges]),
    )
