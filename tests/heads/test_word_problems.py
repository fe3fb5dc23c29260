"""The features of word problems count what they are named after."""

import numpy as np
import pytest

from confroute.heads import WORD_PROBLEM_FEATURES, Ridge, encoder, word_problem_features


def counted(text):
    """Features of one text as counts."""
    row = np.expm1(word_problem_features([text])[0])
    return {
        name.removeprefix("log_"): round(float(count))
        for name, count in zip(WORD_PROBLEM_FEATURES, row, strict=True)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He has 3 red and 3 blue pens.", {"numbers": 2, "distinct_numbers": 1, "sentences": 1}),
        ("A car costs $1,250.25.", {"largest_number": 1250, "money": 1, "decimals": 1, "numbers": 1}),
        ("Half of the 3/4 and a third.", {"fractions": 3}),
        ("20% or ten percent", {"percents": 2, "number_words": 1}),
        ("two hours, 5 days and a week", {"times": 3, "number_words": 1}),
        ("3 km, 12 inches, one gallon", {"measures": 3}),
        ("In total 5 more than both", {"sums": 3, "comparisons": 1}),
        ("She gave two away; fewer are left", {"differences": 3}),
        ("Each day twice as many", {"products": 2, "comparisons": 1, "times": 1}),
        ("They split it equally, an average", {"quotients": 3}),
        ("If it rains, then", {"conditions": 2}),
        ("How many? How much is it?", {"asked": 4}),
        ("", dict.fromkeys(("characters", "words", "numbers", "largest_number", "asked"), 0)),
    ],
)
def test_each_kind_is_counted(text, expected):
    """Whatever the case."""
    for one in (text, text.upper()):
        found = counted(one)
        assert {name: found[name] for name in expected} == expected


def test_any_text_gives_finite_numbers():
    """No texts, other scripts, and a number beyond every float."""
    assert word_problem_features([]).shape == (0, 20)
    assert len(WORD_PROBLEM_FEATURES) == 20
    assert np.isfinite(word_problem_features(["9" * 400, "多少", "1,,,2.", "\x00"])).all()


def test_a_head_learns_from_them_as_from_an_embedding():
    """`encoder` takes them; longer calculations are told from shorter ones."""
    embed = encoder(word_problem_features)
    short = [f"Ann has {at} pens. How many pens has she?" for at in range(20)]
    long = [f"Ann buys {at} pens at $2 each and {at + 3} books, then gives half away." for at in range(20)]
    head = Ridge.fit(embed(short + long), [0] * 20 + [1] * 20, penalty=10.0)
    wins = head.estimate(embed(["Bo has 7 cups.", "Bo buys 7 cups at $3 each, then sells half."])).cloud_wins
    assert wins[0] < 0.3
    assert wins[1] > 0.7
    assert embed.identity().name == "word_problem_features"
