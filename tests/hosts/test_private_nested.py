"""What an outer router keeps private goes to the first tier alone, also where that is a router with a cloud of its own."""

import asyncio

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from confroute import Cascade, KeepPrivate, Router, SelfConsistency, TokenLogprob, record
from confroute.signals import PTrue
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

OUTER = Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(patterns=("secret",)),))
# They reject every draft of theirs, and ask for more of it.
INNER = {
    "logprob": Cascade.of(TokenLogprob(), 0.25),
    "samples": Cascade.of(SelfConsistency(n=2), 0.1),
    "prompt": Cascade.of(PTrue(), 0.1),
}
FORMS = ("whole", "async", "stream", "astream")


class Models:
    """The innermost edge, the inner router's cloud and the outer one's."""

    def __init__(self):
        self.small = ScriptedModel([Reply(text="small", logprob=-3.0)], samples=["a", "b"], name="small")
        self.inner_cloud = ScriptedModel(["inner cloud"], name="mid")
        self.cloud = ScriptedModel(["cloud"], name="large")

    def chain(self, inner):
        small, mid, large = (
            ScriptedChat(script=one, model=one.name) for one in (self.small, self.inner_cloud, self.cloud)
        )
        edge = ChatConfRoute(edge=small, cloud=mid, policy=inner)
        return lambda cls: cls(edge=edge, cloud=large, policy=OUTER)

    def langchain(self, inner):
        return self.chain(inner)(ChatConfRoute)

    def chains(self, inner):
        return self.chain(inner)(ConfidenceRouter)

    def llamaindex(self, inner):
        small, mid, large = (ScriptedLLM(model=one) for one in (self.small, self.inner_cloud, self.cloud))
        return ConfRouteLLM(edge=ConfRouteLLM(edge=small, cloud=mid, policy=inner), cloud=large, policy=OUTER)

    def plain(self, inner):
        mid = ScriptedChat(script=self.inner_cloud, model="mid")
        edge = ChatConfRoute(edge=ScriptedChat(script=self.small, model="small"), cloud=mid, policy=inner)
        return Router(edge=edge, cloud=self.cloud, policy=OUTER)


async def drained(items):
    return [item async for item in items]


def ask(router, form, text):
    """One call in one of four forms."""
    if isinstance(router, ConfRouteLLM):
        whole, async_, stream, astream = (
            router.complete,
            router.acomplete,
            router.stream_complete,
            router.astream_complete,
        )
    elif isinstance(router, Router):
        whole, async_, stream, astream = router.ask, router.aask, router.stream, router.astream
    else:
        whole, async_, stream, astream = router.invoke, router.ainvoke, router.stream, router.astream
    if form == "whole":
        return whole(text)
    if form == "async":
        return asyncio.run(async_(text))
    if form == "stream":
        return list(stream(text))

    async def all_of():
        items = astream(text)
        return await drained(await items if asyncio.iscoroutine(items) else items)

    return asyncio.run(all_of())


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", ["langchain", "chains", "llamaindex", "plain"])
def test_a_router_inside_the_edge_keeps_to_its_own_edge(host, form, inner):
    """Its policy would escalate every call; a private one ends at the innermost edge, and both records say so."""
    models = Models()
    router = getattr(models, host)(INNER[inner])
    with record() as decisions:
        ask(router, form, "a secret")
    assert [len(one.calls) for one in (models.inner_cloud, models.cloud)] == [0, 0]
    (outer,) = decisions
    (nested,) = outer.steps[-1].inner
    assert [(one.route, one.private) for one in (outer, nested)] == [("edge", True)] * 2
    with record() as decisions:
        ask(router, form, "hello")
    assert decisions[0].private is False
    assert models.inner_cloud.calls


@pytest.mark.parametrize("form", FORMS)
def test_a_policy_that_insists_gets_an_error_instead(form):
    """A policy of the user's own inside may ignore the route that it is given: the executor refuses its ask."""
    from confroute.asks import Final
    from confroute.decision import Decision, Routed

    class Insists:
        """Always the cloud."""

        def flow(self, request):
            evidence = yield Final(tier="cloud")
            return Routed(
                generation=evidence.generations[0],
                decision=Decision(route="cloud", stage="forced", reason="mine"),
            )

    models = Models()
    router = models.langchain(Insists())
    with pytest.raises(Exception, match="private"):
        ask(router, form, "a secret")
    assert [len(one.calls) for one in (models.inner_cloud, models.cloud)] == [0, 0]
