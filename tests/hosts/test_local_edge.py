"""A local edge in both hosts: gates that look inside it, prompts processed once, and stop strings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from confroute import Cascade, Ensemble, McDropout, Probe, TokenLogprob
from confroute.models.dropout import dropout_passes
from confroute.models.inside import hidden_states
from confroute.models.local import LocalModel
from confroute.signals.mc_dropout import decompose
from confroute.signals.probe import ProbeWeights
from confroute.testing import ScriptedModel
from confroute.types import Message

pytestmark = pytest.mark.local
ASK = [Message(role="user", text="Where did the cat sit?")]


def weights(layers: tuple[int, ...] = (1,), width: int = 32) -> ProbeWeights:
    rng = np.random.default_rng(0)
    size = len(layers) * width
    return ProbeWeights(
        layers=layers,
        mean=rng.normal(size=size),
        scale=np.full(size, 2.0),
        weights=rng.normal(size=size),
        bias=0.1,
        target="wrong",
    )


def judging(policy: Cascade) -> Cascade:
    """The tiny models never end: their drafts are cut off."""
    return replace(policy, on_unfinished="judge")


def langchain(folder: Path, policy: Cascade, members: dict[str, Path]) -> Any:
    from langchain_confroute import ChatConfRoute, ChatLocal
    from langchain_confroute.testing import ScriptedChat

    made = {name: ChatLocal(model=str(path), max_tokens=6) for name, path in members.items()}
    edge = ChatLocal(model=str(folder), max_tokens=6)
    answer = ChatConfRoute(
        edge=edge, cloud=ScriptedChat.of("c"), policy=judging(policy), members=made
    ).invoke(ASK[0].text)
    return answer.text, answer.response_metadata["confroute"]


def llamaindex(folder: Path, policy: Cascade, members: dict[str, Path]) -> Any:
    from confroute.testing import ScriptedModel
    from llamaindex_confroute import ConfRouteLLM, LocalLLM
    from llamaindex_confroute.testing import ScriptedLLM

    made = {name: LocalLLM(model=str(path), max_tokens=6) for name, path in members.items()}
    edge = LocalLLM(model=str(folder), max_tokens=6)
    cloud = ScriptedLLM(model=ScriptedModel(["c"], name="c"))
    response = ConfRouteLLM(edge=edge, cloud=cloud, policy=judging(policy), members=made).complete(
        ASK[0].text
    )
    return response.text, response.additional_kwargs["confroute"]


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_dropout_gate_in_a_host(host: Any, tiny_folder: Path, tiny: LocalModel) -> None:
    """The gate's number is that of the function on the draft, after the edge's own prompt."""
    text, decision = host(
        tiny_folder,
        Cascade.of(McDropout(passes=3, statistic="mutual_information"), 1.0, on_unfinished="judge"),
        {},
    )
    assert decision["route"] == "edge"
    expected = decompose(dropout_passes(tiny, ASK, text, passes=3)).answer["mutual_information"]
    assert decision["uncertainty"] == pytest.approx(expected, abs=1e-5)
    assert [step["kind"] for step in decision["steps"]] == ["draft", "score"]


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_a_host_processes_the_prompt_once_for_draft_samples_and_states(
    host: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe, dropout and samples drawn one by one after one draft: the network sees the prompt's tokens a single time."""
    from confroute import Gate, SemanticEntropy, Threshold
    from confroute.models import prompt_cache

    readings = []
    read = prompt_cache.read
    monkeypatch.setattr(prompt_cache, "read", lambda *args: readings.append(args[1]) or read(*args))
    weights().save(tmp_path / "probe.safetensors")
    signals = (Probe(path=str(tmp_path / "probe.safetensors")), McDropout(passes=2), SemanticEntropy(n=3))
    grey = [(0.0, 1.0), (0.0, 50.0), None]
    gates = tuple(
        Gate(signal=signal, threshold=Threshold(value=0.5), grey=zone)
        for signal, zone in zip(signals, grey, strict=True)
    )
    _, decision = host(tiny_folder, Cascade(gates=gates, on_unfinished="judge"), {})
    assert set(decision["signals"]) == {"probe", "mc_dropout", "semantic_entropy"}, decision["skipped"]
    assert len(readings) == 1


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_probe_gate_in_a_host(host: Any, tiny_folder: Path, tiny: LocalModel, tmp_path: Path) -> None:
    """The gate's number is the probe's reading of the hidden states."""
    made = weights()
    made.save(tmp_path / "probe.safetensors")
    _, decision = host(
        tiny_folder,
        Cascade.of(Probe(path=str(tmp_path / "probe.safetensors")), 1.0, on_unfinished="judge"),
        {},
    )
    expected = made.probability(hidden_states(tiny, ASK, (1,)))[0]
    assert decision["uncertainty"] == pytest.approx(expected, abs=1e-6)
    assert [step["kind"] for step in decision["steps"]] == ["draft", "hidden"]


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_scores_of_an_ensemble_in_a_host(
    host: Any, tiny_folder: Path, tiny: LocalModel, make_tiny: Any, tmp_path: Path
) -> None:
    """Variance of the members' mean log-probability of the draft: here of one model and a flatter copy of it."""
    other = make_tiny(tmp_path / "other", scale=1.0)
    policy = Cascade.of(Ensemble(members=("flat",), statistic="score_variance"), 100.0, on_unfinished="judge")
    text, decision = host(tiny_folder, policy, {"flat": other})
    means = [np.mean(model.logprobs_of(ASK, text)) for model in (tiny, LocalModel.load(other))]
    assert decision["uncertainty"] == pytest.approx(np.var(means, ddof=1), rel=1e-3)
    assert [step["group"] for step in decision["steps"]] == [None, 1, 1]


@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
def test_a_long_stop_string_leaves_evidence(tiny_folder: Path, tiny: LocalModel, host: str) -> None:
    """Tokens cut off by a stop string do not count as unscored."""
    (free,) = tiny.generate(ASK, seed=3, temperature=1.2, max_tokens=40)
    stop = free.text[6:14]
    policy = Cascade.of(TokenLogprob(), 1e9, on_unfinished="judge")
    settings = {"model": str(tiny_folder), "temperature": 1.2, "seed": 3, "max_tokens": 40}
    if host == "langchain":
        pytest.importorskip("langchain_core")
        from langchain_confroute import ChatConfRoute, ChatLocal
        from langchain_confroute.testing import ScriptedChat

        chat = ChatConfRoute(edge=ChatLocal(**settings), cloud=ScriptedChat.of("no"), policy=policy)
        answer = chat.invoke(ASK[0].text, stop=[stop])
        text, decision = answer.text, answer.response_metadata["confroute"]
    else:
        pytest.importorskip("llama_index.core")
        from llamaindex_confroute import ConfRouteLLM, LocalLLM
        from llamaindex_confroute.testing import ScriptedLLM

        llm = ConfRouteLLM(
            edge=LocalLLM(**settings), cloud=ScriptedLLM(model=ScriptedModel(["no"])), policy=policy
        )
        response = llm.complete(ASK[0].text, stop=[stop])
        text, decision = response.text, response.additional_kwargs["confroute"]
    assert text == free.text[:6]
    assert (decision["route"], decision["signal"]) == ("edge", "token_logprob")
