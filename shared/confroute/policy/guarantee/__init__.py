"""Thresholds with a guarantee: Learn-then-Test, conformal risk control and the bounds that they use."""

from confroute.policy.guarantee.certify import certified, certified_groups, columns
from confroute.policy.guarantee.judged import Grades, certified_judged
from confroute.policy.guarantee.losses import LEAST_KEPT, severity
from confroute.stats.tails import (
    betting,
    binomial_cdf,
    hoeffding_bentkus,
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
    "columns",
    "hoeffding_bentkus",
    "hypergeometric_cdf",
    "most_failures",
    "rows_needed",
    "severity",
]
