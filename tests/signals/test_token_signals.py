"""Token signals against values worked out by hand."""

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.errors import PolicyError, SignalUnavailableError
from confroute.signals import Case, OptionProbability, TokenEntropy, TokenLogprob, TokenMargin, token_nll
from confroute.signals.token_entropy import entropy_bounds
from confroute.signals.tokens import answer_spans, tokens_within
from confroute.types import Generation, Tier


def measure(signal, *, question="How many?", **draft):
    """The measurement of a signal that yields no asks; the text is what the tokens spell unless it is given."""
    text = "".join(draft.get("tokens") or ("7",))
    case = Case(
        tier=Tier(name="edge", model="m"), question=question, draft=Generation(**{"text": text, **draft})
    )
    try:
        next(signal.measure(case))
    except StopIteration as done:
        return done.value
    raise AssertionError("a token signal must not yield an ask")


def top(*probabilities):
    """Alternatives with these probabilities, named a, b, c."""
    return tuple((chr(97 + i), math.log(p)) for i, p in enumerate(probabilities))


def test_entropy_of_a_whole_distribution_is_exact():
    """(1/2, 1/4, 1/4) has 1.5 bits, and both bounds say so."""
    low, high = entropy_bounds([math.log(p) for p in (0.5, 0.25, 0.25)])
    assert low == high == pytest.approx(1.5 * math.log(2))


def test_entropy_of_a_truncated_distribution_lies_between_its_bounds():
    """0.5 and 0.3 are known and 0.2 remains: lowest on one outcome, highest spread over the other eight of ten."""
    low, high = entropy_bounds([math.log(0.5), math.log(0.3)], vocabulary=10)
    known = -0.5 * math.log(0.5) - 0.3 * math.log(0.3)
    assert low == pytest.approx(known - 0.2 * math.log(0.2))
    assert high == pytest.approx(known - 0.2 * math.log(0.2 / 8))


@given(st.lists(st.floats(0.001, 1.0), min_size=3, max_size=12), st.integers(1, 11))
def test_the_bounds_hold_for_every_truncation(weights, kept):
    """The true entropy lies between the bounds, whichever number of the likeliest outcomes is known."""
    p = sorted((w / sum(weights) for w in weights), reverse=True)
    true = -sum(x * math.log(x) for x in p)
    kept = min(kept, len(p))
    low, high = entropy_bounds([math.log(x) for x in p[:kept]], vocabulary=len(p))
    assert low - 1e-4 <= true <= high + 1e-4
    closer = entropy_bounds([math.log(x) for x in p[: kept + 1]], vocabulary=len(p))
    assert low - 1e-4 <= closer[0]
    assert closer[1] <= high + 1e-4


def test_token_entropy_reports_both_bounds():
    """The uncertainty is the lower bound of the mean; the details hold both."""
    measurement = measure(TokenEntropy(), logprobs=(-0.1,), tokens=("a",), top_logprobs=(top(0.9, 0.05),))
    assert measurement.uncertainty == pytest.approx(measurement.details["low_nats"], abs=1e-6)
    assert measurement.details["low_nats"] < measurement.details["high_nats"]


def test_the_drawn_token_counts_where_it_is_not_listed():
    """A drawn token that is not among the alternatives takes its part of the remaining mass."""
    without = measure(TokenEntropy(), logprobs=(math.log(0.1),), tokens=("a",), top_logprobs=(top(0.6, 0.3),))
    beyond = measure(TokenEntropy(), logprobs=(math.log(0.1),), tokens=("z",), top_logprobs=(top(0.6, 0.3),))
    whole = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert beyond.uncertainty == pytest.approx(whole)
    assert beyond.details["high_nats"] < without.details["high_nats"]


def test_margin_by_hand():
    """Margins 0.5 and 0.1: mean 0.7, maximum 0.9."""
    tops = (top(0.7, 0.2), top(0.5, 0.4))
    common = {"logprobs": (-0.4, -0.7), "tokens": ("a", "a"), "top_logprobs": tops}
    assert measure(TokenMargin(), **common).uncertainty == pytest.approx(0.7)
    assert measure(TokenMargin(statistic="max"), **common).uncertainty == pytest.approx(0.9)


@pytest.mark.parametrize("signal", [TokenEntropy(), TokenMargin()])
def test_missing_or_invalid_alternatives_are_refused(signal):
    """None, too few and NaN are never read as certainty."""
    for tops in (None, (), ((),), ((("a", float("nan")), ("b", -1.0)),), ((("a", 0.5), ("b", -1.0)),)):
        with pytest.raises(SignalUnavailableError):
            measure(signal, logprobs=(-0.1,), tokens=("a",), top_logprobs=tops)


@pytest.mark.parametrize(
    ("text", "question", "expected"),
    [
        ("3 + 4 = 7, so the answer is 7 apples.", "How many apples?", ["7"]),
        ("I think the answer is (B).", "Which?\nA. Mars\nB. Venus", ["B"]),
        ('{"city": "Oslo", "n": [3, true]}', "", ['"Oslo"', "3", "true"]),
        ('```json\n{"a": -1.5}\n```', "", ["-1.5"]),
        ("Paris", "Capital?", ["Paris"]),
        ("A long text without anything short that could be compared at all", "Why?", []),
    ],
)
def test_the_answer_is_found_in_its_text(text, question, expected):
    """Number, option letter, field values, short text; nothing where there is no short answer."""
    assert [text[a:b] for a, b in answer_spans(text, question)] == expected


def test_one_wrong_number_is_not_hidden():
    """The mean over the answer's tokens shows what the mean over all tokens hides."""
    draft = {
        "tokens": ("So", " the", " answer", " is", " 4", "2", "."),
        "logprobs": (-0.01, -0.01, -0.01, -0.01, -2.0, -1.0, -0.01),
    }
    assert measure(TokenLogprob(span="answer"), **draft).uncertainty == pytest.approx(1.5)
    assert measure(TokenLogprob(), **draft).uncertainty < 0.5


def test_perplexity_is_the_exponential_of_the_mean():
    """exp(0.5); a very unlikely answer gives a large number, not an overflow."""
    assert measure(
        TokenLogprob(statistic="perplexity"), logprobs=(-0.25, -0.75)
    ).uncertainty == pytest.approx(math.exp(0.5))
    assert math.isfinite(measure(TokenLogprob(statistic="perplexity"), logprobs=(-5000.0,)).uncertainty)


def test_the_span_needs_the_tokens_texts():
    """Without tokens, or without an answer in them, the signal is unavailable."""
    with pytest.raises(SignalUnavailableError, match="no token texts"):
        measure(TokenLogprob(span="answer"), logprobs=(-0.1,))
    with pytest.raises(SignalUnavailableError, match="no number"):
        measure(TokenLogprob(span="answer"), logprobs=(-0.1,) * 12, tokens=(" word",) * 12, question="Why?")
    for bad in ({"span": "first"}, {"statistic": "median"}):
        with pytest.raises(PolicyError):
            TokenLogprob(**bad)


def test_tokens_that_share_a_character_count():
    """A token that reaches into the answer is part of it."""
    assert tokens_within(["is 4", "2."], ((3, 5),)) == [0, 1]


def calls_of(signal, tokens):
    """Function calls, Python's and C's, that scoring an answer of so many tokens takes."""
    draft = {
        "logprobs": (-0.6,) * tokens,
        "tokens": ("a",) * tokens,
        "top_logprobs": (top(0.55, 0.2, 0.1, 0.05, 0.01),) * tokens,
    }
    calls = []
    sys.setprofile(lambda _frame, event, _argument: event.endswith("call") and calls.append(event))
    try:
        measure(signal, **draft)
    finally:
        sys.setprofile(None)
    return len(calls)


@pytest.mark.parametrize("signal", [TokenLogprob(), TokenMargin(), TokenEntropy()])
def test_long_answers_are_scored_by_numpy(signal):
    """A further token, with five alternatives, takes a check or two in Python and no arithmetic."""
    calls_of(signal, 10)
    assert calls_of(signal, 500) - calls_of(signal, 400) <= 2 * 100


def plain_bounds(known, vocabulary, cap):
    """Entropy bounds of one token in plain Python, as its docstring defines them."""
    p = [math.exp(value) for value in known]
    entropy = max(0.0, -math.fsum(x * math.log(x) for x in p if x > 0.0))
    rest = min(1.0 - math.fsum(p), (vocabulary - len(p)) * cap)
    if rest <= 1e-6:
        return entropy, entropy
    full = math.floor(rest / cap)
    left = rest - full * cap
    low = entropy - full * cap * math.log(cap) - (left * math.log(left) if left > 0.0 else 0.0)
    return low, max(low, entropy - rest * math.log(rest / (vocabulary - len(p))))


@st.composite
def drafts(draw):
    """Tokens with 2 to 6 alternatives each, some of probability 0, with or without the drawn one."""
    tokens, tops, logprobs = [], [], []
    for _ in range(draw(st.integers(1, 30))):
        weights = draw(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=7))
        p = sorted((w / sum(weights) for w in weights), reverse=True)
        values = [math.log(x) for x in p[:-1]]
        if draw(st.booleans()):
            values[-1] = -math.inf
        beyond = draw(st.booleans())
        tokens.append("z" if beyond else "a")
        logprobs.append(math.log(p[-1]) if beyond else values[0])
        tops.append(tuple((chr(97 + at), value) for at, value in enumerate(values)))
    return {"tokens": tuple(tokens), "logprobs": tuple(logprobs), "top_logprobs": tuple(tops)}


@given(drafts(), st.sampled_from(["mean", "max"]))
def test_arrays_give_what_plain_python_gives(draft, statistic):
    """Entropy bounds and margins of whole answers are those of their tokens one by one."""
    pairs, doubts = [], []
    for token, drawn, alternatives in zip(*draft.values(), strict=True):
        known = [value for _, value in alternatives]
        second, first = sorted(known)[-2:]
        doubts.append(1.0 - math.exp(first) + math.exp(second))
        cap = math.exp(min(known))
        pairs.append(plain_bounds([*known, drawn] if token == "z" else known, 50_000, cap))
    over = max if statistic == "max" else lambda values: math.fsum(values) / len(values)
    measurement = measure(TokenEntropy(statistic=statistic, vocabulary=50_000), **draft)
    assert measurement.uncertainty == pytest.approx(over([low for low, _ in pairs]), abs=1e-9)
    assert measurement.details["high_nats"] == pytest.approx(over([high for _, high in pairs]), abs=2e-6)
    assert measure(TokenMargin(statistic=statistic), **draft).uncertainty == pytest.approx(
        over(doubts), abs=1e-9
    )


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=40))
def test_statistics_of_tokens_are_those_of_numpy(values):
    """Mean, maximum, sum and quantiles of the negative log-probabilities."""
    nll, stats = [-value for value in values], token_nll(tuple(values))
    assert stats["mean"] == pytest.approx(np.mean(nll))
    assert (stats["max"], stats["sum"]) == pytest.approx((max(nll), sum(nll)))
    for name, share in (("q50", 0.5), ("q75", 0.75), ("quantile", 0.9)):
        assert stats[name] == pytest.approx(np.quantile(nll, share))


def test_alternatives_that_end_before_the_answer_are_refused():
    """Alternatives for the first tokens only say nothing about the number at the end."""
    draft = {"tokens": ("So", " 7"), "logprobs": (-0.1, -0.1), "top_logprobs": (top(0.6, 0.3),)}
    for signal in (TokenMargin(span="answer"), TokenEntropy(span="answer")):
        with pytest.raises(SignalUnavailableError, match="answer's tokens"):
            measure(signal, **draft)


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=12), st.data())
def test_the_tokens_of_spans_are_those_that_share_a_character(tokens, data):
    """The search gives the same as trying every span on every token."""
    size = sum(map(len, tokens))
    cuts = sorted(data.draw(st.sets(st.integers(0, size), max_size=6)))
    spans = tuple(zip(cuts[::2], cuts[1::2], strict=False))
    ends = list(itertools.accumulate(map(len, tokens)))
    tried = [
        place
        for place, (end, token) in enumerate(zip(ends, tokens, strict=True))
        if any(end - len(token) < last and first < end for first, last in spans)
    ]
    assert tokens_within(tokens, spans) == tried


OPTIONS = "Which planet is red?\nA. Venus\nB. Mars\nC. Earth"


def test_option_probability_by_hand():
    """B and " B" together 0.6, A 0.2, C not returned: 1 - 0.6/0.8; with C at most 0.05 it could be 1 - 0.6/0.85."""
    first = tuple((text, math.log(p)) for text, p in (("B", 0.5), ("A", 0.2), (" B", 0.1), ("The", 0.05)))
    draft = {"tokens": ("B", ". Mars"), "logprobs": (math.log(0.5), -0.1)}
    measurement = measure(OptionProbability(), question=OPTIONS, top_logprobs=(first, first), **draft)
    assert measurement.uncertainty == pytest.approx(0.25)
    assert measurement.details["missing"] == 1
    assert measurement.details["high"] == pytest.approx(1 - 0.6 / 0.85, abs=1e-6)


def test_a_drawn_letter_beyond_the_alternatives_counts():
    """A sampled letter that is not among the likeliest tokens has its own log-probability."""
    first = (("A", math.log(0.6)), ("C", math.log(0.3)))
    draft = {"text": "B", "tokens": ("B",), "logprobs": (math.log(0.1),), "top_logprobs": (first,)}
    assert measure(OptionProbability(), question=OPTIONS, **draft).uncertainty == pytest.approx(0.9)


@pytest.mark.parametrize("spelt", ["({})", "({}", "**{}", "{}.", "{})", '"{}', "[{}]", "{}:", " ({}", "{}"])
@pytest.mark.parametrize("drawn", ["B", "({}"])
def test_a_letter_in_its_dress_is_the_letter(drawn, spelt):
    """Vocabularies hold "(A" and "A." as tokens of their own, and a model writes all of its options so, or not."""
    token = drawn.format("B")
    probabilities = ((token, 0.4), (spelt.format("A"), 0.35), (spelt.format("C"), 0.2), ("A dog", 0.05))
    first = tuple((text, math.log(p)) for text, p in probabilities)
    draft = {"tokens": (token,), "logprobs": (math.log(0.4),), "top_logprobs": (first,)}
    assert measure(OptionProbability(), question=OPTIONS, **draft).uncertainty == pytest.approx(
        1 - 0.4 / 0.95
    )


@pytest.mark.parametrize("spelt", ["{})", "\uff08{}\uff09", "({})", "{}"])
@pytest.mark.parametrize("letters", ["bac", "\uff22\uff21\uff23"])
def test_small_and_full_width_letters_are_letters(letters, spelt):
    """As the draft writes its own, so are the others counted."""
    probabilities = ((letters[0], 0.4), (spelt.format(letters[1]), 0.35), (letters[2], 0.2), ("The", 0.05))
    first = tuple((text, math.log(p)) for text, p in probabilities)
    draft = {
        "text": letters[0],
        "tokens": (letters[0],),
        "logprobs": (math.log(0.4),),
        "top_logprobs": (first,),
    }
    assert measure(OptionProbability(), question=OPTIONS, **draft).uncertainty == pytest.approx(
        1 - 0.4 / 0.95
    )


def test_an_article_is_no_option():
    """Where the draft writes capitals, "a" begins a sentence."""
    first = tuple((text, math.log(p)) for text, p in (("B", 0.6), ("a", 0.3), ("A", 0.1)))
    draft = {"text": "B", "tokens": ("B",), "logprobs": (math.log(0.6),), "top_logprobs": (first,)}
    assert measure(OptionProbability(), question=OPTIONS, **draft).uncertainty == pytest.approx(1 - 0.6 / 0.7)


@pytest.mark.parametrize(
    ("question", "draft", "why"),
    [
        ("Which planet is red?", {"text": "B", "tokens": ("B",)}, "lists no options"),
        (OPTIONS, {"text": "The answer is B", "tokens": ("The", " answer", " is", " B")}, "first token"),
        (OPTIONS, {"text": "Mars", "tokens": ("Mars",)}, "first token"),
        (OPTIONS, {"text": "D", "tokens": ("D",)}, "first token"),
        # What the server left out is named, and not the letter, which is right.
        (OPTIONS, {"text": "B"}, "no token texts"),
        (OPTIONS, {"text": "B", "logprobs": None}, "no log-probabilities"),
        (OPTIONS, {"text": "B", "tokens": ("B",), "top_logprobs": None}, "no alternatives"),
    ],
)
def test_an_answer_that_does_not_begin_with_its_letter_is_refused(question, draft, why):
    """No listed options, prose before the letter, another letter, no token texts, no alternatives."""
    first = (("B", math.log(0.6)), ("A", math.log(0.3)))
    draft = {"logprobs": (-0.5,) * len(draft.get("tokens", "x")), "top_logprobs": (first,) * 4, **draft}
    with pytest.raises(SignalUnavailableError, match=why):
        measure(OptionProbability(), question=question, **draft)
