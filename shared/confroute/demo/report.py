"""Show the demo's results as a table or as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confroute.decision import Decision
from confroute.demo.calibrate import DemoFit
from confroute.demo.routes import DemoResult
from confroute.prices import Price
from confroute.types import JSON, Usage

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all requests.

    Attributes
    ----------
    cloud_share : float
        Fraction of requests that the cloud answered.
    edge, cloud : Usage
        Tokens used, with discarded drafts and samples.
    not_sent : Usage
        Tokens of the requests that the cloud never saw, as the edge's tokenizer counts them.
    cost_usd, always_cloud_usd : float or None
        Cost of these calls, and an estimate of what the cloud alone would have cost; None without prices.
    """

    requests: int
    cloud_share: float
    degraded: int
    edge: Usage
    cloud: Usage
    not_sent: Usage
    cost_usd: float | None
    always_cloud_usd: float | None

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "requests": self.requests,
            "cloud_share": round(self.cloud_share, 4),
            "degraded": self.degraded,
            "usage": {"edge": self.edge.to_dict(), "cloud": self.cloud.to_dict()},
            "tokens_not_sent": self.not_sent.total_tokens,
            "cost_usd": self.cost_usd,
            "always_cloud_usd": self.always_cloud_usd,
        }


def totals(results: Sequence[DemoResult], *, edge_price: Price | None, cloud_price: Price | None) -> Totals:
    """Add up the results; costs are known only with a price of the cloud."""
    usages = [d.decision.usage for d in results]
    edge = sum((u.get("edge", Usage()) for u in usages), Usage())
    cloud = sum((u.get("cloud", Usage()) for u in usages), Usage())
    kept = sum((_answer_usage(d) for d in results if d.decision.route == "edge"), Usage())
    cost = always = None
    if cloud_price is not None:
        cost = (edge_price or Price()).of(edge) + cloud_price.of(cloud)
        always = cloud_price.of(cloud + kept)
    return Totals(
        requests=len(results),
        cloud_share=sum(d.decision.route == "cloud" for d in results) / len(results),
        degraded=sum(d.decision.degraded for d in results),
        edge=edge,
        cloud=cloud,
        not_sent=kept,
        cost_usd=cost,
        always_cloud_usd=always,
    )


def _answer_usage(result: DemoResult) -> Usage:
    """Tokens of the answer itself, without the samples drawn to judge it."""
    steps = (s for s in result.decision.steps if s.kind in ("draft", "final") and s.usage is not None)
    return next((s.usage for s in steps if s.usage is not None), Usage())


def as_json(
    results: Sequence[DemoResult], summary: Totals, fit: DemoFit, *, edge: str, cloud: str
) -> dict[str, JSON]:
    """Put the whole run into one JSON object."""
    rows: list[JSON] = []
    for item in results:
        decision = item.decision.to_dict()
        rows.append(
            {
                "id": item.request.id,
                "kind": item.request.kind,
                "host": item.request.host,
                "answer": item.answer,
                "right": item.right,
                **{
                    key: decision[key]
                    for key in ("route", "stage", "uncertainty", "signals", "reason", "usage")
                },
                **{
                    key: decision[key]
                    for key in ("signal", "threshold", "threshold_source", "degraded", "rule")
                },
                "latency_s": round(item.latency_s, 3),
            }
        )
    thresholds: dict[str, JSON] = {
        gate.signal.name: {
            "value": round(gate.threshold.value, 6),
            "source": gate.threshold.source,
            "grey": None if gate.grey is None else [*(round(edge_of, 6) for edge_of in gate.grey)],
        }
        for gate in fit.policy.gates
    }
    return {
        "models": {"edge": edge, "cloud": cloud},
        "thresholds": thresholds,
        "signals_left_out": dict(fit.left_out),
        "requests": rows,
        "totals": summary.to_dict(),
    }


def outcome(result: DemoResult) -> str:
    """Say in one line where a request went, and why.

    Parameters
    ----------
    result : DemoResult
    """
    decision = result.decision
    answer = " ".join(result.answer.split())
    return f"{decision.route}, {result.latency_s:.1f} s: {shortened(answer)} | {_why(decision)}"


def shortened(text: str, most: int = 60) -> str:
    """The text, or its beginning if it is longer than `most` characters.

    Examples
    --------
    >>> shortened("It is Rome."), shortened("It is Rome.", 5)
    ('It is Rome.', 'It is…')
    """
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


def in_words(results: Sequence[DemoResult], summary: Totals) -> tuple[str, str, str]:
    """Say in three sentences what stayed at the edge, what that saved, and which answers are wrong and why."""
    return _stayed(results), _saved(summary), _wrong(results)


def _stayed(results: Sequence[DemoResult]) -> str:
    kept = [item.decision for item in results if item.decision.route == "edge"]
    private, degraded = sum(d.private for d in kept), sum(d.degraded for d in kept)
    reasons = {
        "because it was certain enough": len(kept) - private - degraded,
        "because the text is private": private,
        "because the cloud was switched off": degraded,
    }
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    return (
        f"Stayed: the edge answered {len(kept)} of {len(results)} requests{f' ({why})' if why else ''}; "
        f"the other {len(results) - len(kept)} went to the cloud."
    )


def _saved(summary: Totals) -> str:
    sent = summary.cloud.total_tokens
    always = sent + summary.not_sent.total_tokens
    share = f", {1 - sent / always:.0%} less" if always else ""
    cost = (
        ""
        if summary.cost_usd is None or summary.always_cloud_usd is None
        else f", and {summary.cost_usd:.6f} USD in place of {summary.always_cloud_usd:.6f}"
    )
    return (
        f"Saved: the cloud read and wrote {sent} tokens in place of some {always} for all requests{share}{cost}; "
        f"the edge took {summary.edge.total_tokens}, samples included."
    )


def _wrong(results: Sequence[DemoResult]) -> str:
    graded = [item for item in results if item.right is not None]
    wrong = [item for item in graded if not item.right]
    told = "; ".join(f"{item.request.id} ({_blame(item.decision)})" for item in wrong)
    return f"Wrong: {len(wrong)} of {len(graded)} answers that a word can grade{f': {told}' if told else ''}."


def _blame(decision: Decision) -> str:
    if decision.degraded:
        return "the edge doubted it, and the cloud was switched off"
    if decision.route == "cloud":
        return "the cloud's own mistake"
    if decision.uncertainty is None or decision.threshold is None:
        return "the edge had to answer"
    return f"the edge was sure of it: {decision.uncertainty:.3g}, kept up to {decision.threshold:.3g}"


def _why(decision: Decision) -> str:
    """The reason without the origin of thresholds, which is printed once, below the table."""
    return decision.reason.replace(f" ({decision.threshold_source})", "")


def show(console: Console, results: Sequence[DemoResult], summary: Totals, fit: DemoFit) -> None:
    """Print what came of it in three sentences, then the table, the thresholds and the totals."""
    for line in in_words(results, summary):
        console.print(line, markup=False)
    console.print()
    console.print(_table(results))
    for gate in fit.policy.gates:
        zone = (
            "" if gate.grey is None else f", asks for more between {gate.grey[0]:.3g} and {gate.grey[1]:.3g}"
        )
        console.print(
            f"threshold of {gate.signal.name}: {gate.threshold.value:.3g} {gate.signal.range.unit} "
            f"({gate.threshold.source}{zone})"
        )
    for name, reason in fit.left_out.items():
        console.print(f"{name} is left out: {reason}")


def _table(results: Sequence[DemoResult]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_lines=True, pad_edge=False)
    for name in ("request", "route"):
        table.add_column(name, no_wrap=True)
    table.add_column("uncer-\ntainty", justify="right")
    table.add_column("why, and the answer", overflow="fold", ratio=1)
    for name in ("s", "tokens\nedge/cloud"):
        table.add_column(name, justify="right")
    for item in results:
        decision, usage = item.decision, item.decision.usage
        why = escape(_why(decision))
        table.add_row(
            f"{item.request.id}\n{item.request.host}",
            f"{decision.route}\n{'degraded' if decision.degraded else decision.stage}",
            "-" if decision.uncertainty is None else f"{decision.uncertainty:.3g}",
            f"{why}\n[italic]{escape(item.answer)}[/italic]",
            f"{item.latency_s:.1f}",
            f"{usage.get('edge', Usage()).total_tokens}/{usage.get('cloud', Usage()).total_tokens}",
        )
    return table
