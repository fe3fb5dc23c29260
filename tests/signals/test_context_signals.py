"""Signals for answers that rest on retrieved text, against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import (
    Context,
    ContextLacks,
    ContextSupport,
    RetrievalScore,
    SendTo,
)
from confroute.asks import Embed, Entails, Evidence
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.signals import Case, abstains
from confroute.types import Generation, Tier

FARES = "A bicycle costs 4 euros each way. Cars are not carried."
EDGE = Tier(name="edge", model="small")


def case(answer, *passages, question="What does a bicycle cost?", scores=None):
    """A draft about passages."""
    context = Context(passages=passages, scores=scores) if passages else None
    return Case(tier=EDGE, question=question, draft=Generation(text=answer), context=context)


def measured(signal, about, *numbers):
    """The measurement, its asks answered in turn."""
    asking = signal.measure(about)
    asks = []
    try:
        ask = next(asking)
        for answer in numbers:
            asks.append(ask)
            ask = asking.send(Evidence(numbers=np.asarray(answer, dtype=np.float32)))
    except StopIteration as done:
        return done.value, asks
    raise AssertionError(f"asked for more: {ask}")


@pytest.mark.parametrize(
    ("statistic", "expected"), [("best", 1 - 0.75), ("mean", 1 - 0.5), ("gap", 1 - (0.75 - 0.5))]
)
def test_retrieval_score_by_hand(statistic, expected):
    """1 - best, mean and gap of 0.75, 0.25 and 0.5."""
    about = case("x", "a", "b", "c", scores=(0.75, 0.25, 0.5))
    assert measured(RetrievalScore(statistic=statistic), about)[0].uncertainty == pytest.approx(expected)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_retrieval_score_stays_in_its_range(scores):
    """Whatever the cosines, and whatever their order."""
    for statistic in ("best", "mean", "gap"):
        signal = RetrievalScore(statistic=statistic)
        values = {
            round(measured(signal, case("x", *"abcdefgh"[: len(s)], scores=tuple(s)))[0].uncertainty, 9)
            for s in (scores, scores[::-1])
        }
        assert len(values) == 1
        assert values.pop() in signal.range


@pytest.mark.parametrize("scores", [None, (), (12.5, 3.0), (float("nan"),)])
def test_scores_that_are_not_cosines_are_refused(scores):
    """BM25 scores have another scale; a threshold for cosines would read them as certainty."""
    with pytest.raises(SignalUnavailableError):
        measured(RetrievalScore(), case("x", "a", "b", scores=scores))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A bicycle costs 4 euros.", 0.0),
        ("4", 0.0),
        ("A bicycle costs 7 euros.", 1.0),
        ("4 dollars each way", 1 / 3),
        ("A bicycle costs 4 euros. The captain sleeps.", 1 / 2),
    ],
)
def test_support_by_words_by_hand(answer, expected):
    """Words of the question do not count; a number that is not in the passages removes the support of its sentence."""
    assert measured(ContextSupport(), case(answer, FARES))[0].uncertainty == pytest.approx(expected)


def test_support_can_be_that_of_the_worst_sentence():
    """One unsupported claim makes the answer unsupported."""
    about = case("A bicycle costs 4 euros. The captain sleeps.", FARES)
    assert measured(ContextSupport(statistic="min"), about)[0].uncertainty == 1.0


@pytest.mark.parametrize("answer", ["Yes.", "A bicycle costs what a bicycle costs.", "I don't know.", "..."])
def test_a_draft_without_claims_is_refused(answer):
    """It is never read as supported."""
    with pytest.raises(SignalUnavailableError):
        measured(ContextSupport(), case(answer, FARES))


def test_support_by_embedding_takes_the_nearest_sentence():
    """One claim, two sentences of the passage: cosines 0.6 and 0.8."""
    about = case("Bikes pay.", FARES)
    measurement, (ask,) = measured(ContextSupport(by="embedding"), about, [[1, 0], [0.6, 0.8], [0.8, 0.6]])
    assert isinstance(ask, Embed)
    assert ask.texts == ("Bikes pay.", "A bicycle costs 4 euros each way.", "Cars are not carried.")
    assert measurement.uncertainty == pytest.approx(0.2)


def test_support_by_entailment_takes_the_best_passage():
    """Two claims, two passages; a number that is not in the passages has no support although it is entailed."""
    about = case("Bikes pay. It is 9 euros.", "one", "two")
    signal = ContextSupport(by="entailment", model="nli")
    measurement, (ask,) = measured(signal, about, [0.1, 0.9, 0.95, 0.2])
    assert isinstance(ask, Entails)
    assert ask.pairs[:2] == (("one", "Bikes pay."), ("two", "Bikes pay."))
    assert measurement.uncertainty == pytest.approx(1 - 0.9 / 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetrievalScore(statistic="sum"),
        lambda: ContextSupport(by="entailment"),
        lambda: ContextSupport(by="luck"),
        lambda: ContextLacks(phrases=("(",)),
        lambda: ContextLacks(phrases="none"),
        lambda: SendTo(tier="edge", purposes="condense"),
    ],
)
def test_wrong_choices_are_refused(make):
    """The error names the expected values."""
    with pytest.raises(PolicyError, match=r"expected|model=|regular|write"):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "The context does not mention the captain.",
        "The context provided doesn\u2019t specify a phone number.",
        "I cannot answer this based on the context.",
        "It is not mentioned in the context.",
        "There is no information about the captain.",
        "The name is not provided in the given context.",
        "Based on the text, it is not possible to determine who it is.",
        "Empty Response",
        "I'm sorry, but I couldn't find that in the documents. I don't know.",
        "Unfortunately, the context does not say. Please provide more information.",
        "The context does not mention the captain. It only lists the departures of the Heron.",
        "Who is the captain? The provided text does not say; you should ask the ferry company.",
        "The passages do not mention it - would you like me to look elsewhere?",
        "I don't know. The context does not provide the captain's name, although I cannot say why.",
        "No information is given.\n\nIf you have further documents, I can look into them.",
    ],
)
def test_abstentions_are_recognised(text):
    """In the wordings of small and large models."""
    assert abstains(text)


@pytest.mark.parametrize(
    "text",
    [
        "The context does not mention the captain. However, from general knowledge it is Captain Erik Hansen, born in 1961.",
        "Captain Erik Hansen sails, although the provided document does not say so.",
        "The context does not provide this information, but the president of France is Jacques Chirac.",
        "The passages do not include dosing, but adults may take up to 12 g a day.",
        "No information is given for crew, yet passengers may smoke anywhere.",
        "The document does not say; the fare is 4 euros.",
        "I do not know from the text, I believe it was Hansen.",
        "The context does not mention it and I think the captain is Hansen.",
        "The text does not say.\n\nPaul Hansen",
        "The context does not say whether dogs travel free - 12 euros.",
        "Yes, although the context does not say so.",
        "The context does not say. No.",
        "The documents don't mention it, so the answer is no.",
        "The text does not say, therefore it must be Hansen.",
    ],
)
def test_a_disclaimer_before_an_answer_is_an_answer(text):
    """It goes to the gates like any other draft, in whatever order the two come."""
    assert not abstains(text)
    assert not abstains(f"NOT FOUND. {text}", phrases=("not found",))


def test_own_phrases_are_abstentions_unless_an_answer_follows():
    """In any language."""
    assert abstains("Keine Angabe.", phrases=("keine angabe", "nicht bekannt"))
    assert not abstains("Keine Angabe. Der Kapit\u00e4n hei\u00dft Hansen.", phrases=("keine angabe",))


@pytest.mark.parametrize(
    "text",
    ["Tickets do not include lunch.", "Cars are not carried.", "No ferry runs on Sundays.", "It is not far."],
)
def test_negations_are_answers(text):
    """A "not" alone does not make an abstention."""
    assert not abstains(text)
