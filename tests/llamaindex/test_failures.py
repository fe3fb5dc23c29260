"""What goes wrong, and where it leads: an error that says so, or a documented route; never a wrong confident answer."""

import asyncio

import pytest
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Limits, TokenLogprob, record
from confroute.errors import (
    AllTiersFailedError,
    PolicyError,
    RequestError,
    StreamInterruptedError,
    TierError,
    TierTimeoutError,
)
from confroute.testing import Reply

USER = [ChatMessage(role="user", content="Which city?")]
LENIENT = Cascade.of(TokenLogprob(), 0.3, on_cloud_error="edge")


def test_edge_down(kit):
    """The cloud answers and the decision says why."""
    decision = kit.decision(kit.router(kit.down()).chat(USER))
    assert (decision["route"], decision["stage"]) == ("cloud", "fallback")
    assert "small" not in decision["reason"]
    assert "ConnectionError" in decision["reason"]


def test_edge_down_and_told_to_raise(kit):
    """The edge's own error."""
    with pytest.raises(ConnectionError, match="refused"):
        kit.router(kit.down(), policy=Cascade.of(TokenLogprob(), 0.3, on_edge_error="raise")).chat(USER)


@pytest.mark.parametrize("stream", [False, True])
def test_cloud_down_after_a_rejected_draft(kit, stream):
    """One error that holds both causes."""
    llm = kit.router(kit.unsure(), kit.down(name="large"))
    with pytest.raises(
        TierError, match=r"cloud failed .*refused.* after the draft was rejected: token logprob"
    ):
        list(llm.stream_chat(USER)) if stream else llm.chat(USER)


@pytest.mark.parametrize("stream", [False, True])
def test_cloud_down_and_the_draft_will_do(kit, stream):
    """The rejected draft, flagged."""
    llm = kit.router(kit.unsure(), kit.down(name="large"), policy=LENIENT)
    response = list(llm.stream_chat(USER))[-1] if stream else llm.chat(USER)
    assert response.message.content == "edge may be wrong"
    assert kit.decision(response)["degraded"]


async def test_both_down(kit):
    """One error that names both."""
    llm = kit.router(kit.down(OSError("edge cable")), kit.down(OSError("cloud cable"), name="large"))
    with pytest.raises(AllTiersFailedError, match=r"edge: OSError: edge cable; cloud: OSError: cloud cable"):
        await llm.achat(USER)


def test_retries_are_transient_only(kit):
    """A refused connection is tried again, a wrong request is not."""
    limits = Limits(attempts=3, wait_s=0.001)
    edge = kit.scripted(Reply(fault=ConnectionError("refused")), "back again", name="small")
    assert kit.decision(kit.router(edge, edge_limits=limits).chat(USER))["steps"][0]["attempts"] == 2
    edge = kit.scripted(Reply(fault=ValueError("bad request")), "back again", name="small")
    assert kit.decision(kit.router(edge, edge_limits=limits).chat(USER))["route"] == "cloud"
    assert len(edge.model.calls) == 1


@pytest.mark.parametrize("form", ["chat", "achat"])
async def test_silent_edge(kit, silence, form):
    """Given up after its time limit, though it never answers."""
    edge = kit.held("late", thread=silence.wait, task=silence.await_end)
    llm = kit.router(edge, edge_limits=Limits(timeout_s=0.05, attempts=1))
    response = await llm.achat(USER) if form == "achat" else llm.chat(USER)
    assert "TierTimeoutError" in kit.decision(response)["reason"]


def test_silent_edge_with_nowhere_to_go(kit, silence):
    """A forced route has no other tier."""
    edge = kit.held("late", thread=silence.wait)
    llm = kit.router(edge, edge_limits=Limits(timeout_s=0.05, attempts=1))
    with pytest.raises(TierTimeoutError, match=r"'edge' gave no answer within 0\.05 s"):
        llm.chat(USER, confroute_route="edge")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_cloud_breaks_off_in_the_middle(kit, asynchronous):
    """What was shown cannot be taken back: an error, no second answer."""
    large = kit.scripted(Reply(text="one two three", fault=OSError("cut"), fault_after=2), name="large")
    llm, shown = kit.router(kit.unsure(), large, policy=LENIENT), []

    async def watch():
        if asynchronous:
            async for chunk in await llm.astream_chat(USER):
                shown.append(chunk.delta)
        else:
            shown.extend(chunk.delta for chunk in llm.stream_chat(USER))

    with pytest.raises(StreamInterruptedError, match="OSError: cut"):
        await watch()
    assert "edge" not in "".join(shown)


def test_cloud_breaks_before_its_first_word(kit):
    """Nothing was shown yet: the policy still has its say."""
    large = kit.scripted(Reply(text="one", fault=OSError("cut")), name="large")
    *_, last = kit.router(kit.unsure(), large, policy=LENIENT).stream_chat(USER)
    assert kit.decision(last)["degraded"]


@pytest.mark.parametrize(
    ("logprobs", "why"),
    [
        ((float("nan"), -0.1, -0.1), "log-probability nan"),
        ((float("-inf"), -0.1, -0.1), "log-probability -inf"),
        ((0.7, -0.1, -0.1), "log-probability 0.7"),
        ((), "returned no log-probabilities"),
    ],
)
def test_log_probabilities_that_are_none(kit, logprobs, why):
    """Never read as confidence."""
    edge = kit.scripted(Reply(text="one two three", logprobs=logprobs), name="small")
    decision = kit.decision(kit.router(edge).chat(USER))
    assert (decision["route"], decision["stage"]) == ("cloud", "no_signal")
    assert why in decision["skipped"]["token_logprob"]


def test_log_probabilities_of_a_part(kit):
    """Fewer than tokens were billed: the rest of the answer is unscored."""
    edge = kit.scripted(Reply(text="one two three four five six", logprobs=(-0.01, -0.01)), name="small")
    decision = kit.decision(kit.router(edge).chat(USER))
    assert "2 log-probabilities for 6 generated tokens" in decision["skipped"]["token_logprob"]


@pytest.mark.parametrize(
    "messages", [[], [ChatMessage(role="user", content="")], [ChatMessage(role="user", content=7)]]
)
def test_empty_conversation(kit, messages):
    """Nothing to answer, told before any call."""
    edge = kit.sure()
    with pytest.raises(RequestError, match="conversation is empty"):
        kit.router(edge).chat(messages)
    assert edge.model.calls == []


@pytest.mark.parametrize("messages", ["Which city?", [{"role": "user", "content": "x"}]])
def test_messages_that_are_none(kit, messages):
    """Named with what was expected."""
    with pytest.raises(RequestError, match=r"messages\[0\] is a (str|dict): expected ChatMessage"):
        kit.router().chat(messages)


def test_prompt_that_is_none(kit):
    """Named with what was expected."""
    with pytest.raises(RequestError, match="the prompt is a list"):
        kit.router().complete(["x"])


def test_empty_answer_of_the_edge(kit):
    """Is no answer."""
    decision = kit.decision(kit.router(kit.scripted(Reply(text=" "), name="small")).chat(USER))
    assert (decision["route"], decision["stage"]) == ("cloud", "fallback")


def test_prompt_longer_than_the_edge_can_hold(kit):
    """Goes to the cloud without a draft; the answer's room counts."""
    edge = kit.sure(context_window=300, num_output=100)
    llm = kit.router(edge)
    decision = kit.decision(llm.complete("word " * 150))
    assert (decision["route"], decision["rule"]) == ("cloud", "capability")
    assert "longer than the context of edge (200)" in decision["reason"]
    assert edge.model.calls == []
    assert kit.decision(llm.complete("word " * 50))["route"] == "edge"


def test_images_go_to_a_model_that_may_read_them(kit):
    """A `CustomLLM` would silently drop them."""
    picture = ChatMessage(role="user", blocks=[ImageBlock(image=b"x", image_mimetype="image/png")])
    decision = kit.decision(kit.router(MockLLM()).chat([picture]))
    assert "cannot do images and files" in decision["reason"]
    assert kit.decision(kit.router().chat([*USER, picture]))["route"] == "edge"


async def test_cancelling_closes_everything(kit, until):
    """A cancelled call leaves a decision that says so, and no task and no stream."""
    edge = kit.scripted(Reply(text="slow", latency_s=60), name="small")
    with record() as decisions:
        task = asyncio.create_task(kit.router(edge).achat(USER))
        await until(lambda: edge.model.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [decision.stage for decision in decisions] == ["cancelled"]
    assert [other for other in asyncio.all_tasks() if other is not asyncio.current_task()] == []


def test_closing_a_stream_closes_the_child_s(kit):
    """At once, with a decision that says so."""
    large = kit.cloud("one two three four")
    with record() as decisions:
        stream = kit.router(kit.unsure(), large).stream_chat(USER)
        assert next(stream).delta == "one"
        assert large.open_streams == 1
        stream.close()
    assert (large.open_streams, [one.stage for one in decisions]) == (0, ["abandoned"])


@pytest.mark.parametrize("blocking", [False, True])
async def test_closing_an_async_stream_closes_the_child_s(kit, until, blocking):
    """In a thread as well."""
    edge = kit.sure("one two three four")
    llm = kit.router(edge, edge_in_thread=blocking)
    stream = await llm.astream_complete("x", confroute_route="edge")
    assert (await anext(stream)).delta == "one"
    assert edge.open_streams == 1
    await stream.aclose()
    await until(lambda: edge.open_streams == 0)


def test_edge_and_cloud_must_differ(kit):
    """One object, or two that would answer alike."""
    edge = kit.sure()
    with pytest.raises(PolicyError, match="edge and cloud are the same model"):
        kit.router(edge, edge)
    named = [OpenAILike(model="gpt-x", api_base="http://localhost:1/v1", api_key="k") for _ in range(2)]
    with pytest.raises(PolicyError, match=r"same model \(gpt-x\)"):
        kit.router(*named)
    with pytest.raises(PolicyError, match="edge and cloud are the same model"):
        kit.router(MockLLM(max_tokens=3), MockLLM(max_tokens=3))
    kit.router(MockLLM(max_tokens=3), MockLLM(max_tokens=4))


def test_what_is_no_model_or_policy(kit):
    """Named with what was expected."""
    with pytest.raises(PolicyError, match="edge is a str: expected a LlamaIndex LLM"):
        kit.router("small")
    for name in ("local:smollm2-135m", "smollm2-135m"):
        with pytest.raises(PolicyError, match=r"such as LocalLLM\(model='smollm2-135m'\)"):
            kit.router(name)
    with pytest.raises(PolicyError, match="policy is a str"):
        kit.router(policy="cascade")
    with pytest.raises(PolicyError, match="expected edge and cloud"):
        kit.router(policy=Cascade(tiers=("edge", "mid", "cloud")))


def test_child_with_a_system_prompt(kit):
    """LlamaIndex would ignore it."""
    with pytest.warns(UserWarning, match="edge model has a system_prompt") as caught:
        kit.router(kit.sure(system_prompt="Be brief."))
    assert caught[0].filename.endswith("conftest.py")
