"""Decisions come in the order of the inputs, and each is tied to its answer."""

import asyncio
import time

import pytest
from langchain_core.runnables import RunnableLambda

from confroute import Cascade, Decision, TokenLogprob, record
from confroute.errors import TierError
from confroute.hosts.router import Router
from confroute.observe.log import DecisionLog, read_log
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

POLICY = Cascade.of(TokenLogprob(), 0.25)
COUNT = 6
QUESTIONS = [f"question {number}" for number in range(COUNT)]


def script():
    """The later a question, the sooner its answer, whose usage holds the question's number."""

    def reply(prompt):
        number = int(prompt.split()[-1])
        # One token more for each number.
        return Reply(text=" ".join(["a"] * (number + 1)), logprob=-0.01, latency_s=0.02 * (COUNT - number))

    return ScriptedModel(reply, name="small")


def chat_router():
    return ChatConfRoute(edge=ScriptedChat(script=script()), cloud=ScriptedChat.of("c"), policy=POLICY)


def chains():
    small = ScriptedChat(script=script(), logprobs=True)
    return ConfidenceRouter(edge=small, cloud=RunnableLambda(lambda question: "c"), policy=POLICY)


def numbers(decisions):
    """Which question each decision is about."""
    return [decision.usage["edge"].output_tokens - 1 for decision in decisions]


@pytest.mark.parametrize("made", [chat_router, chains, lambda: RunnableLambda(str) | chat_router()])
@pytest.mark.parametrize("concurrency", [None, 2])
def test_a_batch_is_in_the_order_of_its_inputs(made, concurrency):
    """Though its last input is answered first."""
    router = made()
    with record() as decisions:
        answers = router.batch(QUESTIONS, {"max_concurrency": concurrency})
        later = asyncio.run(router.abatch(QUESTIONS, {"max_concurrency": concurrency}))
    assert numbers(decisions) == [*range(COUNT)] * 2
    assert [len(answer.text.split()) - 1 for answer in [*answers, *later]] == [*range(COUNT)] * 2


def test_threads_that_start_late_keep_the_place_of_their_input(monkeypatch):
    """The first thread begins its call when all others have begun theirs."""
    router = chat_router()
    invoke = ChatConfRoute.invoke

    def late(self, given, config=None, **kwargs):
        time.sleep(0.3 if given == QUESTIONS[0] else 0)
        return invoke(self, given, config, **kwargs)

    monkeypatch.setattr(ChatConfRoute, "invoke", late)
    with record() as decisions:
        router.batch(QUESTIONS)
    assert numbers(decisions) == [*range(COUNT)]


def gathered(host):
    """Calls of a host, begun in order and awaited together."""
    if host == "langchain":
        router = chat_router()
        return [router.ainvoke(question) for question in QUESTIONS]
    if host == "llamaindex":
        llm = ConfRouteLLM(
            edge=ScriptedLLM(model=script()), cloud=ScriptedLLM(model=ScriptedModel()), policy=POLICY
        )
        return [llm.acomplete(question) for question in QUESTIONS]
    router = Router(edge=script(), cloud=lambda messages: "c", policy=POLICY)
    return [router.aask(question) for question in QUESTIONS]


@pytest.mark.parametrize("host", ["langchain", "llamaindex", "plain"])
def test_gathered_calls_are_in_the_order_of_their_beginning(host):
    """Each decision beside the answer of its own call, by place and by run id."""

    async def all_of_them():
        return await asyncio.gather(*gathered(host))

    with record() as decisions:
        answers = asyncio.run(all_of_them())
    assert numbers(decisions) == [*range(COUNT)]
    ids = [decision.run_id for decision in decisions]
    assert len(set(ids)) == COUNT
    assert [_run_id(answer) for answer in answers] == ids


def _run_id(answer):
    if hasattr(answer, "response_metadata"):
        return answer.response_metadata["confroute"]["run_id"]
    if hasattr(answer, "additional_kwargs"):
        return answer.additional_kwargs["confroute"]["run_id"]
    return answer.decision.run_id


def test_a_run_id_of_the_callers_own_is_the_decisions():
    """LangChain's config names it, and nothing is left of a batch's places."""
    import uuid

    from confroute.observe import trace

    own = uuid.uuid4()
    with record() as decisions:
        chat_router().invoke(QUESTIONS[0], {"run_id": own})
        chat_router().batch(QUESTIONS[:2])
    assert decisions[0].run_id == str(own)
    assert trace._reserved == {}
    kept = decisions[0].to_dict()
    assert Decision.from_dict(kept).run_id == str(own)


def test_a_failed_call_of_a_batch_keeps_its_place():
    """Its decision has an id too."""
    edge = ScriptedModel(lambda prompt: Reply(fault=ConnectionResetError()) if "1" in prompt else "a")
    router = ChatConfRoute(
        edge=ScriptedChat(script=edge),
        cloud=ScriptedChat(script=ScriptedModel([Reply(fault=ConnectionResetError())])),
        policy=POLICY,
        max_retries=0,
    )
    with record() as decisions:
        router.batch(QUESTIONS[:3], return_exceptions=True)
    assert [decision.stage for decision in decisions] == ["draft", "failed", "draft"]
    assert all(decision.run_id for decision in decisions)


def named(host):
    """Each question's id, as the user of this host gives it; and the decisions."""
    if host == "langchain":
        configs = [{"configurable": {"confroute_question_id": f"q{number}"}} for number in range(COUNT)]
        chat_router().batch(QUESTIONS, configs)
        asyncio.run(chains().abatch(QUESTIONS, configs))
        (RunnableLambda(str) | chat_router()).batch(QUESTIONS, configs)
    elif host == "llamaindex":
        from llama_index.core import Document, SummaryIndex
        from llama_index.core.instrumentation.dispatcher import instrument_tags

        llm = ConfRouteLLM(
            edge=ScriptedLLM(model=ScriptedModel(["small"])),
            cloud=ScriptedLLM(model=ScriptedModel()),
            policy=POLICY,
        )
        engine = SummaryIndex.from_documents([Document(text="A fact.")]).as_query_engine(llm=llm)

        async def one(number):
            with instrument_tags({"confroute": {"question_id": f"q{number}"}}):
                await engine.aquery(QUESTIONS[number])

        async def all_of_them():
            await asyncio.gather(*map(one, range(COUNT)))

        asyncio.run(all_of_them())
    else:
        router = Router(edge=script(), cloud=lambda messages: "c", policy=POLICY)
        for number, question in enumerate(QUESTIONS):
            router.ask(question, question_id=f"q{number}")
            list(router.stream(question, question_id=f"q{number}"))


@pytest.mark.parametrize("host", ["langchain", "llamaindex", "plain"])
def test_a_decision_has_the_users_own_name_of_its_question(host, tmp_path):
    """In `record()`, and in a log, which is read much later."""
    with DecisionLog(tmp_path / "log.jsonl"), record() as decisions:
        named(host)
    ids = {f"q{number}" for number in range(COUNT)}
    assert {decision.question_id for decision in decisions} == ids
    logged = [entry.decision for entry in read_log(tmp_path / "log.jsonl")]
    assert sorted(one.question_id for one in logged) == sorted(one.question_id for one in decisions)
    if host != "llamaindex":
        known = {f"q{number}": number for number in range(COUNT)}
        assert [known[one.question_id] for one in logged] == numbers(logged)


def test_a_failed_call_has_the_name_of_its_question():
    """A decision is wanted there most of all."""
    edge, cloud = (ScriptedModel([Reply(fault=ConnectionResetError())], name=name) for name in "ec")
    router = Router(edge=edge, cloud=cloud, policy=POLICY)
    with record() as decisions, pytest.raises(TierError):
        router.ask("?", question_id="q1")
    assert [decision.question_id for decision in decisions] == ["q1"]
