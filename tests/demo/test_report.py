"""The demo's three sentences: what stayed at the edge, what that saved, and what was wrong and why."""

from confroute.decision import Decision, Step
from confroute.demo.questions import REQUESTS
from confroute.demo.report import in_words, outcome, totals
from confroute.demo.routes import DemoResult
from confroute.prices import Price
from confroute.types import Usage

ASKED = {request.id: request for request in REQUESTS}


def result(name, answer, *, route="edge", tokens=(10, 5), **fields):
    """One request that a tier answered, with its draft or its answer as the only step."""
    usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1])
    step = Step(kind="draft" if route == "edge" else "final", tier=route, usage=usage)
    given = {"stage": "draft", "reason": "because", "uncertainty": 0.1, "threshold": 0.3, **fields}
    decision = Decision(route=route, steps=(step,), **given)
    return DemoResult(request=ASKED[name], answer=answer, decision=decision, latency_s=0.5)


RESULTS = (
    result("capital", "It is Paris."),
    result("sum", "It is 5."),
    result("product", "390", route="cloud", tokens=(20, 10), uncertainty=0.9),
    result("planet", "Mars.", route="cloud", tokens=(20, 10), uncertainty=0.9),
    result("private", "Please pay.", private=True, uncertainty=None),
    result("outage", "7", degraded=True, uncertainty=0.9),
)


def test_three_sentences():
    """Counts by hand: 60 tokens sent of 120, since the edge kept four answers of 15 tokens."""
    summary = totals(RESULTS, edge_price=None, cloud_price=Price(input_usd=1e4, output_usd=2e4))
    stayed, saved, wrong = in_words(RESULTS, summary)
    assert stayed == (
        "Stayed: the edge answered 4 of 6 requests (2 because it was certain enough, 1 because the text is private, 1 because the "
        "cloud was switched off); the other 2 went to the cloud."
    )
    assert saved == (
        "Saved: the cloud read and wrote 60 tokens in place of some 120 for all requests, 50% less, and 0.800000 USD in place of "
        "1.600000; the edge took 60, samples included."
    )
    assert wrong == (
        "Wrong: 3 of 5 answers that a word can grade: sum (the edge was sure of it: 0.1, kept up to 0.3); product (the cloud's own "
        "mistake); outage (the edge doubted it, and the cloud was switched off)."
    )


def test_nothing_stayed_and_nothing_was_wrong():
    """Sentences without empty brackets."""
    results = (result("planet", "Mars.", route="cloud"),)
    stayed, saved, wrong = in_words(results, totals(results, edge_price=None, cloud_price=None))
    assert stayed == "Stayed: the edge answered 0 of 1 requests; the other 1 went to the cloud."
    assert "USD" not in saved
    assert wrong == "Wrong: 0 of 1 answers that a word can grade."


def test_a_line_says_where_a_request_went():
    """The answer on one line, shortened."""
    told = outcome(
        result("capital", f"It is\n{'x' * 80}", reason="0.1 <= 0.3 (given)", threshold_source="given")
    )
    assert told == f"edge, 0.5 s: It is {'x' * 54}… | 0.1 <= 0.3"
