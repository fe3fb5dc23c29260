"""What a notebook shows of decisions."""

import math
import re
from dataclasses import replace

import pytest

from confroute.decision import Decision, Step
from confroute.observe.trace import Trace
from confroute.types import Usage
from confroute.views.decision import decision_html, trace_html, trace_text


def test_the_view_is_whole_html_that_loads_nothing(decision, read):
    """Every tag is closed, every text escaped, nothing comes from a network."""
    for shown in (decision._repr_html_(), Trace([decision, decision])._repr_html_()):
        found = read(shown)
        assert found.open == []
        assert found.loaded == []
        assert "<given>" in "".join(found.words)


def test_the_view_can_be_read_without_colour(decision, read):
    """Route, values, sides of the threshold and what was not measured stand there in words."""
    words = " ".join(read(decision._repr_html_()).words)
    for expected in (
        "cloud",
        "0.6 > 0.4",
        "degraded",
        "not measured: <no embeddings>",
        "sample x 5",
        "1.750",
    ):
        assert expected in words


def places(svg):
    """Of a scale: where its limits stand, by their words, and where the value does."""
    limits = re.findall(r"<path d='M([\d.]+) 23V49L[^>]*/>\n<text [^>]*>([^<]*)<", svg)
    return {words: float(x) for x, words in limits}, float(re.search(r"15H[\d.]+L([\d.]+) 25", svg)[1])


def test_the_value_stands_on_its_scale_right_of_the_threshold_that_it_exceeds(decision):
    """At the same distance from zero as the threshold, times their ratio."""
    limits, value = places(decision._repr_html_().split("<td>self_consistency")[1].split("</svg>")[0])
    assert (value - 8) / (limits["0.4"] - 8) == pytest.approx(0.6 / 0.4, rel=0.01)


def test_what_was_not_compared_with_a_threshold_has_a_number_and_no_bar(decision):
    """A length without a scale would mean nothing."""
    rows = decision._repr_html_().split("<tr>")
    [row] = [row for row in rows if "<td>token_logprob</td>" in row]
    assert "0.2" in row
    assert "<svg" not in row


def test_a_value_in_its_grey_zone_stands_between_its_limits(decision, read):
    """One picture of the three zones; an outer zone that an infinite limit leaves no room is not drawn."""
    shown = replace(decision, grey={"token_logprob": (0.1, 0.7)})._repr_html_()
    [row] = [row for row in shown.split("<tr>") if "<td>token_logprob</td>" in row]
    limits, value = places(row)
    assert (value - 8) / (limits["0.1"] - 8) == pytest.approx(2, rel=0.01)
    assert (limits["0.7"] - 8) / (limits["0.1"] - 8) == pytest.approx(7, rel=0.01)
    assert "a further signal is asked between 0.1 and 0.7" in row
    assert [zone in row for zone in (">keep<", ">ask further<", ">escalate<")] == [True] * 3
    assert "0.1 < 0.2 ≤ 0.7" in " ".join(read(shown).words)
    endless = replace(decision, grey={"token_logprob": (0.1, math.inf)})._repr_html_()
    [row] = [row for row in endless.split("<tr>") if "<td>token_logprob</td>" in row]
    assert ">ask further<" in row
    assert ">escalate<" not in row


def test_steps_stand_on_a_timeline_to_scale_and_those_of_a_group_begin_together():
    """A draft, two groups' samples at once, and the cloud: seconds along, tokens beside."""
    used = [Usage(input_tokens=n, output_tokens=n) for n in (10, 20, 40)]
    steps = (
        Step(kind="draft", tier="edge", usage=used[0], latency_s=1.0),
        Step(kind="sample", tier="edge", n=3, usage=used[1], latency_s=2.0, group=1),
        Step(kind="embed", latency_s=1.0, group=1),
        Step(kind="final", tier="cloud", usage=used[2], latency_s=1.0),
    )
    made = Decision(route="cloud", stage="evidence", reason="doubt", steps=steps)
    drawn = made._repr_html_()
    bars = [
        (float(x), float(w))
        for x, w in re.findall(r"<rect x='([\d.]+)' y='[\d.]+' width='([\d.]+)' height='18'", drawn)
    ]
    second = bars[0][1]
    assert [(x - bars[0][0]) / second for x, _ in bars] == pytest.approx([0, 1, 1, 3], abs=0.01)
    assert [wide / second for _, wide in bars] == pytest.approx([1, 2, 1, 1], abs=0.01)
    tokens = [float(w) for w in re.findall(r"<rect [^>]*width='([\d.]+)' height='12'", drawn)]
    assert [wide / tokens[0] for wide in tokens] == pytest.approx([1, 1, 2, 2, 4, 4], abs=0.02)


def test_a_grey_value_that_decided_after_all_is_shown_against_its_threshold(decision):
    """Where nothing further could be measured."""
    shown = replace(decision, grey={"self_consistency": (0.1, 0.7)})._repr_html_()
    assert "0.6 &gt; 0.4" in shown


def test_repr_is_one_line(decision):
    """What a plain prompt shows."""
    assert repr(decision) == (
        "<Decision cloud (evidence, degraded): disagreement 0.6 > 0.4 <given>: cloud answers; 1.75 s; "
        "edge 37+11 tokens, cloud 37+11 tokens>"
    )
    assert repr(Trace([decision])) == "<1 decision: cloud 1; 1.75 s>"
    assert repr(Trace()) == "<0 decisions; 0.00 s>"


def test_a_long_trace_shows_its_end(decision, read):
    """The last 200, numbered, and how many are left out."""
    words = " ".join(read(Trace([decision] * 203)._repr_html_()).words)
    assert "the first 3 are not shown" in words
    assert " 203 " in f" {words} "
    assert " 3 " not in f" {words.split('why')[1].split('the first')[0]} "


def test_a_decision_and_a_trace_look_as_stored(decision, same_as_stored):
    """Every tag and number."""
    same_as_stored("decision", decision._repr_html_())
    same_as_stored("trace", Trace([decision, decision])._repr_html_())


def test_a_call_that_failed_was_answered_by_nobody():
    """Neither its own view nor a trace counts it for the tier that was asked last."""
    failed = Decision(route="cloud", stage="failed", reason="the call failed (TimeoutError)")
    kept = Decision(route="edge", stage="draft", reason="kept")
    assert "answered" not in decision_html(failed)
    assert "cloud was asked last" in decision_html(failed)
    assert trace_text([failed, kept, failed]) == "<3 decisions: edge 1, failed 2; 0.00 s>"
    assert "<b>cloud</b>" not in trace_html([failed, kept])
