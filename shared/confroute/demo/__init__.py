"""The demo: calibrate on a few questions, then route other requests through both hosts, with real calls on two models."""
