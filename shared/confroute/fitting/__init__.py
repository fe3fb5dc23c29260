"""Fit policies to recorded calls: calibration, objectives, fronts, and replays of what a policy would have done."""

from confroute.fitting.adverse import AdverseSelection, adverse_selection
from confroute.fitting.applied import Applied, apply
from confroute.fitting.chain_choice import ChainResult
from confroute.fitting.combine import crossfit_combined, fit_combined, mean_rank, predicted
from confroute.fitting.early_stops import EarlyStops, early_stops
from confroute.fitting.fit import Fit, fit
from confroute.fitting.front import ParetoFront, front_of
from confroute.fitting.goal import CloudShare
from confroute.fitting.objective import Limit, Objective
from confroute.fitting.plan import Guess, Planned, plan
from confroute.fitting.point import Calls, Metric, Point, metric, metrics
from confroute.fitting.promise import (
    GradedCalls,
    MaxLoss,
    Outlook,
    PromisePoint,
    RowsEstimate,
    certified_threshold,
    estimate_rows,
    outlook,
    promise_curve,
)
from confroute.fitting.rates import Bill, Rates
from confroute.fitting.replay import Expected, ReplayedCall, expected, replay
from confroute.fitting.table import Table, table_of
from confroute.fitting.verdict import Verdict, verdict_of

__all__ = [
    "AdverseSelection",
    "Applied",
    "Bill",
    "Calls",
    "ChainResult",
    "CloudShare",
    "EarlyStops",
    "Expected",
    "Fit",
    "GradedCalls",
    "Guess",
    "Limit",
    "MaxLoss",
    "Metric",
    "Objective",
    "Outlook",
    "ParetoFront",
    "Planned",
    "Point",
    "PromisePoint",
    "Rates",
    "ReplayedCall",
    "RowsEstimate",
    "Table",
    "Verdict",
    "adverse_selection",
    "apply",
    "certified_threshold",
    "crossfit_combined",
    "early_stops",
    "estimate_rows",
    "expected",
    "fit",
    "fit_combined",
    "front_of",
    "mean_rank",
    "metric",
    "metrics",
    "outlook",
    "plan",
    "predicted",
    "promise_curve",
    "replay",
    "table_of",
    "verdict_of",
]
