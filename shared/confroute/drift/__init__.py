"""Detects an edge that has become worse, and calls that have changed: shadow audits, sequential and two-sample tests, off-policy estimates."""

from confroute.drift.audit import Audited
from confroute.drift.bounds import LossBounds, loss_bounds
from confroute.drift.eprocess import DriftTest
from confroute.drift.health import GrowingHealth, Health, Hour, Promise, health, hourly, promise_of
from confroute.drift.offpolicy import LoggedCall, OffPolicyEstimate, off_policy
from confroute.drift.shift import Shift, like_recorded, measured_by

__all__ = [
    "Audited",
    "DriftTest",
    "GrowingHealth",
    "Health",
    "Hour",
    "LoggedCall",
    "LossBounds",
    "OffPolicyEstimate",
    "Promise",
    "Shift",
    "health",
    "hourly",
    "like_recorded",
    "loss_bounds",
    "measured_by",
    "off_policy",
    "promise_of",
]
