"""What a notebook shows of policies, calibrations, fronts and benchmark results."""

import math

import numpy as np
import pytest

from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.protocol import measure
from confroute.bench.replay.run import Replay
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.fitting import CloudShare, fit
from confroute.policy import Cascade, Gate, Threshold
from confroute.policy.hedge import Hedged
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.views.slider import StaticSlider
from confroute.views.svg import bar


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


def test_a_fit_shows_what_its_page_shows(rows, read):
    """The front with the chosen point, and the policy's row."""
    words = " ".join(read(fit(rows, CloudShare(share=0.3), signal="token_logprob.mean")._repr_html_()).words)
    assert "this policy" in words
    assert "chosen" in words


def test_a_front_without_grades_of_the_cloud_says_so(rows, read):
    """Nothing is drawn of what is not known."""
    from dataclasses import replace

    from confroute.fitting import front_of, table_of

    ungraded = [replace(row, cloud=None) for row in rows]
    table = table_of(ungraded)
    html = front_of(table, table.signal("token_logprob.mean"), resamples=0)._repr_html_()
    assert "not graded" in " ".join(read(html).words)
    assert "<svg" not in html


def test_an_infinite_uncertainty_fills_the_bar():
    """The limit keeps its place."""
    drawn = bar(math.inf, 0.5, words="uncertainty inf")
    assert "nan" not in drawn
    assert "width='220.0' height='10'" in drawn


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
