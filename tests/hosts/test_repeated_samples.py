"""One sample of several fails: only it is drawn again, and all that was billed is counted."""

import asyncio
import threading

import pytest

from confroute import Cascade, Limits, SelfConsistency, record
from confroute.asks import Sample
from confroute.error_notes import noted_attempts, noted_usage
from confroute.executor import AsyncExecutor, Executor
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelFacts
from confroute.testing import ScriptedModel
from confroute.testing.faults import rate_limited, status
from confroute.types import Generation, Usage

BILL = Usage(input_tokens=5, output_tokens=3)
SAMPLES = Sample(tier="edge", n=5, temperature=0.7)
QUICK = Limits(attempts=3, wait_s=0.0)


class Failing:
    """A host's model whose calls of these numbers fail as often as is said, and whose answers are billed."""

    def __init__(self, times, error=rate_limited, **facts):
        self.facts = ModelFacts(model="small", asks_logprobs=False, **facts)
        self.times, self.error = dict(times), error
        self.drawn, self.billed = [], Usage()
        self.lock = threading.Lock()

    def call(self, call):
        with self.lock:
            self.drawn.append(call.drawn)
            if self.times.get(call.drawn, 0):
                self.times[call.drawn] -= 1
                raise self.error()
            self.billed += BILL
        return [Generation(text=f"{call.drawn}", usage=BILL)]

    async def acall(self, call):
        await asyncio.sleep(0)
        return self.call(call)


def evidence(model, form, limits=QUICK, at_once=None):
    """What five samples bring."""
    made = Dispatcher(models={"edge": model}, fallback=LogprobFallback(), at_once=at_once)
    if form == "sync":
        return Executor(call=made.call, limits={"edge": limits})(SAMPLES)
    return asyncio.run(AsyncExecutor(call=made.acall, limits={"edge": limits})(SAMPLES))


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("facts", [{}, {"concurrent": False}, {"thread_safe": False}, {"blocking": True}])
@pytest.mark.parametrize("times", [{2: 1}, {0: 1, 2: 1, 4: 1}, {3: 2}])
def test_only_what_failed_is_drawn_again(form, facts, times):
    """Five answers in their order, each number billed once, at the same time or one after the other."""
    model = Failing(times, **facts)
    got = evidence(model, form, limits=Limits(attempts=4, wait_s=0.0))
    assert [answer.text for answer in got.generations] == ["0", "1", "2", "3", "4"]
    assert len(model.drawn) == 5 + sum(times.values())
    assert sum((answer.usage for answer in got.generations), Usage()) == model.billed
    assert model.billed == Usage(input_tokens=25, output_tokens=15)
    assert got.attempts > 1


@pytest.mark.parametrize("form", ["sync", "async"])
def test_groups_resume_where_they_stopped(form):
    """With two calls at a time, the group that failed is completed, and the ones after it follow."""
    model = Failing({1: 1})
    got = evidence(model, form, at_once=2)
    assert [answer.text for answer in got.generations] == ["0", "1", "2", "3", "4"]
    assert sorted(model.drawn) == [0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("form", ["sync", "async"])
def test_what_was_billed_is_counted_where_the_ask_fails(form):
    """The error knows the bill of the samples that came, and how often they were asked for."""
    model = Failing({3: 9})
    with pytest.raises(Exception, match="429") as caught:
        evidence(model, form)
    assert noted_usage(caught.value) == model.billed == Usage(input_tokens=20, output_tokens=12)
    assert noted_attempts(caught.value) == 3
    assert sorted(model.drawn) == [0, 1, 2, 3, 3, 3, 4]


@pytest.mark.parametrize("form", ["sync", "async"])
def test_an_error_that_stays_is_not_asked_again(form):
    """A wrong key among samples ends the ask at once."""
    model = Failing({3: 1}, error=lambda: status(401))
    with pytest.raises(Exception, match="401"):
        evidence(model, form)
    assert sorted(model.drawn) == [0, 1, 2, 3, 4]


POLICY = Cascade.of(SelfConsistency(n=5, step=5), 0.3)


class Faulty(ScriptedModel):
    """Its third sample fails once or for ever."""

    def __init__(self, times):
        super().__init__(["4"], name="small")
        self.left, self.seen, self.lock = times, 0, threading.Lock()

    def reply(self, prompt, *, temperature=None):
        with self.lock:
            self.seen += 1
            if self.seen >= 4 and self.left:  # a draft and two samples before it
                self.left -= 1
                raise rate_limited()
        return super().reply(prompt, temperature=temperature)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
def test_the_decision_counts_what_was_billed(host, form):
    """In both hosts: one 429 costs one request more, and the bill is that of the answers."""
    script = Faulty(1)
    with record() as decisions:
        _ask(host, form, script)
    (decision,) = decisions
    (step,) = [step for step in decision.steps if step.kind == "sample"]
    assert (decision.route, step.n, step.attempts, script.seen) == ("edge", 5, 2, 7)
    assert decision.usage["edge"].output_tokens == 6


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
def test_the_decision_counts_samples_of_a_failed_ask(host, form):
    """The rate limit stays: the samples that came are paid and counted, the step says how often it was tried."""
    script = Faulty(99)
    with record() as decisions:
        _ask(host, form, script)
    (decision,) = decisions
    (step,) = [step for step in decision.steps if step.kind == "sample"]
    answered = 1 + step.usage.output_tokens
    assert (decision.route, step.n, step.attempts) == ("cloud", 0, 3)
    assert step.usage.output_tokens == 2
    assert decision.usage["edge"].output_tokens == answered


def _ask(host, form, script):
    limits = Limits(attempts=3, wait_s=0.0)
    if host == "langchain":
        from langchain_confroute import ChatConfRoute
        from langchain_confroute.testing import ScriptedChat

        router = ChatConfRoute(
            edge=ScriptedChat(script=script), cloud=ScriptedChat.of("four"), policy=POLICY, edge_limits=limits
        )
        return router.invoke("2 + 2?") if form == "sync" else asyncio.run(router.ainvoke("2 + 2?"))
    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    llm = ConfRouteLLM(
        edge=ScriptedLLM(model=script),
        cloud=ScriptedLLM(model=ScriptedModel(["four"], name="large")),
        policy=POLICY,
        edge_limits=limits,
    )
    return llm.complete("2 + 2?") if form == "sync" else asyncio.run(llm.acomplete("2 + 2?"))
