"""Show the demo's results as a table or as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def show(console: Console, results: Sequence[DemoResult], summary: Totals, fit: DemoFit) -> None:
    """Print the table, the thresholds and the totals."""
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
    console.print(
        f"\n{summary.requests} requests, cloud share {summary.cloud_share:.0%}, {summary.degraded} degraded; "
        f"{summary.not_sent.total_tokens} tokens not sent to the cloud, {summary.cloud.total_tokens} sent; "
        f"{summary.edge.total_tokens} on the edge, samples and discarded drafts included"
    )
    if summary.cost_usd is not None:
        console.print(
            f"cost at your prices: {summary.cost_usd:.6f} USD; the cloud alone, estimated: {summary.always_cloud_usd:.6f} USD"
        )


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
        # The origin of thresholds is printed once, below the table.
        why = escape(decision.reason.replace(f" ({decision.threshold_source})", ""))
        table.add_row(
            f"{item.request.id}\n{item.request.host}",
            f"{decision.route}\n{'degraded' if decision.degraded else decision.stage}",
            "-" if decision.uncertainty is None else f"{decision.uncertainty:.3g}",
            f"{why}\n[italic]{escape(item.answer)}[/italic]",
            f"{item.latency_s:.1f}",
            f"{usage.get('edge', Usage()).total_tokens}/{usage.get('cloud', Usage()).total_tokens}",
        )
    return table
