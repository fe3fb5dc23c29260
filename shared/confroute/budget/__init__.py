"""Spend, token and rate budgets, and the threshold that makes them last."""

from confroute.budget.budget import Budget
from confroute.budget.paced import Paced
from confroute.budget.pacing import Pace

__all__ = ["Budget", "Pace", "Paced"]
