"""Metrics: one entry each, read by objectives, limits, fronts, replays, the command line and every table."""

import json

import numpy as np
import pytest

from confroute.cli import main
from confroute.errors import CalibrationError, PolicyError
from confroute.fitting import Objective, expected, front_of, metric, metrics, replay, table_of
from confroute.fitting.point import Calls, metric_named, values_of
from confroute.policy import Cascade
from confroute.recording import write_rows
from confroute.signals import TokenLogprob
from confroute.views.fit import cells, labels
from confroute.views.front import front_html


@pytest.fixture
def slow_share(monkeypatch):
    """A metric of one's own: the share of calls that take a second or longer."""
    monkeypatch.setattr("confroute.fitting.point._metrics", dict(metrics()))

    @metric(label="slow", words="share of slow calls", short="slow", missing="record latency", interval=True)
    def slow_share(calls):
        return np.where(np.isnan(calls.latency_s), np.nan, calls.latency_s >= 1)

    return slow_share


def test_values_by_hand():
    """Means, a thousand times the cost, and the 95th percentile; None where one call is not known."""
    two = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    seconds = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, np.nan]])
    found, lacking = values_of(
        Calls(
            cloud=two,
            quality=1 - two,
            usd=two / 1000,
            latency_s=seconds,
            sent_tokens=8 * two,
            energy_j=seconds,
        )
    )
    assert found == {
        "cloud_share": 0.5,
        "quality": 0.5,
        "usd_per_1k": 0.5,
        "latency_s": 2.5,
        "p95_latency_s": pytest.approx(3.85),
        "sent_tokens": 4.0,
        "energy_j": 2.5,
    }
    assert (lacking["latency_s"], lacking["p95_latency_s"], lacking["energy_j"]) == (None, None, None)
    assert lacking["usd_per_1k"] == 1.0


@pytest.mark.usefixtures("slow_share")
def test_a_metric_of_ones_own_is_one_entry(plain, tmp_path, capsys):
    """Weighed, bounded, put in an order, in fronts and replays with its interval, in tables, and on the command line."""
    table = table_of(plain)
    front = front_of(table, table.signal("token_logprob.mean"))
    shares = [point.more["slow_share"] for point in front.points]
    assert shares == pytest.approx([point.cloud_share for point in front.points])
    assert front.edge.value("slow_share") == 0
    assert all(
        low <= p.value("slow_share") <= high
        for p in front.points
        for low, high in [p.intervals["slow_share"]]
    )
    bounded = Objective.weighted().within(slow_share=0.3).choose(front.points)
    assert 0.25 < bounded.cloud_share <= 0.3
    assert Objective.weighted(quality=0.0, slow_share=1.0).choose(front.points) == front.points[-1]
    assert Objective.lexicographic(("slow_share", 0.0)).choose(front.points) == front.points[-1]
    found = expected(replay(Cascade.of(TokenLogprob(), 0.5), plain))
    assert found.value("slow_share") == pytest.approx(found.cloud_share)
    assert "slow" in labels()
    assert len(cells(found)) == len(labels())
    assert "share" in metric_named("slow").words
    assert ">slow<" in front_html(front)
    write_rows(tmp_path / "run.jsonl", plain)
    command = ["fit", str(tmp_path / "run.jsonl"), "--out", str(tmp_path / "p.json"), "--json"]
    assert main([*command, "--signal", "token_logprob.mean", "--weights", "quality=1,slow=9"]) == 0
    assert json.loads(capsys.readouterr().out)["expected"]["cloud_share"] < 0.05
    assert ">slow<" in (tmp_path / "p.html").read_text()


def test_a_metric_that_is_not_known_says_what_to_do(plain):
    """By its own hint, and unknown names by those that there are."""
    table = table_of(plain)
    (point,) = [front_of(table, table.signal("token_logprob.mean")).edge]
    with pytest.raises(
        CalibrationError, match="energy_j is not known for every recorded call: give the tiers' power"
    ):
        Objective.weighted(energy_j=1).worth(point)
    with pytest.raises(
        PolicyError, match=r"'water' is not a metric: expected one of .*cost \(USD for 1000 calls\)"
    ):
        Objective.weighted().within(water=1.0)
    with pytest.raises(PolicyError, match="is not a metric"):
        metric_named("")
