"""ChatConfRoute: routes, accounting, run tree, overrides."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from confroute import Cascade, KeepPrivate, SelfConsistency, SendTo, TokenLogprob, record
from confroute.errors import MissingExtraError, PolicyError, RequestError
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced


def decision_of(message):
    return message.response_metadata["confroute"]


def test_accepted_draft_is_the_edge_models_own_message(accepting, edge, cloud):
    """The accepted answer keeps the edge's name and usage, and no log-probabilities."""
    answer = accepting.invoke("q")
    assert answer.text == "edge says so"
    assert decision_of(answer)["route"] == "edge"
    assert answer.response_metadata["model_name"] == "small"
    assert answer.usage_metadata["output_tokens"] == 3
    assert "logprobs" not in answer.response_metadata
    assert not cloud.seen
    json.dumps(decision_of(answer), allow_nan=False)


async def test_rejected_draft_gives_the_clouds_message(escalating):
    """After escalation nothing of the draft is in the message, sync or async."""
    for answer in (escalating.invoke("q"), await escalating.ainvoke("q")):
        assert answer.text == "cloud knows it well"
        assert decision_of(answer)["route"] == "cloud"
        assert answer.usage_metadata["output_tokens"] == 4
        assert decision_of(answer)["usage"]["edge"]["output_tokens"] == 3


@pytest.mark.parametrize("streaming", [False, True])
async def test_usage_callback_is_exact(accepting, escalating, streaming):
    """One usage entry a model, each call counted once."""
    for model, expected in ((accepting, {"small": 5}), (escalating, {"small": 5, "large": 6})):
        for asynchronous in (False, True):
            with get_usage_metadata_callback() as usage:
                if streaming and asynchronous:
                    _ = [chunk async for chunk in model.astream("q")]
                elif streaming:
                    list(model.stream("q"))
                elif asynchronous:
                    await model.ainvoke("q")
                else:
                    model.invoke("q")
            assert {name: u["total_tokens"] for name, u in usage.usage_metadata.items()} == expected


def test_run_tree_is_a_chain_over_model_runs(accepting, escalating, watch):
    """The router's own run is a chain run; drafts and finals are its tagged children."""
    escalating.invoke("q", {"callbacks": [watch]})
    assert watch.tree() == [("ChatConfRoute", [("llm", []), ("llm", [])])]
    assert watch.roles == ["draft", "final"]
    drafts = [run for run in watch.runs.values() if "confroute:draft" in run["tags"]]
    assert "nostream" in drafts[0]["tags"]
    assert all(run["end"] == "end" for run in watch.runs.values())


def test_run_tree_of_a_stream(escalating, watch):
    """A stream reports the same tree, and the chain run's output is the whole answer."""
    list(escalating.stream("q", {"callbacks": [watch]}))
    assert watch.tree() == [("ChatConfRoute", [("llm", []), ("llm", [])])]
    root = next(iter(watch.runs.values()))
    assert root["output"].text == "cloud knows it well"


def test_decision_event_once_a_call(escalating, watch):
    """The custom event comes once, equal to the decision on the message, and to the recorded one."""
    with record() as decisions:
        answer = escalating.invoke("q", {"callbacks": [watch]})
    assert watch.custom == [("confroute.decision", decision_of(answer))]
    assert [d.to_dict() for d in decisions] == [decision_of(answer)]


async def test_decision_event_and_record_of_async_streams(escalating, watch):
    """The same for astream."""
    with record() as decisions:
        chunks = [c async for c in escalating.astream("q", {"callbacks": [watch]})]
    assert [name for name, _ in watch.custom] == ["confroute.decision"]
    assert len(decisions) == 1
    assert decision_of(chunks[-1]) == decisions[0].to_dict()


@pytest.mark.parametrize("tier", ["edge", "cloud"])
async def test_forced_route(escalating, edge, cloud, tier):
    """A forced call asks one model once, natively."""
    answer = escalating.invoke("q", forced(tier))
    assert decision_of(answer)["stage"] == "forced"
    assert (len(edge.seen), len(cloud.seen)) == ((1, 0) if tier == "edge" else (0, 1))
    again = await escalating.ainvoke("q", forced(tier))
    assert decision_of(again)["route"] == tier


def test_auto_route_and_threshold_of_one_call(escalating):
    """Threshold and route come from config["configurable"]."""
    config = {"configurable": {"confroute_route": "auto", "confroute_threshold": 0.4}}
    assert decision_of(escalating.invoke("q", config))["route"] == "edge"
    config["configurable"]["confroute_threshold"] = {"token_logprob": 0.15}
    decision = decision_of(escalating.invoke("q", config))
    assert (decision["route"], decision["threshold"]) == ("cloud", 0.15)


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"confroute_route": "moon"}, RequestError),
        ({"confroute_threshold": "high"}, RequestError),
        ({"confroute_threshold": True}, RequestError),
        ({"confroute_threshold": -1}, PolicyError),
        ({"confroute_threshold": {"tea_leaves": 1}}, PolicyError),
    ],
)
def test_wrong_overrides_are_refused(escalating, overrides, error, watch):
    """An override that means nothing is an error, and the run is closed with it."""
    with pytest.raises(error):
        escalating.invoke("q", {"configurable": overrides, "callbacks": [watch]})
    assert [run["end"] for run in watch.runs.values()] == ["error"]


def test_config_specs_name_the_overrides(accepting):
    """Both overrides are declared, alone and inside a chain."""
    chain = ChatPromptTemplate.from_template("{q}") | accepting
    assert {"confroute_route", "confroute_threshold"} <= {spec.id for spec in chain.config_specs}


def test_overrides_reach_the_router_through_a_chain_and_with_config(escalating):
    """config["configurable"] is seen wherever it was set."""
    chain = ChatPromptTemplate.from_template("{q}") | escalating
    assert decision_of(chain.invoke({"q": "x"}, forced("edge")))["route"] == "edge"
    bound = escalating.with_config(configurable={"confroute_route": "edge"})
    assert decision_of(bound.invoke("q"))["route"] == "edge"


def test_in_a_chain_with_parser_and_batch(escalating, accepting):
    """LCEL chains and batches work as with any model."""
    chain = (
        ChatPromptTemplate.from_messages([("system", "s"), ("user", "{q}")]) | escalating | StrOutputParser()
    )
    assert chain.batch([{"q": "a"}, {"q": "b"}], {"max_concurrency": 2}) == ["cloud knows it well"] * 2
    assert (
        "".join((ChatPromptTemplate.from_template("{q}") | accepting | StrOutputParser()).stream({"q": "a"}))
        == "edge says so"
    )


async def test_abatch_and_generate(escalating):
    """abatch, generate and agenerate give one decision an answer."""
    answers = await escalating.abatch(["a", "b", "c"])
    assert [decision_of(a)["route"] for a in answers] == ["cloud"] * 3
    result = escalating.generate([[HumanMessage("a")], [HumanMessage("b")]])
    assert [g[0].text for g in result.generations] == ["cloud knows it well"] * 2
    assert len(result.run) == 2
    result = await escalating.agenerate_prompt(
        [ChatPromptTemplate.from_template("x").invoke({})] * 2, callbacks=[]
    )
    assert len(result.generations) == 2


def test_batch_decisions_are_recorded(escalating):
    """record() sees the calls of a batch's threads."""
    with record() as decisions:
        escalating.batch(["a", "b", "c"])
    assert [d.route for d in decisions] == ["cloud"] * 3


def test_bound_and_configured_inner_models(edge, cloud, watch):
    """Bound arguments and configs of the inner models survive drafts, samples and finals."""
    model = ChatConfRoute(
        edge=edge.bind(max_tokens=5).with_config(tags=["mine"], run_name="small one"),
        cloud=cloud.bind(max_tokens=7),
        policy=Cascade.of(TokenLogprob(), 0.1),
    )
    model.invoke("q", {"callbacks": [watch]})
    assert edge.seen[0]["max_tokens"] == 5
    assert cloud.seen[0]["max_tokens"] == 7
    assert edge.seen[0].get("logprobs") is None  # by a copy's field, not by an argument
    draft = next(run for run in watch.runs.values() if "confroute:draft" in run["tags"])
    assert "mine" in draft["tags"]
    assert draft["name"] == "small one"
    assert watch.roles == ["draft", "final"]


def test_a_runnable_that_ends_in_a_message(cloud, watch):
    """Any Runnable of messages may be a tier; without log-probabilities it is not trusted."""
    lines = RunnableLambda(lambda messages: AIMessage(f"{len(messages)} messages"))
    model = ChatConfRoute(edge=lines, cloud=cloud)
    answer = model.invoke("q")
    assert decision_of(answer)["stage"] == "no_signal"
    assert decision_of(answer)["route"] == "cloud"
    assert model.invoke("q", forced("edge")).text == "1 messages"
    assert [c.content for c in model.stream("q", forced("edge"))] == ["1 messages"]


def test_a_runnable_that_ends_in_a_string_is_an_error(edge):
    """The message says what to do."""
    model = ChatConfRoute(edge=edge, cloud=RunnableLambda(lambda _: "text"), cloud_limits=ONCE)
    with pytest.raises(RequestError, match="ConfidenceRouter"):
        model.invoke("q", forced("cloud"))


def test_a_chain_that_ends_in_an_output_parser_is_refused(edge, cloud):
    """At construction: each of its calls would fail, and the cloud answer all of them."""
    for chain in (edge | StrOutputParser(), (edge | StrOutputParser()).with_config(tags=["t"])):
        with pytest.raises(
            PolicyError, match=r"edge is a chain that ends in StrOutputParser.*ConfidenceRouter"
        ):
            ChatConfRoute(edge=chain, cloud=cloud)
    assert ChatConfRoute(edge=RunnableLambda(lambda m: m) | edge, cloud=cloud).invoke("q").text


@pytest.mark.parametrize("name", ["smollm2-135m", "local:smollm2-135m"])
def test_the_name_of_a_local_model_is_told_how_to_be_given(name, cloud):
    """It is none of init_chat_model's."""
    with pytest.raises(PolicyError, match=r"give ChatLocal\(model='smollm2-135m'\)"):
        ChatConfRoute(edge=name, cloud=cloud)


@pytest.mark.parametrize("policy", ["policy.json", Path("policy.json")])
def test_the_path_of_a_policy_is_told_how_to_be_loaded(policy, edge, cloud):
    """A router takes the policy itself."""
    for router in (ChatConfRoute, ConfidenceRouter):
        with pytest.raises(PolicyError, match=r"load_policy\('policy\.json'\)"):
            router(edge=edge, cloud=cloud, policy=policy)


def test_init_chat_model_string(monkeypatch, edge):
    """A name is made into a model by init_chat_model, at construction."""
    pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    model = ChatConfRoute(edge=edge, cloud="openai:gpt-4o-mini")
    assert type(model._plan.tiers["cloud"].chat).__name__ == "ChatOpenAI"
    assert model._identifying_params["cloud"] == "gpt-4o-mini"


def test_init_string_without_langchain(monkeypatch, edge):
    """Without langchain the error says what to install."""
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'confroute\[agents\]'"):
        ChatConfRoute(edge=edge, cloud="openai:gpt-4o-mini")


def test_edge_equals_cloud(edge, monkeypatch):
    """One model on both sides is refused: the same object, an equal one, an equal binding, an equal name."""
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    ChatOpenAI = pytest.importorskip("langchain_openai").ChatOpenAI  # noqa: N806  a class

    pairs = [
        (edge, edge),
        (edge.bind(max_tokens=1), edge.bind(max_tokens=1)),
        (ChatOpenAI(model="a"), ChatOpenAI(model="a")),
        ("openai:a", "openai:a"),
    ]
    for one, other in pairs:
        with pytest.raises(PolicyError, match="same model"):
            ChatConfRoute(edge=one, cloud=other)
    ChatConfRoute(edge=ChatOpenAI(model="a"), cloud=ChatOpenAI(model="b"))
    ChatConfRoute(edge=ChatOpenAI(model="a", base_url="http://127.0.0.1:1/v1"), cloud=ChatOpenAI(model="a"))


def test_settings_that_belong_to_the_models_are_refused(edge, cloud):
    """A cache on the router and a policy of other tiers are refused; temperature needs a model that has one."""
    with pytest.raises(PolicyError, match="cache"):
        ChatConfRoute(edge=edge, cloud=cloud, cache=True)
    with pytest.raises(PolicyError, match="tiers"):
        ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade(tiers=("edge", "region", "cloud")))
    with pytest.raises(PolicyError, match="temperature"):
        ChatConfRoute(edge=RunnableLambda(lambda m: AIMessage("x")), cloud=cloud, temperature=0)


def test_router_settings_are_applied_to_copies(edge, cloud):
    """Temperature, stop, retries and time-out of the router reach both models, which stay as they were."""
    model = ChatConfRoute(edge=edge, cloud=cloud, temperature=0.5, stop=["says"], timeout=9, max_retries=0)
    assert model.invoke("q", forced("edge")).text == "edge "
    assert edge.script.calls[-1].temperature == 0.5
    assert edge.temperature is None
    assert model._plan.limits["cloud"].attempts == 1
    assert model._plan.limits["cloud"].timeout_s == 9
    assert ChatConfRoute(edge=edge, cloud=cloud, edge_limits=ONCE, max_retries=5)._plan.limits["edge"] is ONCE


def test_call_arguments_are_forwarded(escalating, edge, cloud):
    """stop and further arguments of a call reach both models; an absent stop is not sent."""
    escalating.invoke("q", stop=["well"], user="u")
    assert edge.seen[0]["stop"] == cloud.seen[0]["stop"] == ["well"]
    assert edge.seen[0]["user"] == cloud.seen[0]["user"] == "u"
    escalating.invoke("q")
    assert edge.seen[-1]["stop"] is None


def test_nothing_of_the_callers_is_changed(edge, cloud):
    """Messages, arguments, config and models are the same before and after."""
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(SelfConsistency(n=3), 0.3))
    messages = [
        SystemMessage("s"),
        HumanMessage([{"type": "text", "text": "t"}]),
        AIMessage("a"),
        HumanMessage("q"),
    ]
    config = {
        "tags": ["t"],
        "metadata": {"k": "v"},
        "configurable": {"confroute_route": "auto"},
        "run_name": "n",
    }
    kwargs = {"user": {"id": [1]}}
    before = copy.deepcopy((messages, config, kwargs, edge.__dict__ | {"seen": 0, "script": 0}))
    model.invoke(messages, config, **kwargs)
    list(model.stream(messages, config, **kwargs))
    assert (messages, config, kwargs, edge.__dict__ | {"seen": 0, "script": 0}) == before


def test_rules_see_tags_metadata_and_tool_calls(edge, cloud):
    """Tags and metadata of the config, the router's own tags, and text inside earlier tool calls reach the rules."""
    rules = (KeepPrivate(patterns=("secret",)), SendTo(tier="cloud", tags=("user=boss",)))
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.5, rules=rules))
    assert decision_of(model.invoke("q", {"tags": ["private"]}))["private"]
    assert decision_of(model.invoke("q", {"metadata": {"private": True}}))["private"]
    assert not decision_of(model.invoke("q", {"metadata": {"private": False}}))["private"]
    assert decision_of(model.invoke("q", {"metadata": {"user": "boss"}}))["rule"] == "send_to"
    tagged = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.5, rules=rules), tags=["private"]
    )
    assert decision_of(tagged.invoke("q", forced("cloud")))["route"] == "edge"
    call = {"name": "store", "args": {"what": "secret"}, "id": "1", "type": "tool_call"}
    from langchain_core.messages import ToolMessage

    history = [HumanMessage("q"), AIMessage("", tool_calls=[call]), ToolMessage("done", tool_call_id="1")]
    assert decision_of(model.invoke(history))["private"]


@pytest.mark.parametrize("said", [True, "true", "True", "yes", 1, 1.0, np.True_, np.int64(1)])
def test_metadata_that_says_yes_is_private(edge, cloud, said):
    """In whatever type it says so; only the absence of a word lets the call out."""
    model = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.0, rules=(KeepPrivate(),))
    )
    assert decision_of(model.invoke("q", {"metadata": {"private": said}}))["private"]


@pytest.mark.parametrize("said", [None, False, "false", "no", "", 0, np.False_])
def test_metadata_that_says_no_is_not_private(edge, cloud, said):
    """The same the other way."""
    model = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.0, rules=(KeepPrivate(),))
    )
    assert not decision_of(model.invoke("q", {"metadata": {"private": said}}))["private"]


@pytest.mark.parametrize("said", ["perhaps", 2, ["yes"], {"yes": 1}, object()])
def test_metadata_that_says_neither_is_refused(edge, cloud, said):
    """Nothing is asked of either model; of another name, any value may stand there."""
    model = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.0, rules=(KeepPrivate(),))
    )
    with pytest.raises(RequestError, match="expected True or False"):
        model.invoke("q", {"metadata": {"private": said}})
    assert edge.seen == cloud.seen == []
    assert not decision_of(model.invoke("q", {"metadata": {"other": said}}))["private"]


def test_import_is_light():
    """The package imports neither langchain, langgraph nor torch."""
    code = "import sys, langchain_confroute, langchain_confroute.testing; print([m for m in ('torch', 'langchain', 'langgraph', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_model_interface(accepting, edge, cloud):
    """Names, token counts and profile that LangChain and its agents ask for."""
    assert accepting._llm_type == "confroute"
    assert accepting._get_ls_params()["ls_model_name"] == "confroute"
    assert accepting.get_num_tokens("some text here") > 0
    assert accepting.get_num_tokens_from_messages([HumanMessage("hi")]) > 0
    assert accepting.profile is None
    wide = edge.model_copy(update={"profile": {"tool_calling": True, "max_input_tokens": 100}})
    narrow = cloud.model_copy(update={"profile": {"tool_calling": False, "max_input_tokens": 50}})
    assert ChatConfRoute(edge=wide, cloud=narrow).profile == {"tool_calling": False, "max_input_tokens": 50}


def test_copy_with_another_model_uses_it(accepting, cloud):
    """A copy with other settings is a router of its own."""
    other = ScriptedChat.of("other", name="other", logprob=-0.1)
    assert accepting.model_copy(update={"edge": other}).invoke("q").text == "other"
    assert accepting.invoke("q").text == "edge says so"


def test_without_langchain_the_error_names_the_extra():
    """MissingExtraError, with the command."""
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "try:\n    import langchain_confroute\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "MissingExtraError" in done.stdout
    assert "pip install 'confroute[langchain]'" in done.stdout


def test_misspelt_and_misplaced_words_are_refused():
    """A dropped `policy`, threshold or route would send calls elsewhere without a word."""
    edge, cloud = ScriptedChat.of("4"), ScriptedChat.of("four")
    with pytest.raises(ValueError, match="polcy"):
        ChatConfRoute(edge=edge, cloud=cloud, polcy=1)
    router = ChatConfRoute(edge=edge, cloud=cloud)
    with pytest.raises(RequestError, match="configurable"):
        router.invoke("2 + 2?", confroute_route="edge")
    with pytest.raises(RequestError, match="confroute_treshold"):
        router.invoke("2 + 2?", {"configurable": {"confroute_treshold": 0.1}})
