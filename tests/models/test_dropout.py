"""`dropout_passes`: exact where it must be, random where it should be, and without any change to the model."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from confroute.errors import ModelError, RequestError
from confroute.models import dropout, prompts
from confroute.models.dropout import decoder_layers, dropout_passes, entropies, masks, perturbed
from confroute.models.local import LocalModel
from confroute.signals.mc_dropout import bald, decompose
from confroute.types import Message

pytestmark = pytest.mark.local
ANSWER = "on the mat, user"
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
WIDE = {**SHAPE, "intermediate_size": 48, "max_position_embeddings": 256}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**WIDE, num_key_value_heads=2),
    "qwen2": lambda: transformers.Qwen2Config(**WIDE, num_key_value_heads=2),
    "mistral": lambda: transformers.MistralConfig(**WIDE, num_key_value_heads=2, sliding_window=16),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**WIDE),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=4, n_head=4, n_positions=256),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> LocalModel:
    """A tiny random model of each family, with four layers and weights large enough to matter."""
    folder = tmp_path_factory.mktemp(request.param)
    transformers.AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]())
    for parameter in network.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    network.save_pretrained(folder)
    return LocalModel.load(folder)


def reference(model: LocalModel, ask: list[Message], drawn: Any, *, prompt: bool) -> tuple[Any, ...]:
    """Each pass on its own: one row, no cache, every position masked after the chosen layers."""
    ids = prompts.prompt_ids(model.tokenizer, ask)
    answer_ids = prompts.encode(model.tokenizer, ANSWER, special=False)
    full, rows = torch.tensor([[*ids, *answer_ids[:-1]]]), []
    for one in drawn:
        handles = []
        for depth, pair in enumerate(decoder_layers(model.network)[::-1][: len(one)]):
            for part, mask in zip(pair, torch.from_numpy(one[depth]), strict=True):

                def hook(_m: Any, _a: Any, out: Any, mask: Any = mask) -> Any:
                    state, *rest = out if isinstance(out, tuple) else (out,)
                    state = state.clone()
                    start = 0 if prompt else len(ids) - 1
                    state[:, start:] *= mask
                    return (state, *rest) if isinstance(out, tuple) else state

                handles.append(part.register_forward_hook(hook))
        with torch.inference_mode():
            rows.append(model.network(input_ids=full, use_cache=False).logits[0, len(ids) - 1 :].double())
        for handle in handles:
            handle.remove()
    logs = torch.stack(rows).log_softmax(-1)
    chosen = logs.gather(-1, torch.tensor(answer_ids).expand(len(rows), -1)[..., None])[..., 0]
    return (chosen.numpy(), *bald(logs.exp().numpy())[:2])


def state_of(model: LocalModel) -> list[Any]:
    """Everything that a call could leave behind in the network."""
    modules = list(model.network.modules())
    return [
        [
            (module.training, dict(module._forward_hooks), dict(module._forward_pre_hooks))
            for module in modules
        ],
        [(name, value.clone()) for name, value in model.network.state_dict().items()],
    ]


def assert_unchanged(model: LocalModel, before: list[Any]) -> None:
    """Modes, hooks and weights are those of `before`, and the lock is free."""
    after = state_of(model)
    assert after[0] == before[0]
    for (name, old), (same, new) in zip(before[1], after[1], strict=True):
        assert name == same
        assert torch.equal(old, new)
    assert model.lock.acquire(blocking=False)
    model.lock.release()


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("layers", ["top-third", "all", 1, 3])
def test_batched_is_one_by_one(model: LocalModel, ask: list[Message], layers: Any, prompt: bool) -> None:
    """One batch, with lower layers computed once, equals single full passes with the same masks."""
    count = {"top-third": 2, "all": 4}.get(layers, layers)
    passes = dropout_passes(model, ask, ANSWER, passes=3, rate=0.3, layers=layers, prompt=prompt, seed=4)
    expected = reference(model, ask, masks(3, count, 32, rate=0.3, seed=4), prompt=prompt)
    for got, reference_values in zip((passes.logprobs, passes.total, passes.expected), expected, strict=True):
        assert got.dtype == np.float64
        assert got == pytest.approx(reference_values, abs=1e-4)
    assert decompose(passes).answer["variance"] > 1e-6


def test_lower_layers_are_computed_once(model: LocalModel, ask: list[Message]) -> None:
    """Rows of each layer's input: one up to the first perturbed layer, then as many as passes."""
    pairs, seen = decoder_layers(model.network), []
    handles = [part.register_forward_hook(lambda _m, _a, out: seen.append(len(out))) for _, part in pairs]
    try:
        dropout_passes(model, ask, ANSWER, passes=5, layers=2)
    finally:
        for handle in handles:
            handle.remove()
    # GPT-NeoX computes both parts of a layer from the layer's own input.
    first = 1 if "NeoX" in type(model.network).__name__ else 5
    assert seen == [1, 1, 1, 1, 1, 1, first, 5]


@pytest.mark.parametrize("layers", ["top-third", "all"])
def test_rate_zero_is_exact(model: LocalModel, ask: list[Message], layers: Any) -> None:
    """No variance at all, no mutual information, and the model's own likelihood."""
    passes = dropout_passes(model, ask, ANSWER, passes=6, rate=0.0, layers=layers)
    assert len(passes.logprobs) == 6
    assert passes.logprobs.var(axis=0).tolist() == [0.0] * passes.logprobs.shape[1]
    assert passes.mutual_information.tolist() == [0.0] * passes.logprobs.shape[1]
    assert decompose(passes).answer["variance"] == 0.0
    assert passes.logprobs[0] == pytest.approx(model.logprobs_of(ask, ANSWER), abs=1e-4)


def test_chunks_change_nothing(
    model: LocalModel, ask: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts and answers are processed in parts, with the same result."""
    whole = [dropout_passes(model, ask, ANSWER, passes=3, rate=0.3, prompt=p) for p in (False, True)]
    monkeypatch.setattr(dropout, "_PROMPT_TOKENS", 12)
    monkeypatch.setattr(dropout, "_MAX_LOGITS", 3 * 300 * 4)
    monkeypatch.setattr(dropout, "_BLOCK", 3)
    for one, prompt in zip(whole, (False, True), strict=True):
        parts = dropout_passes(model, ask, ANSWER, passes=3, rate=0.3, prompt=prompt)
        assert parts.logprobs == pytest.approx(one.logprobs, abs=1e-4)
        assert parts.total == pytest.approx(one.total, abs=1e-4)
        assert parts.expected == pytest.approx(one.expected, abs=1e-4)


def test_masks() -> None:
    """Zero or inverse scale; independent between passes and layers; fewer passes or layers use a prefix of them."""
    drawn = masks(4, 3, 2000, rate=0.25, seed=9)
    assert set(drawn.ravel().tolist()) == {0.0, float(np.float32(4 / 3))}
    dropped = (drawn == 0).reshape(24, 2000)
    assert dropped.mean(axis=1) == pytest.approx(np.full(24, 0.25), abs=0.05)
    correlation = np.corrcoef(dropped) - np.eye(24)
    assert np.abs(correlation).max() < 0.1
    assert np.array_equal(masks(2, 3, 2000, rate=0.25, seed=9), drawn[:2])
    assert np.array_equal(
        masks(4, 1, 2000, rate=0.25, seed=9)[:, 0], masks(4, 3, 2000, rate=0.25, seed=9)[:, 0]
    )
    assert not np.array_equal(masks(4, 3, 2000, rate=0.25, seed=8), drawn)


def test_one_mask_for_all_positions(tiny: LocalModel, ask: list[Message]) -> None:
    """Within a pass the same features are zero at every position, and other passes drop others."""
    (attention, _), outputs = decoder_layers(tiny.network)[-1], []
    drawn = masks(4, 1, 32, rate=0.4, seed=1)
    with perturbed(tiny, dropout._sites([decoder_layers(tiny.network)[-1]], drawn)) as inputs:
        handle = attention.register_forward_hook(lambda _m, _a, out: outputs.append(out[0]))
        try:
            with torch.inference_mode():
                tiny.network(**inputs(prompts.prompt_ids(tiny.tokenizer, ask)))
        finally:
            handle.remove()
    (zero,) = [(output == 0).numpy() for output in outputs]
    assert zero.shape[1] > 10
    assert (zero == zero[:, :1]).all()
    assert np.array_equal(zero[:, 0], drawn[:, 0, 0] == 0)
    assert len({row.tobytes() for row in zero[:, 0]}) == 4


def test_expected_output_is_the_unperturbed_one() -> None:
    """Inverted scaling: over many passes, the mean of the masked outputs is the output."""
    output = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 5, 16)).astype(np.float32))
    drawn = torch.from_numpy(masks(20_000, 1, 16, rate=0.3, seed=2))[:, 0, 0, None]
    mean = dropout._drop(drawn, None, None, output).mean(0)
    # Standard error of one feature: |x| sqrt(rate / (1 - rate) / 20 000).
    assert ((mean - output[0]).abs() <= 4.5 * output[0].abs() * (0.3 / 0.7 / 20_000) ** 0.5).all()


def test_entropies_are_bald() -> None:
    """The chunked float32 arithmetic agrees with the closed form, impossible tokens included."""
    logits = 5 * np.random.default_rng(3).normal(size=(4, 6, 50))
    logits[:, :, 7] = -np.inf
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    targets = np.arange(6)
    chosen, total, expected = entropies(torch.tensor(logits, dtype=torch.float32), torch.from_numpy(targets))
    assert chosen.numpy() == pytest.approx(np.log(p[:, targets, targets]), abs=1e-4)
    assert total.numpy() == pytest.approx(bald(p)[0], abs=1e-5)
    assert expected.numpy() == pytest.approx(bald(p)[1], abs=1e-5)


def test_seed_reproduces(tiny: LocalModel, ask: list[Message]) -> None:
    """The same seed gives bit-identical numbers, another seed different ones."""
    first, again, other = (dropout_passes(tiny, ask, ANSWER, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.logprobs, again.logprobs)
    assert np.array_equal(first.mutual_information, again.mutual_information)
    assert not np.array_equal(first.logprobs, other.logprobs)


def test_random_state_is_untouched(tiny: LocalModel, ask: list[Message]) -> None:
    """The global generators of torch, numpy and Python are left alone."""
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002  # the global one
    dropout_passes(tiny, ask, ANSWER, passes=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]  # noqa: NPY002  # the global one


def test_model_is_as_before(model: LocalModel, ask: list[Message]) -> None:
    """Weights, modes and hooks, the user's own hook and a half-trained mode included."""
    calls: list[int] = []
    part = decoder_layers(model.network)[-1][1]
    handle = part.register_forward_hook(lambda *_: calls.append(1))
    part.train()
    try:
        before = state_of(model)
        passes = dropout_passes(model, ask, ANSWER, passes=3)
        assert_unchanged(model, before)
        assert part.training
    finally:
        part.eval()
        handle.remove()
    assert calls
    # Its own dropout layers, active in training mode, had no say.
    assert np.array_equal(passes.logprobs, dropout_passes(model, ask, ANSWER, passes=3).logprobs)


@pytest.mark.parametrize("at", [1, 2])
def test_model_is_as_before_after_an_exception(model: LocalModel, ask: list[Message], at: int) -> None:
    """An exception within the pass over the prompt, or over the answer, leaves nothing behind."""
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt

    handle = decoder_layers(model.network)[-1][1].register_forward_hook(fail)
    try:
        before = state_of(model)
        with pytest.raises(KeyboardInterrupt):
            dropout_passes(model, ask, ANSWER, passes=3, prompt=True)
        assert_unchanged(model, before)
    finally:
        handle.remove()
    assert model.logprobs_of(ask, ANSWER) == pytest.approx(
        dropout_passes(model, ask, ANSWER, rate=0.0).logprobs[0], abs=1e-4
    )


def test_generating_threads_see_no_dropout(tiny: LocalModel, ask: list[Message]) -> None:
    """Answers drawn during passes equal those drawn alone, and so do the passes."""
    alone = tiny.generate(ask, max_tokens=12)[0].raw
    passes = dropout_passes(tiny, ask, ANSWER, rate=0.5).logprobs
    start = threading.Barrier(4)

    def draw() -> list[Any]:
        start.wait()
        return [tiny.generate(ask, max_tokens=12)[0].raw for _ in range(6)]

    def drop() -> list[Any]:
        start.wait()
        return [dropout_passes(tiny, ask, ANSWER, rate=0.5).logprobs for _ in range(6)]

    with ThreadPoolExecutor(4) as pool:
        drawn, dropped = [pool.submit(draw) for _ in range(2)], [pool.submit(drop) for _ in range(2)]
        assert all(raw == alone for one in drawn for raw in one.result())
        assert all(np.array_equal(got, passes) for one in dropped for got in one.result())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passes": 1}, "at least 2"),
        ({"rate": 1.0}, "in .0, 1."),
        ({"layers": 3}, "expected 1 to 2"),
        ({"layers": 0}, "from 1"),
        ({"seed": -1}, "0 or more"),
        ({"answer": ""}, "answer is empty"),
        ({"answer": "x" * 400}, "exceed the context window of 256"),
        ({"messages": []}, "messages is empty"),
    ],
)
def test_bad_requests(tiny: LocalModel, ask: list[Message], changes: dict[str, Any], says: str) -> None:
    """Each is refused before the model is used, and the error says what to do."""
    settings: dict[str, Any] = {"messages": ask, "answer": ANSWER, **changes}
    with pytest.raises(RequestError, match=says):
        dropout_passes(tiny, settings.pop("messages"), settings.pop("answer"), **settings)


@pytest.mark.parametrize("kind", ["OPT", "Bloom"])
def test_unknown_architecture(kind: str) -> None:
    """A network without such layers, or that adds the residual inside them, is refused by name."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2, n_layer=1, n_head=2,
        word_embed_proj_dim=8,
    )  # fmt: skip
    network = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match=f"{kind}ForCausalLM: expected a list of layers"):
        decoder_layers(network)


def test_defaults_are_the_signals() -> None:
    """The defaults of `Score` are those of the function."""
    from confroute.asks import Score

    ask = Score(tier="edge", answer="a")
    for name, parameter in inspect.signature(dropout_passes).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert getattr(ask, name) == parameter.default


def test_real_model_doubts_a_wrong_answer_more(smollm2: LocalModel) -> None:
    """SmolLM2: exact without dropout, finite with it, and more doubt about the wrong capital than the right one."""
    capital = [Message(role="user", text="What is the capital of France?")]
    right, wrong = (f"The capital of France is {city}." for city in ("Paris", "Quito"))
    exact = dropout_passes(smollm2, capital, right, passes=2, rate=0.0)
    assert exact.logprobs[0] == pytest.approx(smollm2.logprobs_of(capital, right), abs=1e-4)
    sure, unsure = (dropout_passes(smollm2, capital, text, passes=4, rate=0.01) for text in (right, wrong))
    assert decompose(sure).answer["mutual_information"] < np.log(4)
    assert decompose(sure).answer["token_variance"] < decompose(unsure).answer["token_variance"]
    assert decompose(sure).answer["total"] < decompose(unsure).answer["total"]
