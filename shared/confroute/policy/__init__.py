"""Policies: the cascade, its gates, thresholds and rules, and the policies around it."""

from confroute.policy.cascade import Cascade, default_gates
from confroute.policy.files import register
from confroute.policy.gate import Gate, GroupThreshold
from confroute.policy.head_first import HeadFirst
from confroute.policy.prefix import Prefix
from confroute.policy.presidio import Presidio
from confroute.policy.rules import KeepPrivate, Rule, Ruling, SendTo
from confroute.policy.threshold import Threshold

__all__ = [
    "Cascade",
    "Gate",
    "GroupThreshold",
    "HeadFirst",
    "KeepPrivate",
    "Prefix",
    "Presidio",
    "Rule",
    "Ruling",
    "SendTo",
    "Threshold",
    "default_gates",
    "register",
]
