"""Detects an edge that has become worse: shadow audits, a sequential test on them, and off-policy estimates from logs."""

from confroute.drift.audit import Audited
from confroute.drift.eprocess import DriftTest
from confroute.drift.offpolicy import LoggedCall, OffPolicyEstimate, off_policy

__all__ = ["Audited", "DriftTest", "LoggedCall", "OffPolicyEstimate", "off_policy"]
