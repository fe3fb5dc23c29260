"""What a notebook shows of policies, calibrations, fronts and benchmark results."""

import math
import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from confroute.bench.data import Benchmark
from confroute.bench.protocol import measure
from confroute.bench.run import Replay
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.fitting import CloudShare, fit
from confroute.policy import Cascade, Gate, Threshold
from confroute.policy.hedge import Hedged
from confroute.recording.evaluation import evaluate
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.views.fit import front_svg
from confroute.views.html import table
from confroute.views.scales import bar
from confroute.views.slider import StaticSlider


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
        "self_consistency: no promise",
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
    assert [word for word in read(report._repr_html_()).words if word in expected][:5] == expected
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


def test_the_name_of_the_chosen_point_stands_apart_from_those_of_its_neighbours(front):
    """At the knee, beside it, at both ends: no two names overlap, taking a letter for 7 by 12 pixels."""

    def box(found):
        x, y, anchor, name = float(found[1]), float(found[2]), found[3], found[4]
        wide = 7 * len(name)
        return (x - wide if anchor == "end" else x), y - 12, wide, 12

    at = front.points.index(front.knee)
    for chosen in (front.points[0], *front.points[at - 2 : at + 3], front.points[-1]):
        drawn = front_svg(front, chosen=chosen)
        found = re.finditer(
            r"<text x='([\d.]+)' y='([\d.]+)' text-anchor='(\w+)'>(edge|cloud|knee|chosen)<", drawn
        )
        boxes = [box(one) for one in found]
        assert len(boxes) == 4
        for (x, y, wide, high), (u, v, *_) in permutations(boxes, 2):
            assert not (x <= u < x + wide and y <= v < y + high)


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


def test_a_grey_zone_is_shown(read):
    """From and to."""
    gates = (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.8)),
        Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4)),
    )
    assert "0.1 and 0.8" in " ".join(read(Cascade(gates=gates)._repr_html_()).words)
