"""Policies: the cascade, its gates, thresholds and rules, the policies around it, and the files of all."""

from confroute.asks import HelpTool
from confroute.policy.cascade import Cascade, default_gates
from confroute.policy.files import load_policy, register, save_policy
from confroute.policy.gate import Gate, GroupThreshold, TierThreshold
from confroute.policy.head_first import HeadFirst
from confroute.policy.hedge import Hedged
from confroute.policy.prefix import Prefix
from confroute.policy.presidio import Presidio
from confroute.policy.provenance import Provenance, ProvenanceWarning
from confroute.policy.reuse import DraftReuse
from confroute.policy.rules import KeepPrivate, Rule, Ruling, SendTo
from confroute.policy.sticky import Sticky, TierPrice
from confroute.policy.threshold import Threshold

__all__ = [
    "Cascade",
    "DraftReuse",
    "Gate",
    "GroupThreshold",
    "HeadFirst",
    "Hedged",
    "HelpTool",
    "KeepPrivate",
    "Prefix",
    "Presidio",
    "Provenance",
    "ProvenanceWarning",
    "Rule",
    "Ruling",
    "SendTo",
    "Sticky",
    "Threshold",
    "TierPrice",
    "TierThreshold",
    "default_gates",
    "load_policy",
    "register",
    "save_policy",
]
