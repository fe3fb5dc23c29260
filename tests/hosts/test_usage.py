"""What an answer was billed, as the three hosts read it: cached and reasoning tokens, and bills that cannot be."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Cascade, Limits, SelfConsistency, TokenLogprob
from confroute.budget import Budget, Paced
from confroute.decision import read_billed
from confroute.hosts.router import Router
from confroute.models.provider_answers import read_usage
from confroute.prices import Price
from confroute.recording.rows import billed
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel
from confroute.types import Generation, Usage

POLICY = Cascade.of(TokenLogprob(), 0.1)
BILL = Usage(
    input_tokens=1000, output_tokens=300, cached_tokens=900, reasoning_tokens=250, cache_write_tokens=60
)
HOSTS = ("plain", "langchain", "llamaindex")
FORMS = ("whole", "async", "stream", "astream")


def edge():
    """A model whose draft is rejected."""
    return ScriptedModel([Reply(text="four?", logprob=-3.0)], name="small")


def decided(host, form, cloud, policy=POLICY):
    """The decision of one call of a host whose cloud gives `cloud`."""
    cloud = ScriptedModel([cloud], name="large")
    if host == "plain":
        return _plain(form, Router(edge=edge(), cloud=cloud, policy=policy))
    if host == "langchain":
        from langchain_confroute import ChatConfRoute
        from langchain_confroute.testing import ScriptedChat

        router = ChatConfRoute(
            edge=ScriptedChat(script=edge()), cloud=ScriptedChat(script=cloud), policy=policy
        )
        return _recorded(lambda: _langchain(form, router))
    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    llm = ConfRouteLLM(edge=ScriptedLLM(model=edge()), cloud=ScriptedLLM(model=cloud), policy=policy)
    return _recorded(lambda: _llamaindex(form, llm))


def _recorded(call):
    from confroute import record

    with record() as decisions:
        call()
    (decision,) = decisions
    return decision


async def _collected(items):
    return [item async for item in items]


def _plain(form, router):
    if form == "whole":
        return router.ask("2 + 2?").decision
    if form == "async":
        return asyncio.run(router.aask("2 + 2?")).decision
    stream = router.stream("2 + 2?") if form == "stream" else router.astream("2 + 2?")
    list(stream) if form == "stream" else asyncio.run(_collected(stream))
    return stream.decision


def _langchain(form, router):
    if form == "whole":
        return router.invoke("2 + 2?")
    if form == "async":
        return asyncio.run(router.ainvoke("2 + 2?"))
    return (
        list(router.stream("2 + 2?"))
        if form == "stream"
        else asyncio.run(_collected(router.astream("2 + 2?")))
    )


def _llamaindex(form, llm):
    if form == "whole":
        return llm.complete("2 + 2?")
    if form == "async":
        return asyncio.run(llm.acomplete("2 + 2?"))
    if form == "stream":
        return list(llm.stream_complete("2 + 2?"))

    async def streamed():
        return await _collected(await llm.astream_complete("2 + 2?"))

    return asyncio.run(streamed())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
def test_cached_and_reasoning_tokens_reach_the_decision(host, form):
    """As the provider reports them, beside the counts that they are part of."""
    decision = decided(host, form, Reply(text="four", usage=BILL))
    assert decision.usage["cloud"] == BILL
    assert decision.to_dict()["usage"]["cloud"] == {
        "input_tokens": 1000,
        "output_tokens": 300,
        "cached_tokens": 900,
        "reasoning_tokens": 250,
        "cache_write_tokens": 60,
    }
    assert type(decision).from_dict(decision.to_dict()).usage == decision.usage


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_bill_below_nothing_is_not_a_bill(host, form):
    """Such a usage counts as not reported: the budget is charged its worst case and nothing comes back."""
    budget = Budget(limit=0.01, unit="usd")
    paced = Paced(
        policy=POLICY,
        budgets=(budget,),
        price=Price(input_usd=1, output_usd=1),
        max_output_tokens=100,
        store=MemoryStore(),
    )
    refund = Usage(input_tokens=-3_000_000, output_tokens=2)
    decision = decided(host, form, Reply(text="four", usage=refund), paced)
    note = decision.layers["budget"][budget.name]
    assert "cloud" not in decision.usage
    assert note["charged"] > 0
    assert note["left"] < 0.01


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        # OpenAI's chat and Responses.
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            (9, 5, 8, 4),
        ),
        (
            {
                "input_tokens": 9,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 8},
                "output_tokens_details": {"reasoning_tokens": 4},
            },
            (9, 5, 8, 4),
        ),
        # DeepSeek.
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 8}, (9, 5, 8, 0)),
        # Anthropic counts what it reads from and writes to its cache beside the input.
        (
            {
                "input_tokens": 1,
                "output_tokens": 5,
                "cache_read_input_tokens": 8,
                "cache_creation_input_tokens": 2,
            },
            (11, 5, 8, 0),
        ),
        (
            {"input_tokens": 9, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 4}},
            (9, 5, 0, 4),
        ),
        # Gemini counts thoughts beside the answer, in the names of its JSON and of its client.
        (
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 1,
                "cachedContentTokenCount": 8,
                "thoughtsTokenCount": 4,
            },
            (9, 5, 8, 4),
        ),
        (
            {
                "prompt_token_count": 9,
                "candidates_token_count": 1,
                "cached_content_token_count": 8,
                "thoughts_token_count": 4,
            },
            (9, 5, 8, 4),
        ),
        # LangChain.
        (
            {
                "input_tokens": 9,
                "output_tokens": 5,
                "input_token_details": {"cache_read": 8, "cache_creation": 1},
                "output_token_details": {"reasoning": 4},
            },
            (9, 5, 8, 4),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None}, (9, 5, 0, 0)),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -8}},
            (9, 5, 0, 0),
        ),
    ],
)
def test_details_of_providers(reported, expected):
    """Each provider's own place of cached and reasoning tokens."""
    usage = read_usage(reported)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == expected


LANGCHAIN = {"input_tokens": 9, "output_tokens": 5}


@pytest.mark.parametrize(
    ("reported", "input_tokens", "written"),
    [
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 2}},
            9,
            2,
        ),
        ({**LANGCHAIN, "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2}}, 9, 1),
        ({**LANGCHAIN, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 2}, 19, 2),
        (
            {
                **LANGCHAIN,
                "cache_creation_input_tokens": 2,
                "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 0},
            },
            11,
            2,
        ),
        ({**LANGCHAIN, "input_token_details": {"cache_creation": 2}}, 9, 2),
        ({**LANGCHAIN, "input_token_details": {"flex_cache_creation": 2, "flex": 7}}, 9, 2),
        (
            {
                **LANGCHAIN,
                "input_token_details": {
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 2,
                    "ephemeral_1h_input_tokens": 1,
                },
            },
            9,
            3,
        ),
    ],
)
def test_written_tokens_of_providers(reported, input_tokens, written):
    """Each provider's own place of the tokens that it wrote to its cache."""
    usage = read_usage(reported)
    assert (usage.input_tokens, usage.cache_write_tokens) == (input_tokens, written)


@pytest.mark.parametrize("tier", ["", "priority_", "flex_"])
def test_langchains_classes_of_service(tier):
    """Written before the names of the parts."""
    input_ = {f"{tier}cache_read": 8}
    output = {f"{tier}reasoning": 4}
    usage = read_usage({**LANGCHAIN, "input_token_details": input_, "output_token_details": output})
    assert (usage.cached_tokens, usage.reasoning_tokens) == (8, 4)


counts = st.integers(0, 10**7)


@given(counts, counts, counts, counts, counts)
def test_no_part_of_a_bill_is_larger_than_the_whole(sent, made, cached, written, reasoning):
    """Whatever a server says; and at prices no higher than for other tokens a bill never exceeds the plain one."""
    told = {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    usage = read_usage(told) or Usage()
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.reasoning_tokens <= usage.output_tokens
    plain = Price(input_usd=3, output_usd=15)
    discounted = Price(input_usd=3, output_usd=15, cached_usd=0.3, cache_write_usd=3, reasoning_usd=15)
    said = Usage(input_tokens=sent, output_tokens=made, cached_tokens=cached, cache_write_tokens=written)
    for bill in (usage, said):
        assert 0 <= discounted.of(bill) <= plain.of(bill) + 1e-12
    assert plain.of(usage) == pytest.approx(plain.of(Usage(input_tokens=sent, output_tokens=made)))


def test_files_without_the_newer_counts_still_load():
    """And a bill without any is written as before."""
    old = {"input_tokens": 7, "output_tokens": 2}
    assert read_billed(old, "usage") == Usage(input_tokens=7, output_tokens=2)
    assert Usage(input_tokens=7, output_tokens=2).to_dict() == old
    assert billed(old) == Usage(input_tokens=7, output_tokens=2)
    assert billed(BILL.to_dict()) == BILL


@pytest.mark.parametrize(
    "reported",
    [
        {"prompt_tokens": -5, "completion_tokens": 2},
        {"prompt_tokens": 5, "completion_tokens": -2},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": True, "completion_tokens": True},
        {"total_cost": 0},
    ],
)
def test_what_is_not_a_bill(reported):
    """Counts below 0, none of either, or no counts at all."""
    assert read_usage(reported) is None


def test_cached_and_reasoning_tokens_are_billed_at_their_own_price():
    """Where there is one; never more of them than there are tokens."""
    price = Price(input_usd=10, output_usd=40, cached_usd=1, reasoning_usd=20, cache_write_usd=12.5)
    assert price.of(BILL) == pytest.approx((40 * 10 + 900 * 1 + 60 * 12.5 + 50 * 40 + 250 * 20) / 1e6)
    assert Price(input_usd=10, output_usd=40).of(BILL) == pytest.approx((1000 * 10 + 300 * 40) / 1e6)
    assert price.of(Usage(input_tokens=5, cached_tokens=9)) == pytest.approx(5 / 1e6)


def test_list_prices_know_cached_tokens():
    """The list has a rate of cached input for this model, and none of reasoning."""
    price = Price.listed("gpt-4o-mini", provider="openai")
    assert (price.cached_usd, price.reasoning_usd, price.cache_write_usd) == (0.075, None, None)
    written = Price.listed("claude-sonnet-4-5", provider="anthropic")
    assert (written.cached_usd, written.cache_write_usd) == (0.3, 3.75)


def test_an_error_that_is_raised_again_brings_no_bill_of_another_call():
    """Functions raise one object time and again: what was billed beside it belongs to the call that it ended."""
    down = ConnectionError("down")

    def edge(messages, temperature):
        if temperature and next(calls) % 3 == 2:
            raise down
        return Generation(text="4", usage=Usage(input_tokens=100, output_tokens=1))

    calls, once = itertools.count(), Limits(attempts=1)
    policy = Cascade.of(SelfConsistency(n=3, step=3), 0.3)
    router = Router(edge=edge, cloud=lambda messages: "four", policy=policy, edge_limits=once)
    bills = [router.ask("2 + 2?").decision.usage["edge"].input_tokens for _ in range(3)]
    assert bills == [300, 300, 300]
