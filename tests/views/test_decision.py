"""What a notebook shows of decisions."""

from html.parser import HTMLParser

import pytest

from confroute.decision import Decision, Measurement, Step
from confroute.trace import Trace
from confroute.types import Usage


class Reader(HTMLParser):
    """Checks that tags are closed, and keeps the words and what is loaded from elsewhere."""

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.loaded = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("rect", "line", "circle", "polyline", "meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


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


def test_the_view_is_whole_html_that_loads_nothing(decision):
    """Every tag is closed, every text escaped, nothing comes from a network."""
    for shown in (decision._repr_html_(), Trace([decision, decision])._repr_html_()):
        read = Reader(shown)
        assert read.open == []
        assert read.loaded == []
        assert "<given>" in "".join(read.words)


def test_the_view_can_be_read_without_colour(decision):
    """Route, values, sides of the threshold and what was not measured stand there in words."""
    words = " ".join(Reader(decision._repr_html_()).words)
    for expected in (
        "cloud",
        "0.6 > 0.4",
        "degraded",
        "not measured: <no embeddings>",
        "sample x 5",
        "1.750",
    ):
        assert expected in words


def test_the_mark_of_the_threshold_stands_left_of_a_longer_bar(decision):
    """The dashed line is where the threshold is, on the bar's own scale."""
    import re

    bar = decision._repr_html_().split("self_consistency")[1]
    line = float(re.search(r"x1='([\d.]+)'", bar)[1])
    length = float(re.search(r"width='([\d.]+)' height='10'", bar)[1])
    assert line / length == pytest.approx(0.4 / 0.6, rel=0.01)


def test_repr_is_one_line(decision):
    """What a plain prompt shows."""
    assert repr(decision) == (
        "<Decision cloud (evidence, degraded): disagreement 0.6 > 0.4 <given>: cloud answers; 1.75 s; "
        "edge 37+11 tokens, cloud 37+11 tokens>"
    )
    assert repr(Trace([decision])) == "<1 decision: cloud 1; 1.75 s>"
    assert repr(Trace()) == "<0 decisions; 0.00 s>"


def test_a_long_trace_shows_its_end(decision):
    """The last 200, numbered, and how many are left out."""
    words = " ".join(Reader(Trace([decision] * 203)._repr_html_()).words)
    assert "the first 3 are not shown" in words
    assert " 203 " in f" {words} "
    assert " 3 " not in f" {words.split('why')[1].split('the first')[0]} "
