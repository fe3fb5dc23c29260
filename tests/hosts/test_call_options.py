"""Every option of one call, every mistake in one, and the windows: the same in all hosts, sync, async and streamed."""

import asyncio
from dataclasses import dataclass, field

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import NodeWithScore, TextNode

from confroute import Cascade, Router, TokenLogprob
from confroute.errors import RequestError
from confroute.flow import Policy
from confroute.testing import Reply, ScriptedModel
from confroute.types import Context
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

FORMS = ("call", "acall", "stream", "astream")


@dataclass
class DraftMonitor(Policy):
    """A cascade that keeps the requests it is given."""

    requests: list = field(default_factory=list)
    cascade: Cascade = field(default_factory=lambda: Cascade.of(TokenLogprob(), 0.3))

    def flow(self, request):
        """As the cascade's."""
        self.requests.append(request)
        return self.cascade.flow(request)


class Sized(ScriptedModel):
    """A model without a framework that says how much it can hold."""

    context_window = max_tokens = None


async def consumed(made, form):
    """Wait for an answer, or for all of a stream."""
    if form == "call":
        return
    if form == "stream":
        list(made)
        return
    made = await made if asyncio.iscoroutine(made) else made
    if form == "astream":
        _ = [item async for item in made]


class Host:
    """One host between two scripted models; `windows` are (window, longest answer) by tier."""

    prefix = "confroute_"
    documents = ("passage",)

    def __init__(self, windows=None):
        """Build it anew: scripts move on with each call."""
        self.policy = DraftMonitor()
        self.scripts = {
            "edge": Sized([Reply(text="edge", logprob=-1.0)], name="small"),
            "cloud": Sized(["cloud"], name="large"),
        }
        self.router = self.build(**self.models(windows or {}), policy=self.policy)

    def method(self, form):
        """The host's own name of a form."""
        return self.methods[FORMS.index(form)]

    @property
    def tiers_called(self):
        """Who was asked."""
        return [name for name, script in self.scripts.items() if script.calls]


class LangChainHost(Host):
    """Options in `config["configurable"]`."""

    documents = (Document("passage"),)
    methods = ("invoke", "ainvoke", "stream", "astream")

    def models(self, windows):
        """With a profile."""
        return {name: self.model(script, windows.get(name)) for name, script in self.scripts.items()}

    def model(self, script, window):
        """One chat model."""
        made = ScriptedChat(script=script, model=script.name)
        if window is None:
            return made
        return made.model_copy(update={"profile": {"max_input_tokens": window[0]}, "max_tokens": window[1]})

    def send(self, form, options, text="q"):
        """In one form."""
        return getattr(self.router, self.method(form))([HumanMessage(text)], {"configurable": options})


class Chat(LangChainHost):
    """`ChatConfRoute`."""

    build = ChatConfRoute

    @property
    def window(self):
        """What agents and memories read."""
        return (self.router.profile or {}).get("max_input_tokens")


class Chains(LangChainHost):
    """`ConfidenceRouter`: whole chains, of whose windows nothing is known."""

    def build(self, edge, cloud, policy):
        """Chains around the models."""
        edge = edge.model_copy(update={"logprobs": True})
        return ConfidenceRouter(edge=edge | StrOutputParser(), cloud=cloud | StrOutputParser(), policy=policy)


class LlamaIndex(Host):
    """Options as keyword arguments."""

    documents = (NodeWithScore(node=TextNode(text="passage")),)
    methods = ("chat", "achat", "stream_chat", "astream_chat")
    build = ConfRouteLLM

    def models(self, windows):
        """With metadata."""
        models = {name: ScriptedLLM(model=script) for name, script in self.scripts.items()}
        for name, (window, answer) in windows.items():
            models[name].context_window, models[name].num_output = window, answer
        return models

    def send(self, form, options, text="q"):
        """In one form."""
        return getattr(self.router, self.method(form))([ChatMessage(role="user", content=text)], **options)

    @property
    def window(self):
        """What engines and memories read."""
        return self.router.metadata.context_window


class Plain(Host):
    """`Router`: options are its own parameters."""

    prefix = ""
    methods = ("ask", "aask", "stream", "astream")
    build = Router

    def models(self, windows):
        """As the models say of themselves."""
        for name, (window, answer) in windows.items():
            self.scripts[name].context_window, self.scripts[name].max_tokens = window, answer
        return self.scripts

    def send(self, form, options, text="q"):
        """In one form; its context is the documents."""
        context = options.get("context")
        if isinstance(context, dict):
            options = {name: value for name, value in options.items() if name != "context"}
            options |= {"question": context.get("question"), "context": context.get("documents")}
        return getattr(self.router, self.method(form))(text, **options)


HOSTS = (Chat, Chains, LlamaIndex, Plain)
every_host = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)
every_form = pytest.mark.parametrize("form", FORMS)


def named(host, options):
    """Options under the names that this host has for them."""
    return {f"{host.prefix}{name}": value for name, value in options.items()}


@every_host
@every_form
@pytest.mark.parametrize(
    ("option", "value", "fields", "asked"),
    [
        ("route", "edge", {"route": "edge"}, ["edge"]),
        ("route", "cloud", {"route": "cloud"}, ["cloud"]),
        ("route", "auto", {"route": None}, ["edge", "cloud"]),
        ("route", None, {"route": None}, ["edge", "cloud"]),
        ("threshold", 2, {"threshold": 2.0}, ["edge"]),
        ("threshold", {"token_logprob": 2}, {"threshold": {"token_logprob": 2.0}}, ["edge"]),
        ("tags", ["hard"], {"tags": frozenset({"hard"})}, ["edge", "cloud"]),
        ("purpose", "refine", {"purpose": "refine"}, ["edge", "cloud"]),
    ],
)
async def test_an_option_reaches_the_policy(host, form, option, value, fields, asked):
    """With the same value, and has the same effect."""
    made = host()
    await consumed(made.send(form, named(host, {option: value})), form)
    (request,) = made.policy.requests
    assert {name: getattr(request, name) for name in fields} == fields
    assert made.tiers_called == asked


@every_host
@every_form
async def test_what_was_retrieved_reaches_the_policy(host, form):
    """Texts, pairs with scores and the host's own documents."""
    for documents, context in (
        (["a", "b"], Context(passages=("a", "b"))),
        ([("a", 1), ("b", 0.5)], Context(passages=("a", "b"), scores=(1.0, 0.5))),
        ([*host.documents, "b"], Context(passages=("passage", "b"))),
    ):
        made = host()
        given = {"context": {"question": "Why?", "documents": documents}}
        await consumed(made.send(form, named(host, given)), form)
        (request,) = made.policy.requests
        assert (request.question, request.context) == ("Why?", context)


MISTAKES = [
    {"route": "moon"},
    {"route": True},
    {"route": ["edge"]},
    {"threshold": True},
    {"threshold": "high"},
    {"threshold": {"token_logprob": True}},
    {"tags": "hard"},
    {"tags": [1]},
    {"purpose": 3},
    {"context": {"question": 3}},
    {"context": {"documents": "text"}},
    {"context": {"documents": [3]}},
    {"context": {"documents": [("a", True)]}},
]


@every_host
@every_form
@pytest.mark.parametrize("options", MISTAKES, ids=str)
async def test_a_wrong_value_is_refused(host, form, options):
    """Before any model is asked."""
    made = host()
    with pytest.raises(RequestError, match="expected"):
        await consumed(made.send(form, named(host, options)), form)
    assert made.tiers_called == []


@every_host
@every_form
@pytest.mark.parametrize("name", ["rout", "Route", "treshold", "tag", "purposes", "contxt"])
async def test_a_misspelt_option_is_refused(host, form, name):
    """It must neither be ignored nor be sent to a model."""
    made = host()
    with pytest.raises(TypeError if host is Plain else RequestError, match=f"{host.prefix}{name}"):
        await consumed(made.send(form, named(host, {name: "edge"})), form)
    assert made.tiers_called == []


@pytest.mark.parametrize("host", [Chat, Chains], ids=lambda host: host.__name__)
@every_form
async def test_langchain_takes_options_in_the_config_only(host, form):
    """Bound arguments would lose them."""
    made = host()
    with pytest.raises(RequestError, match="configurable"):
        await consumed(getattr(made.router, made.method(form))("q", confroute_route="edge"), form)
    assert made.tiers_called == []


@pytest.mark.parametrize("host", [Chat, LlamaIndex], ids=lambda host: host.__name__)
@pytest.mark.parametrize(("edge", "cloud"), [(100, 400), (400, 100)])
def test_the_advertised_window_is_the_clouds(host, edge, cloud):
    """Larger or smaller than the edge's: any prompt may come to the cloud."""
    assert host({"edge": (edge, 10), "cloud": (cloud, 10)}).window == cloud


@pytest.mark.parametrize("host", [Chat, LlamaIndex, Plain], ids=lambda host: host.__name__)
@every_form
@pytest.mark.parametrize(
    ("answer", "asked"), [(10, ["edge", "cloud"]), (60, ["cloud"])], ids=["room", "no room"]
)
async def test_the_room_of_the_answer_is_set_aside(host, form, answer, asked):
    """About 63 tokens fit a window of 100 beside an answer of 10, and not beside one of 60."""
    made = host({"edge": (100, answer), "cloud": (1000, answer)})
    await consumed(made.send(form, {}, text="word " * 40), form)
    assert made.tiers_called == asked
    (request,) = made.policy.requests
    assert request.tiers["edge"].context_window == 100 - answer
    assert 50 < request.tiers["edge"].input_tokens < 70
