"""The arithmetic of dropout: closed forms of the decomposition, bounds, and what the signal returns and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.asks import Score
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.signals.base import Case
from confroute.signals.mc_dropout import STATISTICS, DropoutPasses, McDropout, bald, decompose
from confroute.types import Generation, Tier


@dataclass(frozen=True)
class Stand:
    """Evidence as a host would provide it."""

    passes: DropoutPasses | None


def made(logprobs: Any, total: Any, expected: Any) -> DropoutPasses:
    """Passes from lists."""
    return DropoutPasses(
        logprobs=np.array(logprobs, float), total=np.array(total, float), expected=np.array(expected, float)
    )


def case(text: str = "Paris.") -> Case:
    """A draft to judge."""
    return Case(tier=Tier(name="edge", model="m"), question="?", draft=Generation(text=text, finish="length"))


def settle(
    signal: McDropout, passes: DropoutPasses | None, judged: Case | None = None
) -> tuple[Score, Measurement]:
    """The signal's ask, and its measurement of the evidence."""
    work = signal.measure(judged or case())
    ask = next(work)
    with pytest.raises(StopIteration) as end:
        work.send(Stand(passes))
    return ask, end.value.value


TWO = made([[-0.5, -1.0], [-0.7, -1.4]], [1.0, 0.5], [0.8, 0.1])


def test_bald_of_opposed_certain_passes() -> None:
    """Two passes certain of different tokens: log 2 in total, all of it about the weights."""
    total, expected, information = bald(np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]))
    assert total == pytest.approx(np.log(2))
    assert expected == pytest.approx(0.0)
    assert information == pytest.approx(np.log(2))


def test_bald_of_equal_passes() -> None:
    """Passes that agree on a coin toss: log 2 in total, none of it about the weights."""
    total, expected, information = bald(np.full((4, 2, 2), 0.5))
    assert total == pytest.approx(np.log(2))
    assert expected == pytest.approx(np.log(2))
    assert information == pytest.approx(0.0)


def test_bald_by_hand() -> None:
    """(3/4, 1/4) and (1/4, 3/4): H(1/2) = log 2, and each pass has 2 log 2 - 3/4 log 3."""
    total, expected, information = bald(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
    own = 2 * np.log(2) - 0.75 * np.log(3)
    assert (total[0], expected[0]) == pytest.approx((np.log(2), own))
    assert information[0] == pytest.approx(np.log(2) - own)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 9))
def test_bald_bounds(seed: int, passes: int, words: int) -> None:
    """0 <= information <= log passes, total <= log vocabulary, whatever the order of the passes."""
    p = np.random.default_rng(seed).dirichlet(np.full(words, 0.2), size=(passes, 3))
    total, expected, information = bald(p)
    assert (information >= 0).all()
    assert (information <= np.log(passes) + 1e-9).all()
    assert (total <= np.log(words) + 1e-9).all()
    assert (expected <= total + 1e-9).all()
    assert bald(p[::-1])[2] == pytest.approx(information)


def test_decompose_by_hand() -> None:
    """Means over tokens; unbiased variances of tokens and of their sum."""
    parts = decompose(TWO)
    assert parts.mutual_information == pytest.approx([0.2, 0.4])
    assert parts.variance == pytest.approx([0.02, 0.08])
    assert parts.answer == pytest.approx(
        {
            "total": 0.75,
            "expected": 0.45,
            "mutual_information": 0.3,
            "token_variance": 0.05,
            "variance": 0.18,  # of -1.5 and -2.1
        }
    )


def test_equal_passes_have_no_variance() -> None:
    """Exactly 0, even where a mean of the passes would be rounded."""
    row = [-0.1, -1 / 3, -12.345678]
    parts = decompose(made([row] * 7, [0.3] * 3, [0.3] * 3))
    assert parts.answer["variance"] == parts.answer["token_variance"] == 0.0
    assert parts.answer["mutual_information"] == 0.0


def test_one_pass_is_refused() -> None:
    """It has no variance."""
    with pytest.raises(SignalUnavailableError, match="expected at least 2"):
        decompose(made([[-1.0]], [1.0], [1.0]))


@pytest.mark.parametrize(
    ("logprobs", "total", "expected", "says"),
    [
        ([[-1.0, -2.0]], [1.0], [1.0], "expected .passes, tokens."),
        ([-1.0], [1.0], [1.0], "expected .passes, tokens."),
        ([[], []], [], [], "at least one of each"),
        ([[np.nan]], [1.0], [1.0], "not finite"),
        ([[-1.0]], [np.inf], [1.0], "not finite"),
    ],
)
def test_impossible_passes(logprobs: Any, total: Any, expected: Any, says: str) -> None:
    """Wrong shapes and values that are not finite never become a low uncertainty."""
    with pytest.raises(SignalUnavailableError, match=says):
        made(logprobs, total, expected)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_signal_measures_each_statistic(statistic: Any) -> None:
    """It asks for the passes of its settings, and the chosen statistic is the uncertainty, within its range."""
    signal = McDropout(passes=7, rate=0.2, layers=3, statistic=statistic, seed=5)
    ask, measured = settle(signal, TWO)
    assert ask == Score(tier="edge", answer="Paris.", passes=7, rate=0.2, layers=3, prompt=False, seed=5)
    assert measured.signal == signal.name == "mc_dropout"
    assert measured.uncertainty == pytest.approx(decompose(TWO).answer[statistic])
    assert measured.uncertainty in signal.range
    assert measured.details["cut_off"] is True
    assert measured.details["tokens"] == 2
    json.dumps(measured.to_dict(), allow_nan=False)


def test_mutual_information_stays_in_range() -> None:
    """A rounding error above log passes does not leave the range."""
    signal = McDropout(passes=2, statistic="mutual_information")
    _, measured = settle(signal, made([[-1.0], [-2.0]], [np.log(2) + 1e-6], [0.0]))
    assert measured.uncertainty == pytest.approx(np.log(2), abs=1e-11)
    assert measured.uncertainty in signal.range


def test_units() -> None:
    """Variances are in squared nats."""
    assert McDropout(statistic="variance").range.unit == "nats^2"
    assert McDropout(statistic="total").range.unit == McDropout().range.unit == "nats"


def test_no_passes() -> None:
    """A tier without weights here makes the signal unavailable, not low."""
    work = McDropout().measure(case())
    next(work)
    with pytest.raises(SignalUnavailableError, match="not in this process"):
        work.send(Stand(None))


def test_no_text() -> None:
    """A draft that is a tool call is refused before the signal asks for anything."""
    with pytest.raises(SignalUnavailableError, match="no text"):
        next(McDropout().measure(case(" \n")))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"passes": 1}, "at least 2"),
        ({"rate": 0.0}, "all passes are the same"),
        ({"rate": 1.0}, "in .0, 1."),
        ({"rate": float("nan")}, "in .0, 1."),
        ({"layers": 0}, "top layers from 1"),
        ({"layers": True}, "top layers from 1"),
        ({"layers": "bottom"}, "top layers from 1"),
        ({"seed": -1}, "0 or more"),
        ({"statistic": "mean"}, "expected one of mutual_information"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    """Each is refused at construction, with the expected values."""
    with pytest.raises(PolicyError, match=says):
        McDropout(**settings)


@pytest.mark.parametrize("layers", [1, "all", "top-third"])
def test_smallest_settings(layers: Any) -> None:
    """Two passes, one layer or a word for several, seed 0, and any rate above 0."""
    signal = McDropout(passes=2, rate=1e-9, layers=layers, seed=0)
    assert (signal.range.low, signal.range.high) == (0.0, float("inf"))


def test_details_by_hand() -> None:
    """All numbers of the decomposition, with their units, whichever statistic is chosen."""
    _, measured = settle(McDropout(passes=7, rate=0.2), TWO)
    statistics = {name: value for name, value in measured.details.items() if "_nats" in name}
    assert statistics == pytest.approx(
        {
            "total_nats": 0.75,
            "expected_nats": 0.45,
            "mutual_information_nats": 0.3,
            "token_variance_nats2": 0.05,
            "variance_nats2": 0.18,
        }
    )
    assert (measured.details["passes"], measured.details["rate"]) == (2, 0.2)
    whole = Case(tier=Tier(name="edge", model="m"), question="?", draft=Generation(text="Paris."))
    assert settle(McDropout(), TWO, whole)[1].details["cut_off"] is False


def test_import_is_torch_free() -> None:
    """The signal needs no torch, nor does importing the module that makes the passes."""
    code = (
        "import sys, confroute.signals.mc_dropout, confroute.models.dropout; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
