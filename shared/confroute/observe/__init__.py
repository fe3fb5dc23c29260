"""Observing decisions: `record()`, the decision log, OpenTelemetry."""

from confroute.observe.trace import AuditedLoss, Trace, publish, record, subscribe, subscribe_losses

__all__ = ["AuditedLoss", "Trace", "publish", "record", "subscribe", "subscribe_losses"]
