"""Observing decisions: `record()`, the decision log, OpenTelemetry."""

from confroute.observe.trace import Trace, publish, record, subscribe

__all__ = ["Trace", "publish", "record", "subscribe"]
