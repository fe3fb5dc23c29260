"""Gates that look inside a local edge, through both hosts: dropout, probe, an ensemble's scores; and shared readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from confroute import Cascade, Ensemble, McDropout, Probe  # noqa: E402
from confroute.errors import CalibrationError, PolicyError, RequestError  # noqa: E402
from confroute.models.dropout import dropout_passes  # noqa: E402
from confroute.models.inside import hidden_states, option_logprobs  # noqa: E402
from confroute.models.local import LocalModel  # noqa: E402
from confroute.models.prompt_cache import prompts_kept  # noqa: E402
from confroute.recording import Row, Side  # noqa: E402
from confroute.recording.probes import fit_probe  # noqa: E402
from confroute.signals.mc_dropout import decompose  # noqa: E402
from confroute.signals.probe import ProbeWeights  # noqa: E402
from confroute.types import Message  # noqa: E402

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


def langchain(folder: Path, policy: Cascade, members: dict[str, Path]) -> Any:
    from langchain_confroute import ChatConfRoute, ChatLocal
    from langchain_confroute.testing import ScriptedChat

    made = {name: ChatLocal(model=str(path), max_tokens=6) for name, path in members.items()}
    edge = ChatLocal(model=str(folder), max_tokens=6)
    answer = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("c"), policy=policy, members=made).invoke(
        ASK[0].text
    )
    return answer.text, answer.response_metadata["confroute"]


def llamaindex(folder: Path, policy: Cascade, members: dict[str, Path]) -> Any:
    from confroute.testing import ScriptedModel
    from llamaindex_confroute import ConfRouteLLM, LocalLLM
    from llamaindex_confroute.testing import ScriptedLLM

    made = {name: LocalLLM(model=str(path), max_tokens=6) for name, path in members.items()}
    edge = LocalLLM(model=str(folder), max_tokens=6)
    cloud = ScriptedLLM(model=ScriptedModel(["c"], name="c"))
    response = ConfRouteLLM(edge=edge, cloud=cloud, policy=policy, members=made).complete(ASK[0].text)
    return response.text, response.additional_kwargs["confroute"]


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_dropout_gate_in_a_host(host: Any, tiny_folder: Path, tiny: LocalModel) -> None:
    """The gate's number is that of the function on the draft, behind the very prompt that the edge was sent."""
    text, decision = host(
        tiny_folder, Cascade.of(McDropout(passes=3, statistic="mutual_information"), 1.0), {}
    )
    assert decision["route"] == "edge"
    expected = decompose(dropout_passes(tiny, ASK, text, passes=3)).answer["mutual_information"]
    assert decision["uncertainty"] == pytest.approx(expected, abs=1e-5)
    assert [step["kind"] for step in decision["steps"]] == ["draft", "score"]


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_a_host_reads_the_prompt_once_for_draft_samples_and_states(
    host: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe, dropout and samples drawn one by one behind one draft: the network sees the prompt's tokens a single time."""
    from confroute import Gate, SemanticEntropy, Threshold
    from confroute.models import prompt_cache

    readings = []
    read = prompt_cache.read
    monkeypatch.setattr(prompt_cache, "read", lambda *given: readings.append(given[1]) or read(*given))
    weights().save(tmp_path / "probe.safetensors")
    signals = (Probe(path=str(tmp_path / "probe.safetensors")), McDropout(passes=2), SemanticEntropy(n=3))
    grey = [(0.0, 1.0), (0.0, 50.0), None]
    gates = tuple(
        Gate(signal=signal, threshold=Threshold(value=0.5), grey=zone)
        for signal, zone in zip(signals, grey, strict=True)
    )
    _, decision = host(tiny_folder, Cascade(gates=gates), {})
    assert set(decision["signals"]) == {"probe", "mc_dropout", "semantic_entropy"}, decision["skipped"]
    assert len(readings) == 1


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_probe_gate_in_a_host(host: Any, tiny_folder: Path, tiny: LocalModel, tmp_path: Path) -> None:
    """The gate's number is the probe's reading of the hidden states."""
    made = weights()
    made.save(tmp_path / "probe.safetensors")
    _, decision = host(tiny_folder, Cascade.of(Probe(path=str(tmp_path / "probe.safetensors")), 1.0), {})
    expected = made.probability(hidden_states(tiny, ASK, (1,)))[0]
    assert decision["uncertainty"] == pytest.approx(expected, abs=1e-6)
    assert [step["kind"] for step in decision["steps"]] == ["draft", "hidden"]


@pytest.mark.parametrize("host", [langchain, llamaindex])
def test_scores_of_an_ensemble_in_a_host(
    host: Any, tiny_folder: Path, tiny: LocalModel, make_tiny: Any, tmp_path: Path
) -> None:
    """Variance of the members' mean log-probability of the draft: here of one model and a flatter copy of it."""
    other = make_tiny(tmp_path / "other", scale=1.0)
    policy = Cascade.of(Ensemble(members=("flat",), statistic="score_variance"), 100.0)
    text, decision = host(tiny_folder, policy, {"flat": other})
    means = [np.mean(model.logprobs_of(ASK, text)) for model in (tiny, LocalModel.load(other))]
    assert decision["uncertainty"] == pytest.approx(np.var(means, ddof=1), rel=1e-3)
    assert [step["group"] for step in decision["steps"]] == [None, 1, 1]


def test_kept_prompts_change_no_number(tiny: LocalModel) -> None:
    """Draft, samples, dropout and states of one reading are those of four; the kept cache is never written to."""

    def everything() -> list[Any]:
        drafts = tiny.generate(ASK, max_tokens=6)
        samples = tiny.generate(ASK, max_tokens=6, n=3, temperature=1.0, seed=1)
        found = [one.logprobs for one in (*drafts, *samples)]
        passes = [
            dropout_passes(tiny, ASK, "on the mat", passes=3, prompt=prompt).logprobs
            for prompt in (False, True)
        ]
        return [*found, *passes, hidden_states(tiny, ASK, (0, 1, 2))]

    alone = everything()
    with prompts_kept():
        first, second = everything(), everything()
    for one, two, three in zip(alone, first, second, strict=True):
        assert np.asarray(two) == pytest.approx(np.asarray(one), abs=1e-5)
        assert np.asarray(three) == pytest.approx(np.asarray(two), abs=0)


def test_hidden_states_are_the_networks(tiny: LocalModel) -> None:
    """Those of one plain forward call, at the prompt's last token."""
    from confroute.models import prompts

    ids = torch.tensor([prompts.prompt_ids(tiny.tokenizer, ASK)])
    with torch.inference_mode():
        out = tiny.network(input_ids=ids, output_hidden_states=True)
    expected = np.stack([state[0, -1].numpy() for state in out.hidden_states])
    assert hidden_states(tiny, ASK, (0, 1, 2)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(RequestError, match="expected one or more of 0 to 2"):
        hidden_states(tiny, ASK, (3,))
    logs = out.logits[0, -1].log_softmax(-1)
    letter = tiny.tokenizer.encode("A", add_special_tokens=False)[0]
    assert option_logprobs(tiny, ASK, ("A",))["A"] >= float(logs[letter]) - 1e-4


def test_a_fitted_probe_ranks_new_rows(tmp_path: Path) -> None:
    """States that tell the outcome at one layer: the probe finds that layer, ranks out of fold, and is read back equal."""
    from safetensors.numpy import save_file

    from confroute.stats.metrics import auroc

    rng = np.random.default_rng(3)
    rows = []
    for at in range(160):
        wrong = bool(rng.random() < 0.5)
        states = {f"layer.{layer}": rng.normal(size=64).astype(np.float32) for layer in (4, 8)}
        states["layer.8"][:4] += 1.5 if wrong else -1.5
        save_file(states, tmp_path / f"{at}.safetensors")
        rows.append(
            Row(
                id=str(at),
                edge=Side(text="A", quality=float(not wrong), model="m"),
                extra={"hidden": {"file": f"{at}.safetensors"}},
            )
        )
    fitted = fit_probe(rows, tmp_path)
    assert fitted.weights.layers == (8,)
    assert auroc(fitted.out_of_fold, fitted.target) > 0.95
    fitted.weights.save(tmp_path / "probe.safetensors")
    again = ProbeWeights.load(tmp_path / "probe.safetensors")
    x = rng.normal(size=(5, 64))
    assert again.probability(x).tolist() == fitted.weights.probability(x).tolist()
    assert (again.layers, again.about) == (fitted.weights.layers, fitted.weights.about)


def test_a_probe_of_noise_ranks_by_chance(tmp_path: Path) -> None:
    """Out of fold, states that say nothing give an AUROC near one half: nothing of a row leaks into its own number."""
    from safetensors.numpy import save_file

    from confroute.stats.metrics import auroc

    rng = np.random.default_rng(4)
    rows = []
    for at in range(200):
        save_file({"layer.1": rng.normal(size=300).astype(np.float32)}, tmp_path / f"{at}.safetensors")
        side = Side(text="A", quality=float(rng.random() < 0.5))
        rows.append(Row(id=str(at), edge=side, extra={"hidden": {"file": f"{at}.safetensors"}}))
    fitted = fit_probe(rows, tmp_path)
    assert 0.35 < (auroc(fitted.out_of_fold, fitted.target) or 0) < 0.65


def test_too_little_to_fit_and_no_probe_to_read(tmp_path: Path) -> None:
    """Both raise, with the numbers or the path."""
    with pytest.raises(CalibrationError, match="0 rows with hidden states"):
        fit_probe([Row(id="a", edge=Side(text="A", quality=1.0))], tmp_path)
    with pytest.raises(PolicyError, match="is no probe that this confroute reads"):
        ProbeWeights.load(tmp_path / "none.safetensors")
