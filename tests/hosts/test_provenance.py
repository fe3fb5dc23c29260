"""A policy that was fitted on other models, or longer answers, than a router has: said once, alike in every host."""

import warnings
from dataclasses import replace

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import MockLLM
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Router, load_policy, save_policy
from confroute.budget import Budget, Paced
from confroute.models.openai import OpenAIModel
from confroute.policy import Provenance, ProvenanceWarning
from confroute.policy.provenance import RecordedModel
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM

URL = "http://127.0.0.1:9/v1"


def of_router(edge, cloud, policy, /, **limits):
    """Two models behind servers, without a framework."""
    names = {"edge": edge, "cloud": cloud}
    models = {
        tier: OpenAIModel(model=name, base_url=URL, max_tokens=limits.get(tier))
        for tier, name in names.items()
    }
    return Router(**models, policy=policy)


def of_langchain(edge, cloud, policy, /, **limits):
    """Two of LangChain's."""
    names = {"edge": edge, "cloud": cloud}
    models = {
        tier: ChatOpenAI(model=name, base_url=URL, api_key="any", max_tokens=limits.get(tier), max_retries=0)
        for tier, name in names.items()
    }
    return ChatConfRoute(**models, policy=policy)


def of_llamaindex(edge, cloud, policy, /, **limits):
    """Two of LlamaIndex's."""
    names = {"edge": edge, "cloud": cloud}
    models = {
        tier: OpenAILike(model=name, api_base=URL, api_key="any", max_tokens=limits.get(tier), max_retries=0)
        for tier, name in names.items()
    }
    return ConfRouteLLM(**models, policy=policy)


HOSTS = [of_router, of_langchain, of_llamaindex]


@pytest.fixture
def fitted(request):
    """A policy for small and large, recorded at up to 256 tokens; another one for each test, since each is told of once."""
    recorded = Provenance(
        edge=RecordedModel(names=("small-2025-01-31",), max_tokens=256, longest=200, cut_off=0.02),
        cloud=RecordedModel(names=("org/large",), longest=300),
        kind="auto",
        n=300,
        date="2026-01-01",
        data_hash=request.node.name,
        version="1",
        uncertainty=(),
    )
    return Cascade(provenance=recorded)


@pytest.mark.parametrize("router", HOSTS)
@pytest.mark.parametrize(
    ("models", "limits", "words"),
    [
        (("tiny", "large"), {}, "its edge is tiny, recorded was small-2025-01-31"),
        (("small", "huge"), {}, "its cloud is huge, recorded was org/large"),
        (("small", "large"), {"edge": 32}, "its edge answers in up to 32 tokens"),
        (("small", "large"), {"cloud": 100}, "its cloud answers in up to 100 tokens"),
        (("small-2025-06-01", "large"), {}, "its edge is small-2025-06-01"),
    ],
)
def test_what_differs_is_said_once_per_policy(router, models, limits, words, fitted):
    """By name, date, and answer limit, of either tier."""
    with pytest.warns(ProvenanceWarning, match="fit again") as said:
        router(*models, fitted, **limits)
    assert len(said) == 1
    assert words in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        router(*models, fitted, **limits)


@pytest.mark.parametrize("router", HOSTS)
@pytest.mark.parametrize(
    ("models", "limits"),
    [
        (("small", "large"), {}),
        (("small-2025-01-31", "Large"), {"edge": 256, "cloud": 300}),
        (("SMALL", "other/large"), {"edge": 4096, "cloud": 4096}),
    ],
)
def test_the_recorded_models_are_not_warned_of(router, models, limits, fitted):
    """Whatever the case, the folder, and a date that only one of them names; nor of longer answers."""
    router(*models, fitted, **limits)


def test_a_tier_between_the_recorded_ones_is_compared_with_neither(fitted):
    """The first was recorded as edge and the last as cloud, whatever their names."""
    policy = replace(fitted, tiers=("a", "b", "c"))

    def made(*names):
        models = [OpenAIModel(model=name, base_url=URL) for name in names]
        return Router(tiers=dict(zip(policy.tiers, models, strict=True)), policy=policy)

    made("small", "middle", "large")
    with pytest.warns(ProvenanceWarning, match="its edge is tiny.*; its cloud is huge"):
        made("tiny", "middle", "huge")


@pytest.mark.parametrize("router", HOSTS)
def test_a_policy_that_was_not_fitted_is_for_any_models(router):
    """As by hand."""
    router("tiny", "huge", Cascade(), edge=8)


def test_models_without_a_name_are_not_compared(fitted):
    """A function, a custom class, and a chain are called by their own names, which no recording knows."""
    Router(edge=lambda messages: "yes", cloud=lambda messages: "no", policy=fitted)
    ConfRouteLLM(edge=MockLLM(), cloud=OpenAILike(model="large", api_base=URL, api_key="any"), policy=fitted)
    chains = [ScriptedChat.of("4") | (lambda message: message.text) for _ in range(2)]
    ConfidenceRouter(edge=chains[0], cloud=chains[1], policy=fitted)


@pytest.mark.parametrize("router", HOSTS)
def test_it_is_found_inside_wrappers_and_read_from_files(router, fitted, tmp_path):
    """A budget around it changes nothing."""
    save_policy(Paced(policy=fitted, budgets=(Budget(limit=5, unit="calls"),)), tmp_path / "policy.json")
    policy = load_policy(tmp_path / "policy.json")
    assert policy.policy == fitted
    with pytest.warns(ProvenanceWarning):
        router("tiny", "large", policy)


def test_a_limit_of_the_router_itself_counts(fitted):
    """LangChain's router hands its own `max_tokens` to both models."""
    with pytest.warns(ProvenanceWarning, match="up to 16 tokens"):
        ChatConfRoute(
            edge=ChatOpenAI(model="small", base_url=URL, api_key="any", max_retries=0),
            cloud=ChatOpenAI(model="large", base_url=URL, api_key="any", max_retries=0),
            policy=fitted,
            max_tokens=16,
        )
