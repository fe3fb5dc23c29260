"""OpenTelemetry: a span for each routed call and each of its steps, and metrics, by the semantic conventions for generative AI.

::

    stop = instrument()  # the global tracer and meter providers, or your own

Needs `pip install 'confroute[otel]'`. No text of prompts or answers is exported: decisions hold none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from confroute.decision import Decision, Step
from confroute.errors import MissingExtraError
from confroute.observe.trace import subscribe

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

Attributes: TypeAlias = "dict[str, str | bool | int | float]"
_MODEL_CALLS = ("draft", "sample", "prompt", "final", "hedge")


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """Export every decision of this process, until the returned function is called.

    Parameters
    ----------
    tracer_provider, meter_provider : optional
        OpenTelemetry's global ones by default.

    Returns
    -------
    callable
        Ends the export.

    Raises
    ------
    MissingExtraError
        OpenTelemetry is not installed.

    Notes
    -----
    A span `confroute.route` has a child for each step; those that asked a model have the names and attributes of the semantic
    conventions (`chat MODEL`, `gen_ai.usage.input_tokens`, ...). Spans are made when the decision is published: their durations are
    the measured ones, one after the other up to now. The current span is their parent.
    Metrics: `gen_ai.client.operation.duration` (s), `gen_ai.client.token.usage` (tokens), `confroute.decisions`.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise MissingExtraError(extra="otel", needed_for="exporting to OpenTelemetry") from error
    tracer = trace.get_tracer("confroute", tracer_provider=tracer_provider)
    meter = metrics.get_meter("confroute", meter_provider=meter_provider)
    count = _counter(meter)

    def export(decision: Decision) -> None:
        _spans(tracer, decision)
        count(decision)

    return subscribe(export)


def _spans(tracer: Tracer, decision: Decision) -> None:
    from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

    end = time.time_ns()
    at = end - int(decision.latency_s * 1e9)
    whole = tracer.start_span("confroute.route", start_time=at, attributes=_of_decision(decision))
    context = set_span_in_context(whole)
    for step in decision.steps:
        calls_model = step.kind in _MODEL_CALLS
        span = tracer.start_span(
            f"chat {step.model}" if calls_model and step.model else f"confroute.{step.kind}",
            context=context,
            kind=SpanKind.CLIENT if calls_model else SpanKind.INTERNAL,
            start_time=at,
            attributes=_of_step(step),
        )
        if step.error:
            span.set_status(StatusCode.ERROR, step.error)
        at = min(end, at + int(step.latency_s * 1e9))
        span.end(end_time=at)
    whole.end(end_time=end)


def _of_decision(decision: Decision) -> Attributes:
    attributes = {
        "confroute.route": decision.route,
        "confroute.stage": decision.stage,
        "confroute.reason": decision.reason,
        "confroute.signal": decision.signal,
        "confroute.uncertainty": decision.uncertainty,
        "confroute.threshold": decision.threshold,
        "confroute.threshold_source": decision.threshold_source,
        "confroute.rule": decision.rule,
        "confroute.degraded": decision.degraded,
        "confroute.private": decision.private,
    }
    return _present(attributes)


def _of_step(step: Step) -> Attributes:
    usage = step.usage
    calls_model = step.kind in _MODEL_CALLS
    attributes = {
        "gen_ai.operation.name": "chat" if calls_model else None,
        "gen_ai.request.model": step.model if calls_model else None,
        "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": (usage.cached_tokens or None) if usage else None,
        "gen_ai.usage.cache_creation.input_tokens": (usage.cache_write_tokens or None) if usage else None,
        **_error(step),
        "confroute.tier": step.tier,
        "confroute.step": step.kind,
        "confroute.attempts": step.attempts,
        "confroute.n": step.n,
    }
    return _present(attributes)


def _error(step: Step) -> dict[str, str]:
    """The class of the error that a step ended in; its text may hold anything and stays out of metrics."""
    return {"error.type": step.error.partition(":")[0]} if step.error else {}


def _present(attributes: Mapping[str, str | bool | int | float | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _counter(meter: Meter) -> Callable[[Decision], None]:
    duration = meter.create_histogram(
        "gen_ai.client.operation.duration", unit="s", description="time of a model call"
    )
    tokens = meter.create_histogram(
        "gen_ai.client.token.usage", unit="{token}", description="tokens of a model call"
    )
    decisions = meter.create_counter(
        "confroute.decisions", unit="{decision}", description="calls by route and stage"
    )

    def count(decision: Decision) -> None:
        decisions.add(1, {"confroute.route": decision.route, "confroute.stage": decision.stage})
        for step in decision.steps:
            if step.kind not in _MODEL_CALLS:
                continue
            labels = {"gen_ai.operation.name": "chat", "confroute.tier": step.tier or ""}
            labels |= {"gen_ai.request.model": step.model} if step.model else {}
            duration.record(step.latency_s, labels | _error(step))
            if step.usage is not None:
                tokens.record(step.usage.input_tokens, labels | {"gen_ai.token.type": "input"})
                tokens.record(step.usage.output_tokens, labels | {"gen_ai.token.type": "output"})

    return count
