"""Budgets of money, tokens or calls, and a controller that moves a threshold so that they last."""

from confroute.budget.budget import Budget
from confroute.budget.paced import Paced
from confroute.budget.pacing import Pace

__all__ = ["Budget", "Pace", "Paced"]
