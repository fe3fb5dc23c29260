"""Which tokens a text is scored by, where a provider scores more than the text or spells it in its own way."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.alignment import align
from confroute.errors import SignalUnavailableError
from confroute.signals import Case, Cocoa, OptionProbability, TokenEntropy, TokenLogprob, TokenMargin
from confroute.types import Generation, Tier, Usage

SURE, DOUBTFUL = -0.01, -2.5


def measure(signal, text, *, question="How many?", **draft):
    """The uncertainty of a signal that yields no asks."""
    case = Case(tier=Tier(name="edge", model="m"), question=question, draft=Generation(text=text, **draft))
    try:
        next(signal.measure(case))
    except StopIteration as done:
        return done.value.uncertainty
    raise AssertionError("a token signal must not yield an ask")


def scored(text, pairs, signal, **more):
    """The uncertainty of a text whose tokens, with their log-probabilities, are given in pairs."""
    tokens, logprobs = zip(*pairs, strict=True)
    return measure(signal, text, tokens=tokens, logprobs=logprobs, **more)


REASONING = [
    (word, SURE) for word in ("<think>", "The", " answer", " is", " 8", "?", " No", ".", "</think>", "\n\n")
]
ANSWER = [("7", DOUBTFUL), (" apples", DOUBTFUL)]


@pytest.mark.parametrize("span", ["all", "answer"])
@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        pytest.param("7 apples", REASONING + ANSWER, id="reasoning that the text lacks"),
        pytest.param("7 apples", REASONING * 3 + ANSWER + [("<|im_end|>", SURE)], id="an end of turn"),
        pytest.param(
            "7 apples",
            [("7 apples", SURE), (" or", SURE), (" 8?", SURE), ("</think>", SURE), *ANSWER],
            id="repeated",
        ),
        pytest.param(
            "7 apples", [("Is it 8", SURE), ("? No", SURE), (".\n", SURE), *ANSWER], id="without a mark"
        ),
        pytest.param("<think>The answer is 8? No.</think>\n\n7 apples", REASONING + ANSWER, id="in the text"),
        pytest.param(
            "7 apples",
            [*ANSWER, ("\n", SURE), ("Tom", SURE), (" has", SURE), (" 12", SURE)],
            id="past a stop string",
        ),
        pytest.param(
            "7 apples",
            [*ANSWER[:1], (" apples.\n\nQ", DOUBTFUL), (": 12", SURE)],
            id="a stop string within a token",
        ),
        pytest.param("7 apples", [*ANSWER, ("</s>", SURE)], id="a scored end of text"),
        pytest.param(
            "Ja, 7 \u00c4pfel",
            [("Ja,\u01207", DOUBTFUL), ("\u0120\u00c3\u0126pfel", DOUBTFUL)],
            id="byte-level names",
        ),
        pytest.param(
            "7 apples\n", [("\u25817", DOUBTFUL), ("\u2581apples", DOUBTFUL), ("<0x0A>", SURE)], id="pieces"
        ),
        pytest.param(
            "7 \U0001f5fc apples",
            [
                ("7", DOUBTFUL),
                (" \\xf0\\x9f", DOUBTFUL),
                ("\\x97\\xbc", DOUBTFUL),
                (" apples", DOUBTFUL),
                ("\n12", SURE),
            ],
            id="byte escapes",
        ),
        pytest.param(
            "7 \U0001f5fc apples",
            [
                ("7", DOUBTFUL),
                (" bytes:\\xf0\\x9f\\x97", DOUBTFUL),
                ("bytes:\\xbc", DOUBTFUL),
                (" apples", DOUBTFUL),
            ],
            id="marked byte escapes",
        ),
        pytest.param(
            "7 \U0001f5fc apples",
            [
                ("Hm.", SURE),
                ("7", DOUBTFUL),
                (" \ufffd", DOUBTFUL),
                ("\ufffd", DOUBTFUL),
                (" apples", DOUBTFUL),
            ],
            id="replacement characters",
        ),
    ],
)
def test_only_the_text_is_scored(text, pairs, span):
    """Every token of the text is doubtful and every other one is not: the mean is that of the text alone."""
    assert scored(text, pairs, TokenLogprob(span=span)) == pytest.approx(-DOUBTFUL)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("So it is 7.", ("token_id:2170", "token_id:374", "token_id:22", "token_id:13")),
        ("7", ("7", " or 8? It is", " 7")),
        ("7", ("it is", " 17")),
        ("17", ("it is 1", "7")),
        ("7 apples", ("<think>", "hm", "</think>", "7")),
        ("7", ("<think>", "7", "</think>", "8")),
        ("", ("<think>", "hm")),
    ],
)
def test_tokens_that_do_not_spell_the_text_are_no_evidence(text, tokens):
    """Numbers of tokens, two places that might be meant, a part of a token, a part of the answer, another answer."""
    more = {
        "tokens": tokens,
        "logprobs": (SURE,) * len(tokens),
        "top_logprobs": ((("a", -0.1), ("b", -3.0)),) * len(tokens),
    }
    for signal in (TokenLogprob(), TokenLogprob(span="answer"), TokenEntropy(), TokenMargin(), Cocoa(n=2)):
        with pytest.raises(SignalUnavailableError, match="do not spell"):
            measure(signal, text, **more)


def test_alternatives_are_those_of_the_text():
    """Certain alternatives of the reasoning do not hide an even choice in the answer."""
    certain, even = (
        (("a", math.log(0.99)), ("b", math.log(0.01))),
        (("7", math.log(0.5)), ("8", math.log(0.5))),
    )
    tokens, logprobs = zip(*REASONING, ("7", math.log(0.5)), strict=True)
    more = {"tokens": tokens, "logprobs": logprobs, "top_logprobs": (*(certain,) * len(REASONING), even)}
    assert measure(TokenMargin(), "7", **more) == pytest.approx(1.0)
    assert measure(TokenEntropy(), "7", **more) == pytest.approx(math.log(2))


def test_reasoning_that_is_billed_and_not_scored_is_not_missed():
    """The tokens of the text are all there, whatever else was billed; without their texts nobody knows."""
    billed = {"logprobs": (DOUBTFUL,) * 2, "usage": Usage(output_tokens=40)}
    assert measure(TokenLogprob(), "7 apples", tokens=("7", " apples"), **billed) == pytest.approx(-DOUBTFUL)
    with pytest.raises(SignalUnavailableError, match="2 log-probabilities"):
        measure(TokenLogprob(), "7 apples", **billed)


OPTIONS = "Which planet is red?\nA. Venus\nB. Mars\nC. Earth"


@pytest.mark.parametrize("mark", ["", " ", "\u0120", "\u2581"])
def test_options_are_read_in_the_names_of_any_vocabulary(mark):
    """B has .4 of .95 that any letter has."""
    first = (("B", math.log(0.4)), (f"{mark}A", math.log(0.35)), (f"{mark}C", math.log(0.2)))
    draft = {"tokens": ("B",), "logprobs": (math.log(0.4),), "top_logprobs": (first,)}
    assert measure(OptionProbability(), "B", question=OPTIONS, **draft) == pytest.approx(1 - 0.4 / 0.95)
    draft = {"tokens": (f"{mark}B",), "logprobs": (math.log(0.4),), "top_logprobs": ((first[0], *first[1:]),)}
    spellings = OptionProbability()
    assert measure(spellings, "B", question=OPTIONS, **draft) == pytest.approx(
        1 - 0.4 / 0.95 if not mark else 1 - 0.8 / 1.35
    )


def test_the_letter_after_reasoning_is_the_first_token():
    """The alternatives at the letter count, not those at the first word of the reasoning."""
    certain, first = (("a", 0.0), ("b", -20.0)), (("B", math.log(0.6)), ("A", math.log(0.4)))
    tokens, logprobs = zip(*REASONING, ("B", math.log(0.6)), strict=True)
    draft = {"tokens": tokens, "logprobs": logprobs, "top_logprobs": (*(certain,) * len(REASONING), first)}
    assert measure(OptionProbability(), "B", question=OPTIONS, **draft) == pytest.approx(0.4)


@pytest.mark.parametrize("count", [3, 4, 40])
def test_zeros_that_a_server_fills_in_are_no_evidence(count):
    """Several log-probabilities that are all exactly 0; one token or two may be as certain as that."""
    tokens = ("so",) * count
    for signal in (TokenLogprob(), TokenLogprob(span="answer")):
        with pytest.raises(SignalUnavailableError, match="all exactly 0"):
            measure(signal, "".join(tokens), tokens=tokens, logprobs=(0.0,) * count, question="Which?")
    with pytest.raises(SignalUnavailableError, match="all exactly 0"):
        measure(TokenLogprob(), "so", logprobs=(-0.0,) * count)
    assert measure(TokenLogprob(), "so", logprobs=(0.0, 0.0)) == 0.0
    assert measure(TokenLogprob(), "so", logprobs=(0.0,) * count + (-1e-7,)) < 1e-6


words = st.lists(st.text("a7. \u00e9\U0001f5fc", min_size=1, max_size=4), min_size=1, max_size=8)


@given(words, words, st.data())
def test_the_tokens_found_spell_the_answer(before, own, data):
    """Whatever stands before the mark, and however the text is cut into bytes, its own tokens are found."""
    text = "".join(own).strip()
    if not text:
        return
    whole = text.encode()
    cuts = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole)), max_size=6))})
    parts = [whole[a:b] for a, b in itertools.pairwise(cuts)]
    tokens = [
        part.decode() if _is_text(part) else "".join(f"\\x{byte:02x}" for byte in part) for part in parts
    ]
    found = align([*before, "</think>", *tokens], text)
    assert found is not None
    assert [*found.tokens] == [len(before) + 1 + at for at in range(len(tokens))]
    assert found.positions([(0, len(text))]) == [*found.tokens]


def _is_text(part):
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True
