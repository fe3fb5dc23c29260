"""Keys and passwords of models and stores stand in nothing that is printed, logged or shown."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.llms.openai_like")

from langchain_core.load import dumps
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, KeepPrivate, Router, TokenLogprob, load_policy, save_policy
from confroute.budget import Budget, Paced
from confroute.display import Address
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError
from confroute.learning import LearnOnline
from confroute.models.openai import OpenAIModel
from confroute.models.resolution import resolve
from confroute.policy.hedge import Hedged
from confroute.state import open_store
from confroute.testing import ScriptedModel
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

SECRET = "s3cr3t"
URL = f"redis://app:{SECRET}@localhost:1/0?password={SECRET}"
CASCADE = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(),))
PACED = Paced(policy=CASCADE, budgets=(Budget(limit=9, unit="calls"),), store=URL)
POLICIES = {
    "paced": PACED,
    "audited": Audited(policy=CASCADE, test=DriftTest(level=0.05), store=URL),
    "learning": LearnOnline(policy=CASCADE, store=URL),
    "inside another": Hedged(policy=Audited(policy=CASCADE, test=DriftTest(level=0.05), store=URL)),
}
KEYS = {"api_key": SECRET, "default_headers": {"Authorization": f"Bearer {SECRET}"}}


def chat(**more):
    return ChatOpenAI(model="gpt-x", base_url=f"http://app:{SECRET}@localhost:1/v1", **KEYS, **more)


def llm(**more):
    return OpenAILike(model="gpt-x", api_base=f"http://app:{SECRET}@localhost:1/v1", **KEYS, **more)


def openai():
    return OpenAIModel(model="gpt-x", base_url=f"http://app:{SECRET}@localhost:1/v1")


def langchain(policy=PACED):
    edge = ScriptedChat.of("e")
    return ChatConfRoute(edge=edge, cloud=chat(), members={"third": chat(seed=1)}, policy=policy)


def llamaindex(policy=PACED):
    edge = ScriptedLLM(model=ScriptedModel(["e"]))
    return ConfRouteLLM(edge=edge, cloud=llm(), members={"third": llm(temperature=0.3)}, policy=policy)


def plain(policy=PACED):
    return Router(edge=ScriptedModel(["e"]), cloud=chat(), members={"third": openai()}, policy=policy)


SHOWN = {
    **{
        name: lambda made=made: [repr(made), str(made), made._repr_html_()] for name, made in POLICIES.items()
    },
    "LangChain": lambda: [repr(langchain()), str(langchain()), dumps(langchain())],
    "LangChain's parameters": lambda: [str(langchain()._identifying_params)],
    "LangChain's fields": lambda: [str(langchain().model_dump(exclude={"policy"}))],
    "LlamaIndex": lambda: [repr(llamaindex()), str(llamaindex())],
    "LlamaIndex's fields": lambda: [json.dumps(llamaindex().to_dict(), default=str), llamaindex().to_json()],
    "no framework": lambda: [repr(plain()), str(plain())],
    "chains": lambda: [repr(ConfidenceRouter(edge=ScriptedChat.of("e"), cloud=chat(), policy=PACED))],
    "OpenAI's protocol": lambda: [repr(openai()), str(openai())],
}


@pytest.mark.parametrize("what", SHOWN)
def test_nothing_that_is_shown_holds_a_secret(what):
    """Neither what a console prints, nor a notebook, nor what frameworks log of an object."""
    for shown in SHOWN[what]():
        assert SECRET not in shown
        assert shown


def test_models_and_stores_are_still_told_apart():
    """By the models' names and the address without its password."""
    for made in (langchain(), llamaindex(), plain()):
        assert "gpt-x" in repr(made)
        assert "redis://***@localhost:1/0" in repr(made)


REFUSED = {
    "a misspelt scheme": (lambda: open_store(URL.replace("redis", "reddis")), "expected 'memory:NAME'"),
    "a slash in a password": (lambda: open_store(f"redis://app:{SECRET}/x@localhost/0"), "as %XX"),
    "a port in words": (lambda: open_store(f"redis://app:{SECRET}@localhost:port/0"), "as %XX"),
    "an address for an object": (
        lambda: resolve(ScriptedModel(["e"]), base_url=f"http://app:{SECRET}@localhost"),
        "set the URL",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_error_repeats_a_secret(what):
    """Neither its text nor the errors behind it that a traceback would print."""
    call, expected = REFUSED[what]
    if "redis" in expected or "%XX" in expected:
        pytest.importorskip("redis")
    with pytest.raises(PolicyError, match=expected) as caught:
        call()
    error = caught.value
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_an_unreachable_store_is_named_without_its_password():
    """What the client says of it goes into the log."""
    pytest.importorskip("redis")
    from confroute.errors import StateError

    with pytest.raises(StateError) as caught:
        open_store(URL).change(["k"], lambda records: (records, None))
    assert SECRET not in str(caught.value)


def test_an_address_is_used_saved_and_copied_as_it_is(tmp_path):
    """What is masked is its print: a policy file has to hold the whole address, and its reader to keep the file."""
    save_policy(PACED, tmp_path / "p.json")
    again = load_policy(tmp_path / "p.json")
    assert again == PACED
    assert str(again.store) == URL
    for made in (copy.deepcopy(again.store), pickle.loads(pickle.dumps(again.store))):
        assert (type(made), made, SECRET in repr(made)) == (Address, URL, False)


@pytest.mark.parametrize(
    "plain", ["memory:budgets", "sqlite:budgets.db", "redis://localhost:6379/0", "http://h/v1?x=1"]
)
def test_an_address_without_credentials_is_printed_whole(plain):
    """There is nothing to hide."""
    assert repr(Address(plain)) == repr(plain)
