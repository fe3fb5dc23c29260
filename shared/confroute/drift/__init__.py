"""Detects an edge that has become worse, and calls that have changed: shadow audits, sequential and two-sample tests, off-policy estimates."""

from confroute.drift.audit import Audited
from confroute.drift.eprocess import DriftTest
from confroute.drift.offpolicy import LoggedCall, OffPolicyEstimate, off_policy
from confroute.drift.shift import Shift, like_recorded, measured_by

__all__ = [
    "Audited",
    "DriftTest",
    "LoggedCall",
    "OffPolicyEstimate",
    "Shift",
    "like_recorded",
    "measured_by",
    "off_policy",
]
