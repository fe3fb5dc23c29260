"""A recorded row in the place of the models: what it says, what it holds, and what it cannot answer."""

from dataclasses import replace

import numpy as np
import pytest

from confroute import SelfConsistency, TokenLogprob
from confroute.asks import Begin, Cancel, Consult, Draft, Embed, Final, Sample, Shadow
from confroute.errors import SignalUnavailableError, TierError
from confroute.fitting import Rates, fit_combined
from confroute.fitting.recorded import UNRECORDED, RecordedCalls, replayed, request_of
from confroute.recording import RecordedSample, Row, Side
from confroute.signals import Case
from confroute.types import Tier

DRAWN = tuple(RecordedSample(text=text) for text in ("7", "8", "9"))
ROW = Row(
    id="a",
    prompt="How many?",
    edge=Side(model="small", text="7", logprobs=(-0.5,), samples=DRAWN, latency_s=2.0),
    cloud=Side(text="8", latency_s=1.0),
    extra={"tags": ["maths", 7]},
)


def test_a_request_is_what_the_row_recorded():
    """Prompt, tags that are texts, the edge's model, and whether samples were drawn."""
    found = request_of(ROW)
    assert [(m.role, m.text) for m in found.messages] == [("user", "How many?")]
    assert (found.tags, found.tiers["edge"].model, found.tiers["edge"].can_sample) == (
        frozenset({"maths"}),
        "small",
        True,
    )
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "text": "Why?"}, {"role": "odd"}]
    bare = request_of(Row(id="b", messages=said, edge=Side(text="7")))
    assert [(m.role, m.text) for m in bare.messages] == [
        ("system", "Be brief."),
        ("user", "Why?"),
        ("user", ""),
    ]
    assert (bare.tiers["edge"].model, bare.tiers["edge"].can_sample, bare.tags) == (
        "edge",
        False,
        frozenset(),
    )
    named = ("developer", "human", "ai", "assistant", "tool")
    other = request_of(
        Row(id="n", messages=[{"role": name, "content": name} for name in named], edge=Side(text="7"))
    )
    assert [m.role for m in other.messages] == ["system", "user", "assistant", "assistant", "tool"]
    both = request_of(Row(id="c", prompt="How many?", messages=said, edge=Side(text="7")))
    assert [m.text for m in both.messages] == ["How many?"]
    assert request_of(Row(id="d", edge=Side(text="7"))).messages[0].text == UNRECORDED


def test_asks_are_answered_in_their_order():
    """Samples from where the last ones ended; the time of those whose draft's is not known counts as none."""
    calls = RecordedCalls(row=ROW, rates=Rates())
    assert [g.text for g in calls(Sample(tier="edge", n=2)).generations] == ["7", "8"]
    last = calls(Sample(tier="edge", n=2, drawn=2))
    assert ([g.text for g in last.generations], last.latency_s) == (["9"], 2.0)
    untimed = RecordedCalls(row=replace(ROW, edge=replace(ROW.edge, latency_s=None)), rates=Rates())
    assert untimed(Sample(tier="edge", n=1)).latency_s == 0.0
    draft, final = calls(Draft(tier="edge")), calls(Final(tier="cloud"))
    assert (draft.generations[0].text, draft.latency_s) == ("7", 2.0)
    assert (final.generations[0].text, final.latency_s) == ("8", 1.0)
    with pytest.raises(SignalUnavailableError, match="does not answer Embed"):
        calls(Embed(texts=("7",), model="m"))


PRICED = replace(
    ROW, edge=replace(ROW.edge, cost_usd=1.0), cloud=replace(ROW.cloud, cost_usd=8.0, latency_s=3.0)
)


def test_an_answer_begun_beside_other_steps_takes_only_what_is_left_of_it():
    """The cloud's 3 s begin after the draft's 2 s; two samples take 2 s of them, so that 1 s is left."""
    final = Final(tier="cloud")
    calls = RecordedCalls(row=PRICED, rates=Rates())
    for ask in (Draft(tier="edge"), Begin(ask=final), Sample(tier="edge", n=2)):
        calls(ask)
    assert calls.bill.latency_s == 4.0
    assert calls(final).generations[0].text == "8"
    assert (calls.bill.latency_s, calls.bill.usd) == (5.0, 1.0 + 2.0 + 8.0)
    untimed = RecordedCalls(row=replace(PRICED, cloud=replace(PRICED.cloud, latency_s=None)), rates=Rates())
    untimed(Begin(ask=final))
    untimed(final)
    assert np.isnan(untimed.bill.latency_s)


def test_an_answer_that_is_cancelled_is_paid_for():
    """Nobody waits for it; it is there only if it was complete."""
    final = Final(tier="cloud")
    for drawn, there in ((1, 0), (3, 1)):
        calls = RecordedCalls(row=PRICED, rates=Rates())
        calls(Begin(ask=final))
        for at in range(drawn):
            calls(Sample(tier="edge", n=1, drawn=at))
        assert len(calls(Cancel(ask=final)).generations) == there
        assert (calls.bill.latency_s, calls.bill.usd) == (2.0 * drawn, drawn + 8.0)


def test_shadows_are_paid_for_and_told_what_came():
    """Nobody waits for them, and their errors are theirs."""
    came = []
    ask = Shadow(ask=Draft(tier="cloud"), then=came.append)
    for row in (PRICED, replace(PRICED, cloud=Side(error="timeout"))):
        calls = RecordedCalls(row=row, rates=Rates())
        calls(ask)
        assert calls.bill.latency_s == 0.0
    assert (came[0].generations[0].text, type(came[1])) == ("8", TierError)
    assert calls(Consult(work=lambda: 7)).value == 7


def test_what_failed_fails_and_what_was_not_recorded_has_no_text():
    """An edge without a text has an answer that no signal can read."""
    for side in ("edge", "cloud"):
        with pytest.raises(TierError, match="timeout"):
            RecordedCalls(row=replace(ROW, **{side: Side(error="timeout")}), rates=Rates())(Final(tier=side))
    bare = RecordedCalls(row=Row(id="b", edge=Side(model="small")), rates=Rates())
    draft = bare(Draft(tier="edge")).generations[0]
    assert (draft.text, draft.answer, draft.model) == ("", UNRECORDED, "small")
    assert bare(Final(tier="cloud")).generations[0].text == UNRECORDED


def measured(signal, row):
    """What a signal says of a row's draft, drawing from the row."""
    calls = RecordedCalls(row=row, rates=Rates())
    case = Case(
        tier=Tier(name="edge", model="small"),
        question="How many?",
        draft=calls(Draft(tier="edge")).generations[0],
        settled=lambda low, high: False,
    )
    flow, evidence = replayed(signal, row).measure(case), None
    try:
        while True:
            evidence = calls(next(flow) if evidence is None else flow.send(evidence))
    except StopIteration as done:
        return done.value


@pytest.mark.parametrize(
    ("signal", "row", "value"),
    [
        # Two of the draft's three samples differ from it: what a policy would draw is drawn, whatever was recorded.
        (SelfConsistency(n=3), replace(ROW, signals={"self_consistency": 0.25}), 2 / 3),
        # Three are not the five that it wants, and without a text nothing can be compared.
        (SelfConsistency(n=5), replace(ROW, signals={"self_consistency": 0.25}), 0.25),
        (SelfConsistency(n=3), Row(id="b", edge=Side(), signals={"self_consistency": 0.25}), 0.25),
        # What needs no samples is taken as it was recorded, and measured where it was not.
        (TokenLogprob(), replace(ROW, signals={"token_logprob.mean": 0.25}), 0.25),
        (TokenLogprob(), ROW, 0.5),
    ],
)
def test_a_recorded_value_or_a_measurement(signal, row, value):
    """The value where there is one, unless its samples are there to be drawn."""
    assert measured(signal, row).uncertainty == pytest.approx(value)


def test_a_row_without_value_and_text_is_no_evidence():
    """Nothing could be measured."""
    with pytest.raises(SignalUnavailableError, match="neither the value nor the text"):
        measured(TokenLogprob(), Row(id="b", edge=Side()))


def test_members_of_a_combination_take_their_own_columns():
    """By the name under which each was fitted."""
    values = np.linspace(0, 1, 60)[:, None]
    fitted = fit_combined({"mine": TokenLogprob()}, values, (values[:, 0] < 0.5).astype(float))
    low, high = (
        measured(fitted, Row(id="b", edge=Side(), signals={"mine": value})).uncertainty
        for value in (0.1, 0.9)
    )
    assert low < 0.1
    assert high > 0.9
