"""OpenTelemetry: spans and metrics of routed calls, collected by the real SDK."""

import builtins

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from confroute import Cascade, Message, Request, TokenLogprob
from confroute.errors import MissingExtraError
from confroute.executor import run
from confroute.observe.otel import instrument
from confroute.signals import Verbalised
from confroute.testing import Reply, ScriptedCalls, ScriptedModel


@pytest.fixture
def collected():
    """Spans and metrics in memory while instrumented."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    stop = instrument(tracer_provider=tracers, meter_provider=meters)
    yield tracers, spans, reader
    stop()
    tracers.shutdown()
    meters.shutdown()


def route(edge):
    """One call with a given edge reply."""
    request = Request(messages=(Message(role="user", text="a secret question"),))
    models = {"edge": ScriptedModel([edge], name="small"), "cloud": ScriptedModel(["sure"], name="large")}
    calls = ScriptedCalls(models=models)
    return run(Cascade.of(TokenLogprob(), 0.1), request, calls.call(request), {}).decision


def test_an_escalated_call_is_a_span_with_two_model_spans_inside(collected):
    """Names, parents, usage and order in time are those of the decision."""
    tracers, spans, _ = collected
    with tracers.get_tracer("app").start_as_current_span("chain"):
        decision = route(Reply(text="hm", logprob=-3.0, latency_s=0.01))
    by_name = {span.name: span for span in spans.get_finished_spans()}
    assert set(by_name) == {"chain", "confroute.route", "chat small", "chat large"}
    whole = by_name["confroute.route"]
    assert whole.parent.span_id == by_name["chain"].context.span_id
    assert whole.attributes["confroute.route"] == decision.route == "cloud"
    assert whole.attributes["confroute.uncertainty"] == pytest.approx(3.0)
    first, second = by_name["chat small"], by_name["chat large"]
    assert first.parent.span_id == second.parent.span_id == whole.context.span_id
    assert first.attributes["gen_ai.usage.output_tokens"] == 1
    assert whole.start_time <= first.start_time < first.end_time <= second.start_time <= whole.end_time


def test_no_text_leaves_in_a_span(collected):
    """Neither the question nor an answer stands in any attribute."""
    _, spans, _ = collected
    route(Reply(text="unmistakable", logprob=-3.0))
    written = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "secret" not in written
    assert "unmistakable" not in written


def test_a_failed_step_is_an_error_span(collected):
    """The edge's failure is seen where it happened, though the call succeeded."""
    _, spans, _ = collected
    route(Reply(fault=ConnectionError("refused")))
    by_name = {span.attributes.get("confroute.tier", "all"): span for span in spans.get_finished_spans()}
    assert by_name["edge"].status.status_code is StatusCode.ERROR
    assert by_name["edge"].attributes["error.type"] == "ConnectionError"
    assert by_name["cloud"].status.status_code is StatusCode.UNSET


def test_metrics_count_calls_tokens_and_seconds(collected):
    """Every model call is counted, the discarded draft included."""
    _, _, reader = collected
    route(Reply(text="hm", logprob=-3.0))
    route(Reply(text="yes", logprob=-0.01))
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    points = {metric.name: metric.data.data_points for metric in scope.metrics}
    assert sum(point.value for point in points["confroute.decisions"]) == 2
    assert sum(point.count for point in points["gen_ai.client.operation.duration"]) == 3
    assert {point.attributes["gen_ai.token.type"] for point in points["gen_ai.client.token.usage"]} == {
        "input",
        "output",
    }


def test_without_opentelemetry_the_error_says_what_to_install(monkeypatch):
    """The exact command stands in it."""
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'confroute\[otel\]'"):
        instrument()


def test_a_question_about_the_draft_is_a_model_call(collected):
    """P(True) asks the edge once more: its tokens and its time are in the spans and the metrics."""
    _, spans, reader = collected
    request = Request(messages=(Message(role="user", text="?"),))
    models = {"edge": ScriptedModel(["4"], name="small"), "cloud": ScriptedModel(["4"], name="large")}
    calls = ScriptedCalls(models=models)
    decision = run(Cascade.of(Verbalised(), 0.9), request, calls.call(request), {}).decision
    asked = [step for step in decision.steps if step.tier == "edge"]
    assert [step.kind for step in asked] == ["draft", "prompt"]
    assert [span.name for span in spans.get_finished_spans()].count("chat small") == 2
    points = {
        metric.name: metric.data.data_points
        for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    billed = sum(point.sum for point in points["gen_ai.client.token.usage"])
    assert billed == sum(used.total_tokens for used in decision.usage.values())
