"""`confroute report`: a log becomes a page."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from confroute.cli import main
from confroute.decision import Decision, Measurement, Step
from confroute.observe.log import Entry
from confroute.prices import Price
from confroute.types import Usage
from confroute.views.report import highlights, largest_gap, log_page, over_time_svg


def entry(number, uncertainty, **more):
    """One call of minute `number`, kept up to 0.25."""
    route = "edge" if uncertainty <= 0.25 else "cloud"
    usage = Usage(input_tokens=100, output_tokens=10)
    steps = [Step(kind="draft", tier="edge", usage=usage, latency_s=0.1)]
    if route == "cloud":
        steps.append(Step(kind="final", tier="cloud", usage=usage, latency_s=1.0))
    fields = {
        "route": route,
        "stage": "draft",
        "reason": f"number {number}",
        "uncertainty": uncertainty,
        "signal": "token_logprob",
        "threshold": 0.25,
        "signals": {"token_logprob": Measurement(signal="token_logprob", uncertainty=uncertainty)},
        "steps": tuple(steps),
        **more,
    }
    return Entry(at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number), decision=Decision(**fields))


def test_money_and_shares_are_counted_from_all_steps():
    """Four calls, one escalated: by hand."""
    page = log_page(
        [entry(n, u) for n, u in enumerate((0.1, 0.1, 0.1, 0.9))],
        prices={"edge": Price(), "cloud": Price(input_usd=100, output_usd=1000)},
    )
    assert "edge 75.0% (3), cloud 25.0% (1)" in page
    assert "0.0200 USD" in page  # one cloud call: 100 tokens at 100 and 10 at 1,000 USD a million
    assert "0.0800 USD; routing saves 0.0600 USD" in page


def test_tiers_are_told_apart_without_colour():
    """Each has a dash and a name beside its line, and so has the threshold."""
    entries = [entry(0, 0.1), entry(1, 0.9), entry(2, 0.9, route="middle"), entry(3, 0.9)]
    drawn = over_time_svg(entries)
    dashes = {
        name: re.search(rf"stroke-dasharray='([^']*)'/>\n<text [^>]*>{name}<", drawn)[1]
        for name in ("cloud", "middle", "threshold 0.25")
    }
    assert len({*dashes.values()}) == 3


def test_small_sums_keep_three_digits():
    """A few small calls cost less than four decimals show."""
    page = log_page(
        [entry(0, 0.1), entry(1, 0.9)],
        prices={"edge": Price(), "cloud": Price(input_usd=0.1, output_usd=0.4)},
    )
    assert "0.0000140 USD" in page  # 100 tokens at 0.1 and 10 at 0.4 USD a million
    assert "0.0000280 USD; routing saves 0.0000140 USD" in page
    assert "0.0000 USD" in log_page(
        [entry(0, 0.1)], prices={"edge": Price(), "cloud": Price(input_usd=0.1, output_usd=0.4)}
    )


def test_a_change_of_the_signal_is_named():
    """The second half of the log has other uncertainties than the first."""
    steady = log_page([entry(n, (n % 10) / 20) for n in range(100)])
    changed = log_page([entry(n, (n % 10) / 20 + 0.2 * (n >= 50)) for n in range(100)])
    assert "no sign of change" in steady
    assert ">changed<" in changed


def test_the_largest_gap_is_kolmogorov_and_smirnovs():
    """By hand: after 2, half of the first sample and none of the second lies below."""
    import numpy as np

    assert largest_gap(np.array([1.0, 2.0, 5.0, 6.0]), np.array([3.0, 4.0, 7.0, 8.0])) == 0.5


def test_failures_come_first_among_what_is_worth_a_look():
    """Then the call nearest to its threshold."""
    entries = [entry(n, 0.01 * n) for n in range(30)]
    entries.append(entry(30, 0.1, degraded=True))
    broken = Decision(route="cloud", stage="failed", reason="the call failed (TierTimeoutError)")
    entries.append(Entry(at=entries[0].at, decision=broken))
    found = highlights(entries)
    assert len(found) == 20
    assert [note.why for note in found[:2]] == ["degraded answer", "failed"]
    near = [note.entry.decision.uncertainty for note in found if note.why == "close to the threshold"]
    assert near[0] == pytest.approx(0.25)
    assert len({id(note.entry) for note in found}) == 20


def test_the_command_writes_beside_the_log(tmp_path, capsys):
    """And says where."""
    log = tmp_path / "log.jsonl"
    lines = [
        {"at": made.at.isoformat(), **made.decision.to_dict()} for made in (entry(0, 0.1), entry(1, 0.9))
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(log), "--price", "cloud=0.15,0.60"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "log.jsonl.html")
    assert (tmp_path / "log.jsonl.html").read_text().startswith("<!doctype html>")
    assert main(["report", str(log), "--price", "clod=0.15,0.60"]) == 1
    assert "--price for clod" in capsys.readouterr().err


def test_an_empty_log_is_a_page_that_says_so():
    """Nothing is drawn of nothing."""
    assert "The log is empty" in log_page([])


def test_what_cannot_be_read_or_meant_is_refused(tmp_path, capsys):
    """A missing log is 1, a price that is none is 2."""
    assert main(["report", str(tmp_path / "none.jsonl")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["report", "log", "--price", "cloud"]) == 2


def outage():
    """Sixteen calls, one a minute: six kept, then ten whose final answer failed after the draft was rejected."""
    usage = Usage(input_tokens=100, output_tokens=10)
    draft = Step(kind="draft", tier="edge", usage=usage, latency_s=0.1)
    final = Step(kind="final", tier="cloud", latency_s=20.0, error="TierTimeoutError")
    failed = {"route": "cloud", "stage": "failed", "steps": (draft, final)}
    return [entry(n, 0.1) if n < 6 else entry(n, 0.9, **failed) for n in range(16)]


PRICES = {"edge": Price(input_usd=1, output_usd=1), "cloud": Price(input_usd=100, output_usd=1000)}


def cells(page):
    """The table of totals, by its first column."""
    return dict(re.findall(r"<tr><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td></tr>", page))


def test_calls_that_failed_are_no_answers_of_the_tier_asked_last():
    """They have a share of their own, and seconds of their own."""
    told = cells(log_page(outage()))
    assert (told["answered by"], told["failed"]) == ("edge 37.5% (6)", "62.5% (10)")
    assert told["seconds per answered call"] == "median 0.10, 95th percentile 0.10"
    assert told["seconds until a call failed"] == "median 20.10, 95th percentile 20.10"


def test_an_outage_saves_nothing():
    """Only what was answered as the policy wanted is compared: six drafts, 110 tokens each, at 1 and at 100 or 1,000 USD a million."""
    page = log_page(outage(), prices=PRICES)
    assert "in the 6 of 16 calls that were answered and did not degrade" in page
    assert "0.1200 USD; routing saves 0.1193 USD" in page
    assert cells(page)["of it for calls that failed"] == "0.00110 USD"
    degraded = [entry(0, 0.1), entry(1, 0.9, route="edge", stage="fallback", degraded=True)]
    assert "in the 1 of 2 calls that were answered and did not degrade" in log_page(degraded, prices=PRICES)


def test_where_nothing_was_answered_nothing_is_said_to_be_saved():
    """A whole log of failures has no answers to compare."""
    page = log_page(outage()[6:], prices=PRICES)
    assert cells(page)["answered by"] == "none"
    assert "routing saves" not in page


def test_routing_that_costs_more_is_said_to_cost():
    """Each draft is rejected and paid for on top."""
    page = log_page(
        [entry(0, 0.9)],
        prices={"edge": Price(input_usd=50, output_usd=50), "cloud": Price(input_usd=100, output_usd=1000)},
    )
    assert "routing costs 0.00550 USD more" in page


def test_failures_have_a_line_of_their_own():
    """And are no part of the cloud's, which answered none of these."""
    _, named = over_time_svg(outage()).split("share of calls", 1)
    assert re.search(r">failed</text>", named)
    assert not re.search(r">cloud</text>", named)


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (300, ["09:51", "09:52", "09:53", "09:54", "09:55"]),
        (3 * 3600, ["10:00", "10:30", "11:00", "11:30", "12:00", "12:30"]),
        (
            40,
            ["09:50:10", "09:50:15", "09:50:20", "09:50:25", "09:50:30", "09:50:35", "09:50:40", "09:50:45"],
        ),
        (86400, ["12:00", "15:00", "18:00", "21:00", "01-02", "03:00", "06:00", "09:00"]),
        (30 * 86400, ["01-03", "01-07", "01-11", "01-15", "01-19", "01-23", "01-27", "01-31"]),
    ],
)
def test_the_axis_tells_round_times(seconds, ticks):
    """As finely as the log is long; the points stand where their calls were made, however many there were before."""
    start = datetime(2026, 1, 1, 9, 50, 7, tzinfo=UTC)
    shares = [0, 0.01, 0.02, 1]
    entries = [
        Entry(at=start + timedelta(seconds=share * seconds), decision=entry(0, 0.9).decision)
        for share in shares
    ]
    drawn = over_time_svg(entries)
    first = drawn.split("UTC, from 2026-01-01 09:50")[0]
    assert re.findall(r"text-anchor='middle'[^>]*>([-0-9:]+)</text>", first) == ticks
    across = [float(x) for x in re.findall(r"([\d.]+),[\d.]+", re.search(r"points='([^']*)'", drawn)[1])]
    assert [(x - across[0]) / (across[-1] - across[0]) for x in across] == pytest.approx(shares, abs=1e-3)


def test_calls_can_be_filtered_and_sorted_and_stand_there_without_scripts():
    """A box for each outcome and mark, each row with its kinds, and its words escaped."""
    entries = [
        entry(0, 0.1, reason="</td><script>x</script>"),
        entry(1, 0.9),
        *outage()[-1:],
        entry(3, 0.1, private=True),
    ]
    listed = log_page(entries).split("<h2>Calls</h2>")[1]
    assert re.findall(r"type='checkbox' value='([^']*)'", listed) == ["edge", "cloud", "failed", "private"]
    assert re.findall(r"<tr data-kinds='([^']*)'>", listed) == ["edge", "cloud", "failed", "edge private"]
    assert "&lt;script&gt;x" in listed
    assert listed.count("<script>") == 1
    assert "<div class='sift' hidden>" in listed


def test_the_main_numbers_have_their_intervals():
    """One of four to the cloud: Wilson's interval by hand is 4.6 to 69.9 percent."""
    page = log_page(
        [entry(n, u) for n, u in enumerate((0.1, 0.1, 0.1, 0.9))],
        prices={"edge": Price(), "cloud": Price(input_usd=100, output_usd=1000)},
    )
    tiles = re.findall(
        r"<div class='tile'><span>([^<]*)</span><b>(?:<svg.*?</svg>)?([^<]*)</b>(.*?)</div>",
        page.split("<h2>")[0],
    )
    assert [(name, value) for name, value, _ in tiles] == [
        ("edge", "75.0%"),
        ("cloud", "25.0%"),
        ("seconds", "0.10"),
        ("USD saved", "0.0600"),
    ]
    assert "1 of 4 calls" in tiles[1][2]
    assert "95% interval 4.6% to 69.9%" in tiles[1][2]
    assert "cloud alone 0.0800 USD" in tiles[3][2]


def test_a_log_of_one_moment_and_one_out_of_order_are_drawn():
    """A clock that was set back, and calls of the same millisecond."""
    first, second = entry(0, 0.9), entry(7, 0.9)
    assert over_time_svg([second, first]) == over_time_svg([first, second])
    assert "UTC, from 2026-01-01 00:00" in over_time_svg([first, first])


def test_calls_that_their_callers_ended_are_counted_apart():
    """Neither among the answers nor among the failures; with what they cost, and a line of their own."""
    ended = [
        entry(n, 0.9, stage=stage)
        for n, stage in enumerate(["cancelled", "abandoned", "abandoned", "failed"])
    ]
    page = log_page([*ended, *[entry(n, 0.1) for n in range(4, 8)]], prices=PRICES)
    assert "edge 100.0%" not in page
    for words in (
        "12.5% (1)",
        "25.0% (2)",
        "of it for calls that were abandoned",
        "seconds until a call was cancelled",
    ):
        assert words in page, words
    assert "in the 4 of 8 calls that were answered and did not degrade" in page
    assert all(f">{stage}<" in over_time_svg(ended) for stage in ("cancelled", "abandoned", "failed"))


def test_cached_tokens_are_told_and_cost_their_own_price():
    """And not that of other input."""
    usage = Usage(input_tokens=1_000_000, output_tokens=0, cached_tokens=900_000)
    step = Step(kind="final", tier="cloud", model="large", usage=usage)
    decision = Decision(route="cloud", stage="draft", reason="not kept", steps=(step,))
    logged = Entry(at=datetime(2026, 1, 1, tzinfo=UTC), decision=decision)
    page = log_page([logged], prices={"cloud": Price(input_usd=10, cached_usd=1)})
    assert "1000000 in (900000 from the cache), 0 out" in page
    assert "1.9000 USD" in page
