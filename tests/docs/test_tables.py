"""The tables of the pages say what the registries say: a new signal or metric is not shipped without them."""

from pathlib import Path

import pytest

from confroute.fitting import metrics
from confroute.recording.signals import known_signals
from confroute.registry import entries, not_recorded

DOCS = Path(__file__).parents[2] / "docs"


def shipped(kind):
    """The registry without what tests have added."""
    return [entry for entry in entries(kind) if entry.known.__module__.startswith("confroute.")]


def rows_of_signals():
    """Every signal, cheapest first."""
    names = {entry.name for entry in shipped("signal")}
    return [
        f"| `{one.name}` | {one.needs} | {one.values} | {one.recorded} |"
        for one in known_signals()
        if one.name in names
    ]


def rows_of_kinds():
    """What is not recorded by itself, and why; sorted, since classes register as their modules are imported."""
    found = []
    for kind in ("equivalence", "similarity", "rule", "policy", "wrapper"):
        known = sorted(shipped(kind), key=lambda entry: entry.name)
        names = ", ".join(f"`{entry.name}`" for entry in known)
        found.append(f"| {kind} | {names} | {not_recorded(known[0])} |")
    return found


def rows_of_metrics():
    """Every metric, in the order of tables."""
    return [
        f"| `{name}` | `{one.short or name}` | {'higher' if one.higher_is_better else 'lower'} | {one.words} |"
        for name, one in metrics().items()
    ]


@pytest.mark.parametrize(
    ("page", "rows"),
    [("signals.md", rows_of_signals), ("signals.md", rows_of_kinds), ("policy.md", rows_of_metrics)],
)
def test_a_table_is_that_of_the_registry(page, rows):
    """Line by line; where it is not, these are the right lines."""
    expected = "\n".join(rows())
    assert expected in (DOCS / page).read_text(encoding="utf-8"), (
        f"docs/{page} needs these lines:\n{expected}"
    )


def test_every_signal_is_told_about():
    """Each stands in the pages outside of that table too, with when to use it."""
    text = "".join(
        (DOCS / page).read_text(encoding="utf-8") for page in ("signals.md", "white-box-signals.md")
    )
    text += (DOCS / "llamaindex.md").read_text(encoding="utf-8")
    for entry in shipped("signal"):
        assert text.count(f"`{entry.name}") > 1 or f"{entry.name}(" in text or entry.why_not, entry.name
