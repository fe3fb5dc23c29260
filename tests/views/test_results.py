"""What a notebook shows of policies, calibrations, fronts and benchmark results."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from confroute.fitting import CloudShare, fit
from confroute.policy import Cascade, Gate, Threshold
from confroute.policy.hedge import Hedged
from confroute.recording.evaluation import evaluate
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.views.html import table
from confroute.views.scales import bar


def test_every_view_is_whole_html_that_loads_nothing_and_looks_as_stored(shown, read, same_as_stored):
    """Tags closed, no network; each tag and number as when it was looked at in a browser."""
    for name, thing in shown.items():
        html = thing._repr_html_()
        found = read(html)
        assert found.open == [], name
        assert found.loaded == [], name
        same_as_stored(name, html)


def test_a_policy_tells_its_thresholds_and_promise_in_words(policy, read):
    """Signal, threshold, certificate, what has none, rules with their patterns escaped, and failures."""
    words = " ".join(read(policy._repr_html_()).words)
    promise = policy.gates[0].threshold.certificate
    for expected in (
        "token_logprob",
        promise.words,
        f"{promise.observed:.4g}",
        "no promise",
    ):
        assert expected in words
    assert "<secret>" in words
    assert "on_cloud_error" not in words
    assert repr(policy).startswith("<Cascade edge > cloud: token_logprob <= ")
    assert repr(policy).endswith("then self_consistency <= 0.4 share (given); 2 rules>")


def test_layers_are_shown_from_the_outside_in(policy, read):
    """The budget around the audit around the cascade."""
    words = " ".join(read(Hedged(policy=policy)._repr_html_()).words)
    assert words.index("Hedged") < words.index("Cascade") < words.index("token_logprob")


def test_the_line_of_a_front_and_of_a_run_hold_their_main_numbers(front, run_report, replay):
    """What a plain prompt shows is one line."""
    assert repr(front).startswith("<ParetoFront of 400 calls, ")
    assert f"{front.knee.quality:.3f} at {front.knee.cloud_share:.0%} cloud" in repr(front)
    assert f"AUROC {run_report.signals['token_logprob.mean'].auroc:.3f}" in repr(run_report)
    assert repr(replay).startswith("<Replay of mmlu, 120 prompts, APGR: oracle")
    assert all("\n" not in repr(thing) for thing in (front, run_report, replay))


def test_signals_of_equal_worth_stand_in_one_order_everywhere(rows, read, tmp_path, capsys):
    """As measured, in the line, the view and the table; what has no AUROC comes last."""
    from confroute.cli import main
    from confroute.recording import write_rows

    def signals(row):
        doubt = -sum(row.edge.logprobs) / 6
        return {"own.b": doubt, "own.z": doubt, "own.a": doubt, "own.one": 0.5 if row.id == "0" else None}

    wrong = -np.array([row.edge.quality for row in rows])
    with_own = [
        replace(row, edge=replace(row.edge, logprobs=None), signals={**signals(row), "own.best": float(bad)})
        for row, bad in zip(rows, wrong, strict=True)
    ]
    expected = ["own.best", "own.b", "own.z", "own.a", "own.one"]
    report = evaluate(with_own, resamples=10)
    assert list(report.signals) == list(report.to_dict()["signals"]) == expected
    assert "best of 5 signals: own.best, AUROC 1.000" in repr(report)
    words = read(report._repr_html_()).words
    in_numbers = words[words.index("All signals in numbers") :]
    assert [word for word in in_numbers if word in expected][:5] == expected
    tied = [
        replace(row, signals={k: v for k, v in row.signals.items() if k != "own.best"}) for row in with_own
    ]
    assert "signals: own.b, AUROC" in repr(evaluate(tied, resamples=10))
    path = tmp_path / "run.jsonl"
    write_rows(path, with_own)
    assert main(["signals", str(path)]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^\W*(own\.\w+)", printed, re.MULTILINE) == expected


def test_a_fit_shows_what_its_page_shows(rows, read):
    """The front with the chosen point, and the policy's row."""
    words = " ".join(read(fit(rows, CloudShare(share=0.3), signal="token_logprob.mean")._repr_html_()).words)
    assert "this policy" in words
    assert "chosen" in words
    assert re.search(r"always cloud .* 200 ", words)


def test_a_front_without_grades_of_the_cloud_says_so(rows, read):
    """Nothing is drawn of what is not known."""
    from confroute.fitting import front_of, table_of

    ungraded = [replace(row, cloud=None) for row in rows]
    table = table_of(ungraded)
    html = front_of(table, table.signal("token_logprob.mean"), resamples=0)._repr_html_()
    assert "not graded" in " ".join(read(html).words)
    assert "<svg" not in html


@pytest.mark.parametrize(
    ("value", "limit", "length"),
    [
        (0.1, 0.4, 20),
        (0.4, 0.4, 80),
        (6.0, 4.0, 120),
        (9.0, 0.25, 160),
        (math.inf, 0.5, 160),
        (0.0, 0.0, 0),
        (0.1, 0.0, 160),
        (-0.1, 0.0, 0),
        (-0.1, 0.2, 0),
        (-0.1, -0.2, 160),
        (0.3, 1e9, 0),
    ],
)
def test_a_bar_reaches_past_the_mark_in_its_middle_when_it_is_over_the_threshold(value, limit, length):
    """The mark stands at the same place for every unit; what is beyond the scale fills it."""
    drawn = bar(value, limit, words=f"uncertainty {value}")
    assert f"width='{length:.1f}' height='10'" in drawn
    assert "x1='80' x2='80'" in drawn
    assert f"<title>uncertainty {value}</title>" in drawn


def test_heads_stand_over_their_numbers_and_long_words_are_folded():
    """Numbers to the right with their head; what is short keeps its line."""
    shown = table(("signal", "AUROC"), [("token_logprob.mean", 0.5), ("many words that " * 3, None)])
    assert "<th scope='col' class='n'>AUROC</th>" in shown
    assert "<th scope='col'>signal</th>" in shown
    assert "<td>token_logprob.mean</td>" in shown
    assert "<td class='t'>many words" in shown


def test_a_group_of_calls_has_its_own_promise(policy, read):
    """Thresholds by tag are shown with the tag."""
    from confroute.policy import GroupThreshold

    own = GroupThreshold(tag="tenant-7", threshold=policy.gates[0].threshold)
    gate = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.2), by_tag=(own,))
    words = " ".join(read(Cascade(gates=(gate,))._repr_html_()).words)
    assert "calls tagged tenant-7" in words


def test_a_tier_has_its_own_scale_and_promise(policy, read):
    """Thresholds by tier are shown with the tier, and theirs by tag with both."""
    from confroute.policy import GroupThreshold, TierThreshold

    promised = policy.gates[0].threshold
    by_tag = (GroupThreshold(tag="maths", threshold=Threshold(value=0.7)),)
    own = TierThreshold(tier="mid", threshold=promised, by_tag=by_tag)
    gate = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.2), by_tier=(own,))
    words = " ".join(read(Cascade(gates=(gate,), tiers=("edge", "mid", "cloud"))._repr_html_()).words)
    assert f"drafts of mid are kept up to {promised.value:.4g}" in words
    assert "calls tagged maths are kept up to 0.7" in words
    assert "token_logprob, drafts of mid" in words


def test_a_grey_zone_is_one_picture_of_three_zones_with_the_threshold_in_it(read):
    """Keep, ask further, escalate, their limits, and in brackets what decides where nothing further can be measured."""
    gates = (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.8)),
        Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4)),
    )
    first, second = Cascade(gates=gates)._repr_html_().split("<svg")[1:]
    assert re.findall(r">([^<>]+)</text>", first) == ["ask further", "escalate", "0.1", "0.8", "(0.3)"]
    assert re.findall(r">([^<>]+)</text>", second) == ["keep", "escalate", "0.4"]
    edges = [(float(x), float(w)) for x, w in re.findall(r"<rect x='([\d.]+)' y='6' width='([\d.]+)'", first)]
    [(keep, kept), (ask, asked), (_, _)] = edges
    assert keep + kept == pytest.approx(ask, abs=0.1)
    assert asked / kept == pytest.approx(7, rel=0.02)
    words = " ".join(read(first).words)
    assert (
        "a further signal asked between 0.1 and 0.8, and escalated above; where none can be measured, kept up to 0.3"
        in words
    )
