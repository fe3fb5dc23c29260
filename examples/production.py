"""A production set-up: a budget in Redis, a circuit breaker, audits, a decision log and OpenTelemetry.

The edge is a local model. The cloud is a server on loopback that breaks down for a while, to show what happens then. Where
`redis-server` is not installed the state is kept in SQLite, which serves one machine.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langchain_openai import ChatOpenAI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from confroute import Breaker, Cascade, KeepPrivate, Limits, RetryBudget, TokenLogprob, background, deadline
from confroute.budget import Budget, Paced
from confroute.cli import main as confroute
from confroute.drift import Audited, DriftTest
from confroute.observe.log import DecisionLog
from confroute.observe.otel import instrument
from confroute.prices import Price
from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults
from langchain_confroute import ChatConfRoute, ChatLocal


@contextmanager
def store() -> Iterator[str]:
    """A Redis of our own, or SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("redis-server") is None:
            print("redis-server is not installed: SQLite keeps the state")
            yield f"sqlite:{folder}/state.db"
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            print("redis-server keeps the state")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def router(cloud_url: str, where: str) -> ChatConfRoute:
    """Budget around audits around the cascade; a breaker for the cloud."""
    cascade = Cascade.of(
        TokenLogprob(),
        0.0,  # nothing is certain enough: every call goes to the cloud
        rules=(KeepPrivate(patterns=(r"(?i)\bsalary\b",)),),
        on_cloud_error="edge",
    )
    audited = Audited(policy=cascade, test=DriftTest(level=0.05), share=0.05, store=where)
    policy = Paced(
        policy=audited,
        budgets=(Budget(limit=4, unit="calls"),),
        price=Price(input_usd=0.15, output_usd=0.60),
        store=where,
    )
    edge = ChatLocal(model="qwen2.5-coder-0.5b", max_tokens=4)
    edge.loaded()  # before the first call: its time limit runs while weights load
    return ChatConfRoute(
        edge=edge,
        cloud=ChatOpenAI(model="large", base_url=cloud_url, api_key="none", max_retries=0, max_tokens=16),
        policy=policy,
        cloud_limits=Limits(
            timeout_s=20, attempts=1, breaker=Breaker(failures=2, open_s=60), retries=RetryBudget()
        ),
    )


if __name__ == "__main__":
    spans = InMemorySpanExporter()
    tracers, meters = TracerProvider(), MeterProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    stop = instrument(tracer_provider=tracers, meter_provider=meters)
    down = Reply(fault=faults.status(503))
    large = ScriptedModel(["Two.", down, down, "Two."], name="large")
    log = Path("decisions.jsonl")
    with store() as where, ScriptedServer({"large": large}) as server, DecisionLog(log):
        routed = router(server.url, where)
        for text in ("What is 1 + 1?", "My salary?", *["What is 1 + 1?"] * 4):
            with deadline(120):
                decision = routed.invoke(text).response_metadata["confroute"]
            print(
                f"{decision['route']} ({decision['stage']}{', degraded' if decision['degraded'] else ''}): {decision['reason']}"
            )
        background.wait()
    stop()
    print(f"{len(large.calls)} calls reached the cloud; {len(spans.get_finished_spans())} spans")
    confroute(["report", str(log), "--price", "cloud=0.15,0.60", "--price", "edge=0,0"])
