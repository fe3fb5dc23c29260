"""Fit policies to recorded calls: calibration, objectives, fronts, and replays of what a policy would have done."""

from confroute.fitting.applied import Applied, apply
from confroute.fitting.combine import crossfit_combined, fit_combined, mean_rank, predicted
from confroute.fitting.early_stops import EarlyStops, early_stops
from confroute.fitting.fit import CloudShare, Fit, MaxLoss, fit
from confroute.fitting.front import ParetoFront, front_of
from confroute.fitting.objective import Limit, Objective
from confroute.fitting.point import Calls, Metric, Point, metric, metrics
from confroute.fitting.rates import Bill, Rates
from confroute.fitting.replay import Expected, ReplayedCall, expected, replay
from confroute.fitting.table import Table, table_of
from confroute.fitting.verdict import Verdict, verdict_of

__all__ = [
    "Applied",
    "Bill",
    "Calls",
    "CloudShare",
    "EarlyStops",
    "Expected",
    "Fit",
    "Limit",
    "MaxLoss",
    "Metric",
    "Objective",
    "ParetoFront",
    "Point",
    "Rates",
    "ReplayedCall",
    "Table",
    "Verdict",
    "apply",
    "crossfit_combined",
    "early_stops",
    "expected",
    "fit",
    "fit_combined",
    "front_of",
    "mean_rank",
    "metric",
    "metrics",
    "predicted",
    "replay",
    "table_of",
    "verdict_of",
]
