"""What a notebook shows of decisions."""

import math
import re
from dataclasses import replace

import pytest

from confroute.decision import Decision
from confroute.observe.trace import Trace
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


def test_the_mark_of_the_threshold_stands_left_of_a_longer_bar(decision):
    """The dashed line is where the threshold is."""
    bar = decision._repr_html_().split("self_consistency")[1]
    line = float(re.search(r"x1='([\d.]+)'", bar)[1])
    length = float(re.search(r"width='([\d.]+)' height='10'", bar)[1])
    assert line / length == pytest.approx(0.4 / 0.6, rel=0.01)


def test_what_was_not_compared_with_a_threshold_has_a_number_and_no_bar(decision):
    """A length without a scale would mean nothing."""
    rows = decision._repr_html_().split("<tr>")
    [row] = [row for row in rows if "<td>token_logprob</td>" in row]
    assert "0.2" in row
    assert "<svg" not in row


def test_a_value_in_its_grey_zone_has_a_bar_with_both_limits(decision, read):
    """Marks at both ends of the zone, whose middle is the bar's; a zone without a scale has words alone."""
    shown = replace(decision, grey={"token_logprob": (0.1, 0.7)})._repr_html_()
    [row] = [row for row in shown.split("<tr>") if "<td>token_logprob</td>" in row]
    assert re.findall(r"<line x1='([\d.]+)'", row) == ["20", "140"]
    assert "width='40.0' height='10'" in row
    assert "a further signal is asked between 0.1 and 0.7" in row
    words = " ".join(read(shown).words)
    assert "0.1 < 0.2 ≤ 0.7" in words
    assert "two marks: between them a further signal is asked" in words
    for ends in ((0.1, math.inf), (-0.3, 0.3), (0.0, 0.0)):
        bare = replace(decision, grey={"token_logprob": ends})._repr_html_()
        [row] = [row for row in bare.split("<tr>") if "<td>token_logprob</td>" in row]
        assert "<svg" not in row
        assert f"{ends[0]:.4g} &lt; 0.2 &le; {ends[1]:.4g}" in row


def test_a_grey_value_that_decided_after_all_is_shown_against_its_threshold(decision):
    """Where nothing further could be measured."""
    shown = replace(decision, grey={"self_consistency": (0.1, 0.7)})._repr_html_()
    assert "0.6 &gt; 0.4" in shown
    assert "two marks" not in shown


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
    assert "<b>cloud</b> was asked last" in decision_html(failed)
    assert trace_text([failed, kept, failed]) == "<3 decisions: edge 1, failed 2; 0.00 s>"
    assert "<b>cloud</b>" not in trace_html([failed, kept])
