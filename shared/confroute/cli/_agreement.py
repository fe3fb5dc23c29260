"""How far judges agree with humans, as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confroute.judge.agreement import Agreement


def agreement_table(found: Mapping[str, Mapping[str, Agreement]]) -> None:
    """Print it: a row a judge and subset."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 170
    table = Table(
        "judge", "subset", "n", "errors", "one order", "inconsistent", "decided", "agreement", "ties 1/2"
    )
    for judge, parts in found.items():
        for subset, one in parts.items():
            agreement = "-" if one.agreement is None else f"{one.agreement:.3f}{_interval(one.agreement_ci)}"
            table.add_row(
                judge,
                subset,
                str(one.n),
                str(one.errors),
                f"{one.per_order:.3f}{_interval(one.per_order_ci)}",
                f"{one.inconsistent:.3f}",
                f"{one.decided:.3f}",
                agreement,
                f"{one.with_ties:.3f}",
            )
    console.print(table, markup=False)
    console.print("one order: mean agreement of single orders; agreement: of verdicts that both orders share")


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" ({ends[0]:.2f}-{ends[1]:.2f})"
