"""Recorded calls of several models as columns: where each call ends by given thresholds, and what that gives and takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.certificate import Loss
from confroute.errors import CalibrationError
from confroute.fitting.point import Calls
from confroute.fitting.rates import Rates
from confroute.fitting.table import Table, table_of
from confroute.policy.guarantee import forwarded, severity
from confroute.recording import Row
from confroute.recording.packed import RowView, outlines_of, picked
from confroute.stats.arrays import Array, Flags
from confroute.types import TIERS

Routes: TypeAlias = npt.NDArray[np.int64]
Thresholds: TypeAlias = tuple[float, ...]
# Of a single step, and of all steps together.
_LEVELS, _COMBINED = 40, 1000


def words_of(tiers: Sequence[str]) -> str:
    """The tiers of a chain in order, for a sentence.

    Examples
    --------
    >>> words_of(["edge", "mid"]), words_of(["edge"])
    ('edge > mid', 'edge alone')
    """
    return " > ".join(tiers) + " alone" * (len(tiers) == 1)


def comparable(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of a run that hold every model of it, each draft graded, or failed, and the cloud graded.

    Raises
    ------
    CalibrationError
        There are none.
    """
    outlines = outlines_of(rows)
    tiers = max((one.tiers for one in outlines), key=len, default=())
    places = np.flatnonzero([one.tiers == tiers and one.comparable for one in outlines])
    if not places.size:
        names = ", ".join((TIERS[0], *tiers, TIERS[1]))
        msg = (
            f"none of {len(outlines)} rows holds graded answers of {names} (quality of each): grade them all before fitting, since the "
            "models are compared on the same calls"
        )
        raise CalibrationError(msg)
    return picked(rows, places)


def tables_of(
    rows: Sequence[Row],
    *,
    rates: Rates | None = None,
    on_unfinished: Literal["reject", "judge"] = "reject",
) -> dict[str, Table]:
    """Collect a run as one table for each tier that drafts, beside the cloud; all of the same calls, in the same order.

    Parameters
    ----------
    rows : sequence of Row
        As `comparable` returns them.
    rates, on_unfinished
        See `confroute.fitting.table_of`.

    Raises
    ------
    CalibrationError
        A price is of a tier that the rows do not hold, or an id occurs twice.
    """
    tiers, at = rows[0].models, rates or Rates()
    if unknown := sorted({*at.tiers, *at.tier_watts} - set(tiers)):
        msg = f"a price of {unknown[0]!r}: the run holds {', '.join(tiers)}"
        raise CalibrationError(msg)
    return {
        tier: table_of(
            _pairs(rows, tier), rates=at.drafting(tier), on_unfinished=on_unfinished, graded_only=False
        )
        for tier in tiers[:-1]
    }


def _pairs(rows: Sequence[Row], tier: str) -> RowView:
    return RowView(len(rows), lambda at: rows[at].between(tier, TIERS[-1]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """Graded calls of two or more models that are asked in turn.

    Attributes
    ----------
    tiers : tuple of str
        Cheapest first; k of them.
    quality : array of float in [0, 1], shape (k, n)
        Of each model's answer to each call; 0 where it failed.
    uncertainty : array of float, shape (k - 1, n)
        Of each draft; NaN where no threshold keeps it.
    answers : mapping of str to array, shape (k, n)
        Bill of each model's answer, by the fields of `confroute.fitting.rates.Bill`.
    evidence : mapping of str to array, shape (k - 1, n)
        Bill of the samples by which each draft is measured.
    cloud_quality : array of float in [0, 1], shape (n,)
        Of the run's last model, against which losses are measured; it need not be in the chain.
    """

    tiers: tuple[str, ...]
    quality: Array
    uncertainty: Array
    answers: Mapping[str, Array]
    evidence: Mapping[str, Array]
    cloud_quality: Array

    @property
    def n(self) -> int:
        """Number of calls."""
        return self.cloud_quality.size

    @property
    def words(self) -> str:
        """Its tiers in order."""
        return words_of(self.tiers)

    def part(self, keep: Flags) -> Chain:
        """The calls where `keep` is True."""
        return replace(
            self,
            quality=self.quality[:, keep],
            uncertainty=self.uncertainty[:, keep],
            answers={name: values[:, keep] for name, values in self.answers.items()},
            evidence={name: values[:, keep] for name, values in self.evidence.items()},
            cloud_quality=self.cloud_quality[keep],
        )

    def of(self, tiers: Sequence[str]) -> Chain:
        """The chain of some of its tiers, on the same calls."""
        at = [self.tiers.index(tier) for tier in tiers]
        return replace(
            self,
            tiers=tuple(tiers),
            quality=self.quality[at],
            uncertainty=self.uncertainty[at[:-1]],
            answers={name: values[at] for name, values in self.answers.items()},
            evidence={name: values[at[:-1]] for name, values in self.evidence.items()},
        )

    def subsets(self) -> Iterator[Chain]:
        """Every chain of some of its tiers in their order: single models, pairs, and so on to itself."""
        for size in range(1, len(self.tiers) + 1):
            yield from map(self.of, itertools.combinations(self.tiers, size))

    def routes(self, thresholds: Thresholds) -> Routes:
        """Which tier answers each call: the first whose uncertainty is at most its threshold, else the last."""
        keeps = self.uncertainty <= np.reshape(thresholds, (-1, 1))
        return (
            np.where(keeps.any(axis=0), keeps.argmax(axis=0), len(self.tiers) - 1)
            if len(keeps)
            else np.zeros(self.n, int)
        )

    def calls(self, routes: Sequence[Routes]) -> Calls:
        """What calls give and take by several routings, arrays of shape (routings, n)."""
        of_all = np.stack(list(routes))
        at = np.arange(self.n)
        return Calls(
            cloud=((of_all == len(self.tiers) - 1) & self._to_cloud).astype(np.float64),
            quality=self.quality[of_all, at],
            **{name: self._spent(name)[of_all, at] for name in self.answers},
        )

    def _spent(self, name: str) -> Array:
        """What a call takes that ends at each tier: all drafts and all evidence up to there."""
        # The last answer is not measured.
        evidence = np.concatenate([self.evidence[name], np.zeros((1, self.n))])
        return np.cumsum(self.answers[name] + evidence, axis=0)

    def losses(self, loss: Loss, routes: Routes) -> Array:
        """The loss of each call against the run's last model; for "selective" of those alone that it does not answer."""
        return self._chosen(loss, self._lost(loss), routes)

    def _lost(self, loss: Loss) -> Array:
        """The loss of each call that ends at each tier, shape (k, n)."""
        lost = severity(loss, self.quality, self.cloud_quality)
        return np.concatenate([lost[:-1], [forwarded(loss, self.cloud_quality)]]) if self._to_cloud else lost

    def _chosen(self, loss: Loss, lost: Array, routes: Routes) -> Array:
        found = lost[routes, np.arange(self.n)]
        return found[routes < len(self.tiers) - 1] if loss == "selective" and self._to_cloud else found

    @property
    def _to_cloud(self) -> bool:
        return self.tiers[-1] == TIERS[-1]

    def front(self, loss: Loss) -> tuple[Thresholds, ...]:
        """Thresholds for every step, the most cautious first: each next one costs less, and none costs and loses less than another.

        They are quantiles of the uncertainties of each step, 40 or as many as make 1000 combinations of all steps.

        Raises
        ------
        CalibrationError
            Costs are not known of every call, or a step's uncertainty of none.
        """
        if not self.uncertainty.size:
            return ((),)
        tried = list(itertools.product(*map(self._levels, range(len(self.uncertainty)))))
        usd = self._spent("usd")
        if np.isnan(usd).any():
            msg = (
                "the cost of some recorded calls is not known, and chains are compared at equal total cost: give the prices of all tiers (rates=, "
                "--edge-price, --price TIER=IN,OUT, --cloud-price) and record usage, or record cost_usd"
            )
            raise CalibrationError(msg)
        at, of_all, found = np.arange(self.n), self._lost(loss), []
        for thresholds in tried:
            routes = self.routes(thresholds)
            lost = self._chosen(loss, of_all, routes)
            found.append(
                (float(lost.mean()) if lost.size else 0.0, float(usd[routes, at].mean()), thresholds)
            )
        kept: list[tuple[float, float, Thresholds]] = []
        for one in sorted(found):
            if not kept or one[1] < kept[-1][1]:
                kept.append(one)
        return tuple(thresholds for _, _, thresholds in kept)

    def _levels(self, step: int) -> list[float]:
        known = self.uncertainty[step][~np.isnan(self.uncertainty[step])]
        if not known.size:
            msg = f"the signal was measured on none of the drafts of {self.tiers[step]}"
            raise CalibrationError(msg)
        count = min(_LEVELS, int(_COMBINED ** (1 / len(self.uncertainty)) + 1e-9))
        shares = np.linspace(0, 1, count + 1)[1:]
        levels: list[float] = np.unique(np.quantile(known, shares, method="inverted_cdf")).tolist()
        return levels


def chain_of(tables: Mapping[str, Table], column: str, *, sampled: bool) -> Chain:
    """Arrange tables of `tables_of` as a chain that is routed by one signal.

    Parameters
    ----------
    tables : mapping of str to Table
    column : str
        The signal's column in each table.
    sampled : bool
        Whether the signal draws samples, which are billed then.
    """
    steps = list(tables.values())
    last = steps[0]
    names = list(last.draft)
    return Chain(
        tiers=(*tables, TIERS[-1]),
        quality=np.stack([*(one.edge_quality for one in steps), last.cloud_quality]),
        uncertainty=np.stack([one.signal(column) for one in steps]),
        answers={name: np.stack([*(one.draft[name] for one in steps), last.cloud[name]]) for name in names},
        evidence={
            name: np.stack([one.samples[name] if sampled else np.zeros(one.n) for one in steps])
            for name in names
        },
        cloud_quality=last.cloud_quality,
    )
