"""Drafts that are released or cut off while they are written."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confroute import (
    Cascade,
    Gate,
    Limits,
    Message,
    Prefix,
    Request,
    Threshold,
    Tier,
    TokenLogprob,
    deadline,
    record,
)
from confroute.asks import WatchResult
from confroute.errors import PolicyError, StreamInterruptedError, TierError
from confroute.executor import arun_stream, run, run_stream
from confroute.models.provider_answers import ScoredTokens
from confroute.streaming import DraftMonitor, replay
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation

RULE = Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0), tokens=3, least=2)
POLICY = Cascade(gates=(Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5)),), prefix=RULE)
REQUEST = Request(messages=(Message(role="user", text="q"),))
TEXT = "one two three four five six"
ONCE = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}


class Streams:
    """Scripted tokens with their log-probabilities; counts what was read of each tier."""

    def __init__(self, logprobs, *, fault=None, fault_after=0, cloud_fault=None):
        self.reply = Reply(text=TEXT, logprob=None, logprobs=logprobs, fault=fault, fault_after=fault_after)
        self.cloud = Reply(text="the cloud knows", fault=cloud_fault)
        self.read, self.closed = {"edge": 0, "cloud": 0}, []

    def stream(self, ask):
        reply = self.reply if ask.tier == "edge" else self.cloud
        values = reply.logprobs or (None,) * len(reply.tokens)
        try:
            for position, (token, value) in enumerate(zip(reply.tokens, values, strict=False)):
                if reply.fault is not None and position >= reply.fault_after:
                    raise reply.fault
                self.read[ask.tier] += 1
                yield token, value
            yield reply.generation("q", model=ask.tier)
        finally:
            self.closed.append(ask.tier)

    async def astream(self, ask):
        for item in self.stream(ask):
            yield item

    def call(self, ask):
        return [(self.reply if ask.tier == "edge" else self.cloud).generation("q", model=ask.tier)]

    async def acall(self, ask):
        return self.call(ask)


def scores(chunk):
    return None if chunk[1] is None else (chunk[1],)


def streamed(made, policy=POLICY, request=REQUEST):
    *chunks, routed = run_stream(policy, request, made.call, made.stream, ONCE, scores=scores)
    return [text for text, _ in chunks], routed


def test_a_good_start_is_streamed_and_kept():
    """After three good tokens the draft flows; what comes later cannot change it."""
    made = Streams((-0.05,) * 3 + (-9.0,) * 3)
    items = run_stream(POLICY, REQUEST, made.call, made.stream, ONCE, scores=scores)
    assert next(items)[0] == "one"
    assert made.read["edge"] == 3
    *_, routed = items
    decision = routed.decision
    assert (decision.route, decision.stage, decision.signal) == ("edge", "prefix", "prefix_logprob")
    assert decision.uncertainty == pytest.approx(0.05)
    assert (decision.threshold, decision.threshold_source) == (0.1, "given")
    assert made.read == {"edge": 6, "cloud": 0}


def test_a_hopeless_start_is_cut_off():
    """Two bad tokens end the draft: the cloud's answer is the only one, and the tokens read are accounted for."""
    made = Streams((-3.0,) * 6)
    request = Request(
        messages=REQUEST.messages, tiers={"edge": Tier(name="edge", model="small", input_tokens=7)}
    )
    chunks, routed = streamed(made, request=request)
    assert "".join(chunks) == "the cloud knows"
    assert made.read["edge"] == 2
    assert made.closed == ["edge", "cloud"]
    assert routed.decision.stage == "prefix"
    assert "cut off" in routed.decision.reason
    assert routed.decision.usage["edge"].to_dict() == {"input_tokens": 7, "output_tokens": 2}


@pytest.mark.parametrize(("value", "route"), [(-0.3, "edge"), (-0.8, "cloud")])
def test_what_is_neither_is_judged_whole(value, route):
    """Between the thresholds nothing is shown before the gates have spoken."""
    made = Streams((value,) * 6)
    chunks, routed = streamed(made)
    assert routed.decision.route == route
    assert routed.decision.stage == "draft"
    assert chunks == ([] if route == "edge" else ["the", " cloud", " knows"])
    assert made.read["edge"] == 6


def test_without_log_probabilities_nothing_is_released():
    """No evidence, or impossible evidence, never commits."""
    for logprobs in (None, (float("nan"),) * 6, (-0.01, 0.7, -0.01, -0.01, -0.01, -0.01)):
        chunks, routed = streamed(Streams(logprobs))
        assert routed.decision.route == "cloud"
        assert "".join(chunks) == "the cloud knows"


REASONING = ("<th", "ink>", "Let", " me", " see", ".", "</think>", "\n\n")


def monitored(chunks, watch=RULE):
    monitor = DraftMonitor(watch)
    for chunk in chunks:
        monitor.add(chunk)
    return monitor.result


@pytest.mark.parametrize(
    ("value", "outcome", "tokens"), [(-0.01, "commit", 3), (-3.0, "cut", 2), (-0.5, "wait", 6)]
)
def test_reasoning_within_the_text_is_not_watched(value, outcome, tokens):
    """A draft of certain reasoning is judged by its answer: committed to, cut off or left to the gates."""
    pairs = [*((token, -0.001) for token in REASONING), *((word, value) for word in TEXT.split())]
    chunks = [ScoredTokens(logprobs=(nats,), tokens=(token,)) for token, nats in pairs]
    # The line break after the mark belongs to the text.
    seen = monitored(chunks)
    assert seen.outcome == outcome
    draft = Generation(
        text="".join(token for token, _ in pairs),
        tokens=tuple(token for token, _ in pairs),
        logprobs=tuple(nats for _, nats in pairs),
    )
    assert replay(RULE, draft).outcome == outcome
    assert monitored(chunks[len(REASONING) :]).tokens == tokens


def test_a_whole_draft_is_watched_by_the_tokens_of_its_text():
    """Reasoning that the text lacks is passed over; tokens that do not spell the text judge nothing."""
    draft = Generation(
        text=TEXT,
        tokens=(*REASONING, *Reply(text=TEXT).tokens),
        logprobs=(-0.001,) * len(REASONING) + (-3.0,) * 6,
    )
    assert replay(RULE, draft) == WatchResult(outcome="cut", tokens=2, nats=6.0)
    other = Generation(text="quite another", tokens=draft.tokens, logprobs=draft.logprobs)
    assert replay(RULE, other) == WatchResult(outcome="wait", tokens=0, nats=0.0)


def test_zeros_that_a_server_fills_in_never_commit():
    """Log-probabilities that are all exactly 0 were not computed."""
    chunks, routed = streamed(Streams((0.0,) * 6))
    assert "".join(chunks) == "the cloud knows"
    assert routed.decision.route == "cloud"
    assert monitored([(0.0, 0.0, 0.0, -1e-6)]).outcome == "commit"


def test_errors_before_and_after_the_commitment():
    """Before: the cloud answers. After: the stream breaks, and no other answer follows."""
    chunks, routed = streamed(Streams((-0.05,) * 6, fault=ConnectionError("x"), fault_after=2))
    assert "".join(chunks) == "the cloud knows"
    assert routed.decision.stage == "fallback"
    made = Streams((-0.05,) * 6, fault=ConnectionError("x"), fault_after=4)
    items = run_stream(POLICY, REQUEST, made.call, made.stream, ONCE, scores=scores)
    with record() as decisions:
        shown = [next(items)[0] for _ in range(4)]
        with pytest.raises(StreamInterruptedError):
            next(items)
    assert "".join(shown) == "one two three four"
    assert made.read["cloud"] == 0
    assert [d.stage for d in decisions] == ["failed"]


def test_a_draft_that_was_cut_off_never_stands_in():
    """on_cloud_error="edge" returns rejected drafts, but not half of one."""
    policy = Cascade(gates=POLICY.gates, prefix=RULE, on_cloud_error="edge")
    made = Streams((-3.0,) * 6, cloud_fault=ConnectionError("down"))
    with record() as decisions, pytest.raises(TierError, match="after the draft was rejected"):
        streamed(made, policy)
    assert decisions[0].stage == "failed"
    assert [step.kind for step in decisions[0].steps] == ["draft", "final"]


def test_early_close_closes_the_edge():
    """A caller that leaves after the first chunk stops the edge."""
    made = Streams((-0.05,) * 6)
    items = run_stream(POLICY, REQUEST, made.call, made.stream, ONCE, scores=scores)
    next(items)
    items.close()
    assert made.closed == ["edge"]
    assert made.read["edge"] == 3


@given(
    logprobs=st.lists(
        st.sampled_from([-0.01, -0.2, -0.6, -2.0, -5.0, float("nan"), 0.5]), min_size=6, max_size=6
    ),
    commit=st.sampled_from([0.05, 0.3, 1.0]),
    tokens=st.integers(2, 6),
)
@settings(max_examples=80)
def test_streamed_or_not_it_is_one_decision(logprobs, commit, tokens):
    """Watching and going through afterwards end alike: same route, stage, reason, measurements and answer."""
    rule = Prefix(commit=Threshold(value=commit), cut=Threshold(value=1.5), tokens=tokens, least=2)
    policy = Cascade(gates=POLICY.gates, prefix=rule)
    made = Streams(tuple(logprobs))
    whole = run(policy, REQUEST, made.call, ONCE)
    chunks, routed = streamed(made, policy)

    async def collect():
        items = arun_stream(policy, REQUEST, made.acall, made.astream, ONCE, scores=scores)
        return [item async for item in items]

    loop = asyncio.new_event_loop()
    *achunks, arouted = loop.run_until_complete(collect())
    loop.close()
    for other in (routed, arouted):
        for name in ("route", "stage", "reason", "signals", "uncertainty", "threshold"):
            assert getattr(other.decision, name) == getattr(whole.decision, name)
    assert [text for text, _ in achunks] == chunks
    shown = "".join(chunks) or routed.generation.text
    assert shown == whole.generation.text


def test_hosts_that_do_not_stream_drafts_decide_alike():
    """Without `scores` a draft is asked for whole and gone through afterwards."""
    calls = ScriptedCalls(
        models={"edge": ScriptedModel([Reply(text=TEXT, logprob=-3.0)]), "cloud": ScriptedModel(["c"])}
    )
    *chunks, routed = run_stream(POLICY, REQUEST, calls.call(REQUEST), calls.stream(REQUEST), ONCE)
    assert routed.decision.stage == "prefix"
    assert "".join(chunks) == "c"


def test_calls_that_must_be_judged_whole_are_not_watched():
    """Tool calls, structured values and calls with their own threshold go to the gates."""
    for request in (
        Request(messages=REQUEST.messages, whole=True),
        Request(messages=REQUEST.messages, threshold=9.0),
    ):
        made = Streams((-0.05,) * 6)
        chunks, routed = streamed(made, request=request)
        assert (chunks, routed.decision.stage) == ([], "draft")


def test_a_prefix_is_saved_and_refuses_nonsense(tmp_path):
    """It stands in policy files; thresholds and token counts in the wrong order are refused."""
    POLICY.save(tmp_path / "p.json")
    assert Cascade.load(tmp_path / "p.json") == POLICY
    for commit, cut, tokens, least in (
        (0.5, 0.1, 4, 2),
        (-1.0, 1.0, 4, 2),
        (0.1, 1.0, 2, 4),
        (0.1, 1.0, 2, 0),
    ):
        with pytest.raises(PolicyError):
            Prefix(commit=Threshold(value=commit), cut=Threshold(value=cut), tokens=tokens, least=least)
    assert RULE.of(Generation(text="", logprobs=(-0.3, -0.6, -0.9, -50.0)).logprobs) == pytest.approx(0.6)


async def test_a_watched_draft_leaves_the_next_tier_its_time():
    """Under a deadline the wait for an edge's first token is cut as that for a whole draft is, sync and async."""
    models = {"edge": ScriptedModel([Reply(text="late", latency_s=3.0)]), "cloud": ScriptedModel(["in time"])}
    calls = ScriptedCalls(models=models)
    limits = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1, expected_s=1.5)}
    with deadline(2.0):
        *_, routed = run_stream(
            POLICY, REQUEST, calls.call(REQUEST), calls.stream(REQUEST), limits, scores=lambda _: None
        )
    assert (routed.decision.route, routed.decision.stage) == ("cloud", "fallback")
    with deadline(2.0):
        items = arun_stream(
            POLICY, REQUEST, calls.acall(REQUEST), calls.astream(REQUEST), limits, scores=lambda _: None
        )
        routed = [item async for item in items][-1]
    assert (routed.decision.route, routed.decision.stage) == ("cloud", "fallback")
