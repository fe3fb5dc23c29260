"""Thresholds with a guarantee: Learn-then-Test, conformal risk control and the bounds that they use."""

from confroute.policy.guarantee.certify import certified, certified_groups, columns
from confroute.policy.guarantee.judged import Grades, certified_judged
from confroute.policy.guarantee.losses import LEAST_KEPT, forwarded, is_binary, severity
from confroute.policy.guarantee.policies import certified_policies
from confroute.policy.guarantee.sequence import least_kept
from confroute.stats.tails import (
    betting,
    binomial_cdf,
    hypergeometric_cdf,
    most_failures,
    rows_needed,
)

__all__ = [
    "LEAST_KEPT",
    "Grades",
    "betting",
    "binomial_cdf",
    "certified",
    "certified_groups",
    "certified_judged",
    "certified_policies",
    "columns",
    "forwarded",
    "hypergeometric_cdf",
    "is_binary",
    "least_kept",
    "most_failures",
    "rows_needed",
    "severity",
]
