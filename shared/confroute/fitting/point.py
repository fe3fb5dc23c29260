"""One way to route recorded calls, and what it gives and takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Metric: TypeAlias = Literal[
    "quality", "usd_per_1k", "latency_s", "p95_latency_s", "sent_tokens", "energy_j", "cloud_share"
]
METRICS: tuple[Metric, ...] = (
    "quality",
    "usd_per_1k",
    "latency_s",
    "p95_latency_s",
    "sent_tokens",
    "energy_j",
    "cloud_share",
)
Interval: TypeAlias = "tuple[float, float]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Means over recorded calls; None where the run does not tell.

    Attributes
    ----------
    name : str
        "threshold", "edge", "cloud" or "oracle".
    threshold : float or None
        In the signal's unit; None for those that have none.
    cloud_share : float in [0, 1]
    quality : float in [0, 1] or None
    usd_per_1k, latency_s, p95_latency_s, sent_tokens, energy_j : float or None
        USD for a thousand calls; seconds, mean and 95th percentile; prompt tokens sent to the cloud; joules.
    quality_ci, usd_ci : tuple of float or None
        95 % bootstrap intervals.
    """

    name: str
    threshold: float | None
    cloud_share: float
    quality: float | None
    usd_per_1k: float | None
    latency_s: float | None
    p95_latency_s: float | None
    sent_tokens: float | None
    energy_j: float | None
    quality_ci: Interval | None = None
    usd_ci: Interval | None = None
