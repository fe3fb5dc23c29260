"""A snapshot to compare with, the reader of HTML, and one of each thing that shows itself."""

import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from confroute.bench.data import Benchmark
from confroute.bench.protocol import measure
from confroute.bench.run import Replay
from confroute.budget import Budget, Paced
from confroute.decision import Decision, Measurement, Step
from confroute.drift import Audited, DriftTest
from confroute.fitting.front import front_of
from confroute.fitting.rates import Rates
from confroute.fitting.table import table_of
from confroute.policy import Cascade, Gate, KeepPrivate, SendTo, Threshold
from confroute.prices import Price
from confroute.recording import Row, Side
from confroute.recording.evaluation import evaluate
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.types import Usage
from confroute.views.html import page
from confroute.views.slider import StaticSlider

SNAPSHOTS = Path(__file__).parent / "snapshots"
VOID = ("rect", "line", "circle", "polyline", "polygon", "meta", "br", "input")


class Reader(HTMLParser):
    """Checks that tags are closed, and keeps the words and what is loaded from elsewhere."""

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.loaded = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def read():
    """The reader."""
    return Reader


@pytest.fixture
def same_as_stored():
    """Compare HTML with tests/views/snapshots; `CONFROUTE_SNAPSHOTS=write` stores it anew, to be looked at in a browser."""

    def compare(name, html):
        path = SNAPSHOTS / f"{name}.html"
        whole = page(name, [html]).replace("><", ">\n<")
        if os.environ.get("CONFROUTE_SNAPSHOTS") == "write":
            path.write_text(whole, encoding="utf-8")
        assert whole == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def decision():
    """One with everything in it, and texts that must be escaped."""
    usage = Usage(input_tokens=37, output_tokens=11)
    return Decision(
        route="cloud",
        stage="evidence",
        reason="disagreement 0.6 > 0.4 <given>: cloud answers",
        uncertainty=0.6,
        signal="self_consistency",
        threshold=0.4,
        threshold_source="given",
        signals={
            "token_logprob": Measurement(signal="token_logprob", uncertainty=0.2),
            "self_consistency": Measurement(signal="self_consistency", uncertainty=0.6),
        },
        skipped={"semantic_entropy": "<no embeddings>"},
        steps=(
            Step(kind="draft", tier="edge", model="small", usage=usage, latency_s=0.25),
            Step(kind="sample", tier="edge", model="small", n=5, latency_s=1.0, error="Timeout: <late>"),
            Step(kind="final", tier="cloud", model="large", usage=usage, latency_s=0.5),
        ),
        degraded=True,
    )


@pytest.fixture(scope="session")
def rows():
    """Recorded calls: certain answers are mostly right, the cloud nearly always."""
    draw = np.random.default_rng(7)
    doubts = draw.integers(1, 1000, 400) / 1000
    used = {"input_tokens": 200, "output_tokens": 50}
    right = draw.random(400) > doubts**1.5
    parts = draw.dirichlet(np.ones(6), 400) * 6
    cloud = draw.random(400) < 0.95
    return [
        Row(
            id=str(at),
            edge=Side(
                text="7",
                logprobs=tuple((-doubt * share).tolist()),
                quality=float(fine),
                latency_s=0.25,
                usage={**used, "output_tokens": 6},
            ),
            cloud=Side(text="7", quality=float(sure), latency_s=1.5, usage=used),
        )
        for at, (doubt, share, fine, sure) in enumerate(zip(doubts, parts, right, cloud, strict=True))
    ]


@pytest.fixture(scope="session")
def front(rows):
    """Of the mean log-probability."""
    table = table_of(rows, rates=Rates(edge=Price(), cloud=Price(input_usd=2.5, output_usd=10)))
    return front_of(table, table.signal("token_logprob.mean"), resamples=200)


@pytest.fixture(scope="session")
def run_report(rows):
    """What `confroute signals` measures."""
    return evaluate(rows, resamples=50)


@pytest.fixture(scope="session")
def policy(rows):
    """Two gates, a certificate, rules."""
    threshold = Threshold.certify(
        [-sum(row.edge.logprobs) / 6 for row in rows],
        [row.edge.quality for row in rows],
        alpha=0.1,
        date="2026-11-25",
    )
    return Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=threshold),
            Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4)),
        ),
        rules=(KeepPrivate(patterns=(r"(?i)\bsalary\b", "<secret>")), SendTo(tier="cloud", tags=("legal",))),
        on_cloud_error="edge",
    )


@pytest.fixture(scope="session")
def replay():
    """Two methods on a small benchmark."""
    draw = np.random.default_rng(3)
    weak, strong = (draw.random(120) < share for share in (0.5, 0.9))
    bench = Benchmark(
        name="mmlu",
        prompts=tuple(map(str, range(120))),
        weak=weak.astype(float),
        strong=strong.astype(float),
        weak_usd=np.full(120, 1e-5),
        strong_usd=np.full(120, 1e-3),
        dropped=3,
    )
    scores = {"oracle": strong - 1.0 * weak, "prompt length": draw.integers(0, 99, 120) / 1.0}
    results = tuple(measure(name, s[None, :], bench, resamples=50) for name, s in scores.items())
    return Replay(bench=bench, train=None, results=results)


@pytest.fixture
def shown(policy, front, run_report, replay):
    """Everything that has a view, by name."""
    return {
        "policy": policy,
        "layers": Paced(
            policy=Audited(policy=policy, test=DriftTest(level=0.05), share=0.1),
            budgets=(Budget(limit=20.0, unit="calls"),),
        ),
        "calibration": run_report,
        "one-signal": run_report.signals["token_logprob.mean"],
        "front": front,
        "benchmark": replay,
        "slider-static": StaticSlider(front=front),
    }
