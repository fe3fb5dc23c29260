"""Measuring: how well uncertainties rank errors, and what routing by them is worth."""
