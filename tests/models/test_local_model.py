"""`LocalModel`: its answers, their log-probabilities, and its errors."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from safetensors import SafetensorError

from confroute.errors import ModelError, RequestError
from confroute.models import decoding, loading, prompts
from confroute.models.catalog import find
from confroute.models.local import LocalModel, LocalTextModel, Piece
from confroute.models.sampling import GrowingAnswer
from confroute.types import Message, Usage

pytestmark = pytest.mark.local
MakeTiny = Callable[..., Path]

CAPITAL = [Message(role="user", text="What is the capital of France?")]


def full_logprobs(model: LocalModel, messages: list[Message], ids: tuple[int, ...]) -> list[float]:
    """Reference: one forward pass over everything, no cache."""
    prompt = prompts.prompt_ids(model.tokenizer, messages)
    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double()
    rows = logits.log_softmax(1)[len(prompt) - 1 : -1]
    return rows.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()


def hf_greedy(model: LocalModel, messages: list[Message], new: int) -> list[int]:
    """Reference: transformers' own greedy decoding."""
    prompt = torch.tensor([prompts.prompt_ids(model.tokenizer, messages)])
    out = model.network.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=new
    )
    return out[0, prompt.shape[1] :].tolist()


def test_greedy_is_transformers_greedy(smollm2: LocalModel) -> None:
    """The real model answers as `generate(do_sample=False)` does, token by token, with the full pass's log-probabilities."""
    (answer,) = smollm2.generate(CAPITAL, max_tokens=16)
    expected = hf_greedy(smollm2, CAPITAL, 16)
    assert [*answer.raw, smollm2.tokenizer.eos_token_id] == expected
    assert answer.text == "The capital of France is Paris."
    assert answer.logprobs == pytest.approx(full_logprobs(smollm2, CAPITAL, answer.raw), abs=1e-3)
    assert answer.finish == "stop"
    assert answer.usage == Usage(
        input_tokens=smollm2.count_tokens(CAPITAL), output_tokens=len(answer.raw) + 1
    )
    assert answer.model == "smollm2-135m"
    assert answer.latency_s > 0


def test_tiny_greedy_is_transformers_greedy(tiny: LocalModel, ask: list[Message]) -> None:
    """So does a random model, over many tokens."""
    (answer,) = tiny.generate(ask, max_tokens=40)
    assert list(answer.raw) == hf_greedy(tiny, ask, 40)[: len(answer.raw)]
    assert answer.logprobs == pytest.approx(full_logprobs(tiny, ask, answer.raw), abs=1e-4)


def test_samples_reproduce_with_seed(tiny: LocalModel, ask: list[Message]) -> None:
    """The same seed gives the same batch, another seed another one, and so does none."""
    first, again, other = (
        [a.raw for a in tiny.generate(ask, n=5, temperature=1.0, max_tokens=12, seed=seed)]
        for seed in (3, 3, 4)
    )
    free = [tiny.generate(ask, temperature=1.0, max_tokens=12)[0].raw for _ in range(2)]
    assert first == again
    assert first != other
    assert len(set(first)) > 1
    assert free[0] != free[1]


def test_rows_do_not_disturb_each_other(tiny: LocalModel, ask: list[Message]) -> None:
    """A row draws the same tokens whether or not a stop string ends the others."""
    plain = tiny.generate(ask, n=6, temperature=1.0, max_tokens=30, seed=1)
    stop = plain[0].text[3]
    cut = tiny.generate(ask, n=6, temperature=1.0, max_tokens=30, seed=1, stop=[stop])
    assert [c.text for c in cut] == [p.text.split(stop)[0] for p in plain]
    assert any(c.finish == "stop" for c in cut)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.6)])
def test_first_tokens_follow_the_distribution(
    tiny: LocalModel, ask: list[Message], temperature: float, top_p: float
) -> None:
    """Frequencies of 4000 first tokens agree with the softmax (chi-square over the likeliest tokens)."""
    n = 4000
    drawn = tiny.generate(ask, n=n, temperature=temperature, top_p=top_p, max_tokens=1, seed=0)
    prompt = torch.tensor([prompts.prompt_ids(tiny.tokenizer, ask)])
    with torch.inference_mode():
        expected = (tiny.network(input_ids=prompt).logits[0, -1].double() / temperature).softmax(0)
    order = expected.argsort(descending=True)
    before = expected[order].cumsum(0) - expected[order]
    kept = expected.clone()
    kept[order[before >= top_p]] = 0
    kept /= kept.sum()
    counts = torch.zeros_like(kept)
    for answer in drawn:
        counts[answer.raw[0] if answer.raw else tiny.tokenizer.eos_token_id] += 1
    assert counts[kept == 0].sum() == 0
    common = kept * n >= 5
    chi2 = ((counts[common] - n * kept[common]) ** 2 / (n * kept[common])).sum().item()
    freedom = int(common.sum())
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5


def test_logprobs_ignore_temperature_and_top_p(tiny: LocalModel, ask: list[Message]) -> None:
    """Samples after the shared prompt report the model's own distribution, as teacher forcing does."""
    for answer in tiny.generate(ask, n=6, temperature=1.7, top_p=0.9, max_tokens=20, seed=5):
        assert answer.logprobs == pytest.approx(full_logprobs(tiny, ask, answer.raw), abs=1e-4)
        scored = decoding.score(tiny._weights, prompts.prompt_ids(tiny.tokenizer, ask), answer.raw)
        assert answer.logprobs == pytest.approx(scored, abs=1e-4)


def test_real_samples_agree_with_teacher_forcing(smollm2: LocalModel) -> None:
    """The same for the real model."""
    for answer in smollm2.generate(CAPITAL, n=3, temperature=0.7, max_tokens=8, seed=5):
        assert answer.logprobs == pytest.approx(full_logprobs(smollm2, CAPITAL, answer.raw), abs=1e-3)


def test_logprobs_of_an_answer(smollm2: LocalModel) -> None:
    """Scoring the greedy answer's text gives the greedy answer's log-probabilities; a wrong answer is less likely."""
    (answer,) = smollm2.generate(CAPITAL, max_tokens=16)
    right = smollm2.logprobs_of(CAPITAL, answer.text)
    wrong = smollm2.logprobs_of(CAPITAL, answer.text.replace("Paris", "Rome"))
    assert right == pytest.approx(answer.logprobs, abs=1e-3)
    assert sum(wrong) < sum(right) - 1
    assert smollm2.logprobs_of(CAPITAL, "") == ()


def test_scoring_in_parts(tiny: LocalModel, ask: list[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    """Processing prompt and answer in small parts changes nothing."""
    whole = tiny.logprobs_of(ask, "the cat sat on the mat")
    (greedy,) = tiny.generate(ask, max_tokens=10)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 5)
    monkeypatch.setattr(decoding, "SCORE_TOKENS", 3)
    assert tiny.logprobs_of(ask, "the cat sat on the mat") == pytest.approx(whole, abs=1e-4)
    assert tiny.generate(ask, max_tokens=10)[0].raw == greedy.raw


def test_tokens_join_to_text(tiny: LocalModel, ask: list[Message]) -> None:
    """Tokens align with log-probabilities and join to the text, broken characters included."""
    for answer in tiny.generate(ask, n=16, temperature=1.5, max_tokens=40, seed=9):
        assert "".join(answer.tokens) == answer.text
        assert len(answer.tokens) == len(answer.logprobs) == len(answer.raw)
        assert answer.text == tiny.tokenizer.decode(answer.raw, skip_special_tokens=True)


def test_characters_that_span_tokens(tiny: LocalModel) -> None:
    """A character belongs to the token that completes it."""
    row = GrowingAnswer(decode=prompts.decoder_of(tiny.tokenizer))
    for token in tiny.tokenizer.encode("né 猫", add_special_tokens=False):
        row.push(token, -0.5)
    row.end("length")
    assert row.text == "né 猫"
    assert [piece for piece in row.tokens if piece] == ["n", "é", " ", "猫"]
    assert len(row.tokens) == len("né 猫".encode())


def test_stop_strings_that_span_tokens(smollm2: LocalModel) -> None:
    """The text ends before the first stop string; tokens and log-probabilities with it."""
    whole, cut = (
        smollm2.generate(CAPITAL, max_tokens=16, stop=stop)[0] for stop in ((), ["ance is", "Paris"])
    )
    assert cut.text == "The capital of Fr"
    assert cut.tokens == ("The", " capital", " of", " Fr")
    assert cut.logprobs == whole.logprobs[:4]
    assert cut.finish == "stop"
    assert cut.usage.output_tokens == len(cut.tokens)


def test_stop_string_at_the_start(tiny: LocalModel, ask: list[Message]) -> None:
    """A stop string that comes first leaves an empty answer."""
    (whole,) = tiny.generate(ask, max_tokens=10)
    (cut,) = tiny.generate(ask, max_tokens=10, stop=[whole.text[0]])
    assert (cut.text, cut.tokens, cut.logprobs, cut.finish) == ("", (), (), "stop")


@pytest.mark.parametrize("cut", [None, slice(5, 9), slice(10, 12)])
@pytest.mark.parametrize("seed", range(6))
def test_stream_is_generate(tiny: LocalModel, ask: list[Message], seed: int, cut: slice | None) -> None:
    """The pieces join to the result of generate with the same seed: text, tokens, log-probabilities, finish, usage."""
    (free,) = tiny.generate(ask, temperature=1.2, max_tokens=40, seed=seed)
    stop = [free.text[cut], "never said"] if cut else []
    (whole,) = tiny.generate(ask, temperature=1.2, max_tokens=40, seed=seed, stop=stop)
    assert not cut or len(whole.text) < len(free.text)
    pieces = list(tiny.stream(ask, temperature=1.2, max_tokens=40, seed=seed, stop=stop))
    assert "".join(p.text for p in pieces) == whole.text
    assert sum((p.tokens for p in pieces), ()) == whole.tokens
    assert sum((p.logprobs for p in pieces), ()) == pytest.approx(whole.logprobs, abs=1e-4)
    assert all("".join(p.tokens) == p.text for p in pieces)
    assert [p.finish for p in pieces] == [None] * (len(pieces) - 1) + [whole.finish]
    assert pieces[-1].usage == whole.usage
    assert all(p.usage is None and p.text for p in pieces[:-1])


def test_stream_withholds_what_may_begin_a_stop_string(smollm2: LocalModel) -> None:
    """No piece shows the beginning of the stop string."""
    shown = [p.text for p in smollm2.stream(CAPITAL, max_tokens=16, stop=[" of France is Rome", " Paris"])]
    assert shown[0] == "The"
    assert " of" not in shown
    assert "".join(shown) == "The capital of France is"


def test_closing_a_stream_stops_decoding(
    tiny: LocalModel, ask: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further step is taken once the iterator is closed."""
    steps: list[int] = []
    real = decoding.Decoder.step
    monkeypatch.setattr(decoding.Decoder, "step", lambda self: steps.append(1) or real(self))
    stream = tiny.stream(ask, max_tokens=100)
    next(stream)
    taken = len(steps)
    stream.close()
    assert taken == len(steps) < 10


def test_cancelling(tiny: LocalModel, ask: list[Message]) -> None:
    """Setting the event ends the call with the answer so far; set beforehand, with an empty one."""
    cancel = threading.Event()
    pieces: list[Piece] = []
    for piece in tiny.stream(ask, max_tokens=100, cancel=cancel):
        pieces.append(piece)
        cancel.set()
    assert len(pieces) == 2
    assert pieces[-1].finish == "cancelled"
    (answer,) = tiny.generate(ask, cancel=cancel)
    assert (answer.text, answer.finish, answer.usage.output_tokens) == ("", "cancelled", 0)


def test_cancelling_from_another_thread(tiny: LocalModel, ask: list[Message], steps: list[int]) -> None:
    """A call ends within a step of the event being set, wherever it is set."""
    cancel = threading.Event()
    taken: list[int] = []

    def interrupt() -> None:
        while len(steps) < 3:
            time.sleep(0.001)
        taken.append(len(steps))
        cancel.set()

    other = threading.Thread(target=interrupt)
    other.start()
    (answer,) = tiny.generate(ask, temperature=5.0, seed=3, max_tokens=200, cancel=cancel)
    other.join()
    assert answer.finish == "cancelled"
    # The step under way, the one that notices, and one more if the scheduler comes in between.
    assert len(steps) <= taken[0] + 3


def test_threads_do_not_disturb_each_other(tiny: LocalModel, ask: list[Message]) -> None:
    """Eight threads at once draw the same as each alone."""

    def draw(seed: int) -> list[object]:
        return [a.raw for a in tiny.generate(ask, n=3, temperature=1.0, max_tokens=15, seed=seed)]

    alone = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, range(8)))
    assert together == alone


def test_global_random_state_is_untouched(tiny: LocalModel, ask: list[Message]) -> None:
    """Neither seeded nor free calls move torch's global generator."""
    before = torch.get_rng_state()
    tiny.generate(ask, n=2, temperature=1.0, max_tokens=5, seed=1)
    tiny.generate(ask, temperature=1.0, max_tokens=5)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_are_not_changed(tiny: LocalModel, ask: list[Message]) -> None:
    """Generating leaves every weight as it was, in evaluation mode, without gradients."""
    before = {name: value.clone() for name, value in tiny.network.state_dict().items()}
    tiny.generate(ask, n=3, temperature=1.0, max_tokens=10)
    assert all(torch.equal(before[name], value) for name, value in tiny.network.state_dict().items())
    assert not tiny.network.training
    assert not any(weight.requires_grad for weight in tiny.network.parameters())


def test_ended_rows_leave_the_batch(
    tiny: LocalModel, ask: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later steps run with fewer rows, and the prompt with one."""
    shapes: list[tuple[int, ...]] = []
    real = decoding.forward

    def spy(weights: object, ids: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        shapes.append(tuple(ids.shape))
        return real(weights, ids, *args, **kwargs)

    monkeypatch.setattr(decoding, "forward", spy)
    tiny.generate(ask, n=8, temperature=1.0, max_tokens=30, seed=1, stop=["a", "e", "t"])
    assert shapes[0] == (1, tiny.count_tokens(ask))
    rows = [shape[0] for shape in shapes[1:]]
    assert rows[-1] < 8
    assert rows == sorted(rows, reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 2},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"stop": ["a", ""]},
        {"stop": "a"},
    ],
)
def test_parameters_out_of_range(tiny: LocalModel, ask: list[Message], wrong: dict[str, object]) -> None:
    """The error names the value and what was expected."""
    (name,) = wrong
    with pytest.raises(RequestError, match=f"{name}=.*(expected|would give)"):
        tiny.generate(ask, **wrong)


def test_no_messages(tiny: LocalModel) -> None:
    """An empty conversation is refused."""
    for call in (tiny.generate, tiny.stream, tiny.count_tokens):
        with pytest.raises(RequestError, match="empty"):
            call([])


def test_too_long_a_prompt(tiny_folder: Path, ask: list[Message]) -> None:
    """The error has the numbers, and comes before the first piece."""
    tokens = LocalModel.load(tiny_folder).count_tokens(ask)
    model = LocalModel.load(tiny_folder, context_window=tokens)
    with pytest.raises(RequestError, match=f"{tokens} tokens.*at most {tokens - 1}"):
        model.stream(ask)
    with pytest.raises(RequestError, match="exceed the context window"):
        model.logprobs_of(ask, "the")


def test_the_window_limits_the_answer(tiny_folder: Path, ask: list[Message]) -> None:
    """Prompt and answer together fill the window and no more."""
    tokens = LocalModel.load(tiny_folder).count_tokens(ask)
    (answer,) = LocalModel.load(tiny_folder, context_window=tokens + 3).generate(ask, temperature=1.0, seed=2)
    assert answer.usage.output_tokens == 3
    assert answer.finish == "length"


def test_too_large_a_window(tiny_folder: Path) -> None:
    """A window beyond the model's own is refused."""
    with pytest.raises(ModelError, match="256"):
        LocalModel.load(tiny_folder, context_window=1000)


def test_tool_turns_are_sent_as_the_users(tiny: LocalModel) -> None:
    """A template that refuses tool turns gets them from the user."""
    turns = [
        Message(role=role, text=text)
        for role, text in (("user", "sum?"), ("assistant", "add"), ("tool", "42"))
    ]
    same = [*turns[:2], Message(role="user", text="42")]
    assert prompts.prompt_ids(tiny.tokenizer, turns) == prompts.prompt_ids(tiny.tokenizer, same)


def test_a_template_that_refuses(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """The error quotes the template."""
    model = LocalModel.load(make_tiny(tmp_path, template="{{ raise_exception('system not supported') }}"))
    with pytest.raises(RequestError, match="system not supported"):
        model.count_tokens([Message(role="system", text="x")])


def test_without_a_template(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """Roles become plain lines of text."""
    model = LocalModel.load(make_tiny(tmp_path, template=None))
    ids = prompts.prompt_ids(
        model.tokenizer, [Message(role="system", text="s"), Message(role="user", text="u")]
    )
    assert model.tokenizer.decode(ids) == "system: s\nuser: u\nassistant:"
    assert model.generate([Message(role="user", text="u")], max_tokens=3)[0].usage.output_tokens


def test_weights_are_shared(tiny_folder: Path) -> None:
    """Concurrent loads of one source give one copy; another dtype another."""
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(LocalModel.load, [tiny_folder, str(tiny_folder)] * 4))
    assert len({id(model.network) for model in models}) == 1
    half = LocalModel.load(tiny_folder, dtype="bfloat16")
    assert half.network.dtype is torch.bfloat16
    assert half.network is not models[0].network


def test_first_loads_at_once_load_once() -> None:
    """The other threads wait for the first."""
    made: list[int] = []

    def make() -> object:
        time.sleep(0.05)
        made.append(1)
        return object()

    with ThreadPoolExecutor(6) as pool:
        values = list(pool.map(lambda _: loading.once(("test", id(made)), make), range(6)))
    assert len(made) == 1
    assert len({id(value) for value in values}) == 1


def test_loading_is_quiet(tiny_folder: Path) -> None:
    """Nothing is printed, and transformers' own settings are as before."""
    code = (
        "import sys; from transformers.utils import logging as l; a = (l.get_verbosity(), l.is_progress_bar_enabled());"
        "from confroute.models.local import LocalModel; LocalModel.load(sys.argv[1]);"
        "assert a == (l.get_verbosity(), l.is_progress_bar_enabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_tampered_gguf(tmp_path: Path) -> None:
    """Neither another kind of file nor a truncated one is taken for a model."""
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ModelError, match=r"other\.gguf: expected a GGUF file"):
        LocalModel.load(other)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(100))
    with pytest.raises(ModelError, match=r"cut\.gguf: damaged.*download it again"):
        LocalModel.load(cut)


def test_not_a_model(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """An empty folder, a missing path, a damaged folder: each error says what to do."""
    with pytest.raises(ModelError, match=r"config\.json"):
        LocalModel.load(tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        LocalModel.load(tmp_path / "nothing")
    broken = make_tiny(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="copy the whole folder again"):
        LocalModel.load(broken)


def test_without_a_tokenizer(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """The error names the files that are missing."""
    with pytest.raises(ModelError, match=r"no tokenizer.*tokenizer\.json"):
        LocalModel.load(make_tiny(tmp_path, tokenizer=False))


def test_unknown_dtype(tiny_folder: Path) -> None:
    """The types that are known are listed."""
    with pytest.raises(ModelError, match=r"int8.*'auto' or one of float32, bfloat16"):
        LocalModel.load(tiny_folder, dtype="int8")


def test_converted_weights_are_kept_whole(tiny: LocalModel, tmp_path: Path) -> None:
    """The folder beside a GGUF is complete, marked with the file it came from, and stale once that changes."""
    gguf = tmp_path / "x.gguf"
    gguf.write_bytes(b"GGUF" + bytes(10))
    folder = tmp_path / "x.gguf.float32"
    assert not loading._is_current(folder, gguf)
    loading._keep(tiny.network, tiny.tokenizer, folder, gguf)
    assert loading._is_current(folder, gguf)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.gguf", "x.gguf.float32"]
    assert LocalModel.load(gguf).generate([Message(role="user", text="u")], max_tokens=4)
    (folder / "model.safetensors").write_bytes(b"")
    loading._cache.clear()
    with pytest.raises(ModelError, match=r"x\.gguf: damaged"):
        LocalModel.load(gguf)
    assert not folder.exists()
    gguf.write_bytes(b"GGUF" + bytes(11))
    assert not loading._is_current(folder, gguf)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file whose converted weights are to be kept beside it."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(10))
    return path


def test_weights_that_cannot_be_kept_are_told(
    tiny: LocalModel, gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each start would take minutes, and nobody would know why; what cannot be written leaves nothing behind."""
    folder = gguf.with_name("x.gguf.float32")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tiny.network, "save_pretrained", full)
        loading._keep(tiny.network, tiny.tokenizer, folder, gguf)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
        loading._keep(tiny.network, tiny.tokenizer, folder, gguf)
    assert [*gguf.parent.iterdir()] == [gguf]
    disk, room = caplog.messages
    assert disk.startswith("x.gguf is converted again at every start: ")
    assert "No space left on device" in disk
    assert "0.0 GB are free" in room


def test_weights_that_another_process_kept_first_are_theirs(
    tiny: LocalModel, gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is wrong, and nothing is said."""
    folder = gguf.with_name("x.gguf.float32")
    save = tiny.network.save_pretrained

    def meanwhile(where: Path) -> None:
        save(where)
        monkeypatch.undo()
        loading._keep(tiny.network, tiny.tokenizer, folder, gguf)

    monkeypatch.setattr(tiny.network, "save_pretrained", meanwhile)
    monkeypatch.setattr(loading, "_is_current", lambda *_: False)
    loading._keep(tiny.network, tiny.tokenizer, folder, gguf)
    assert loading._is_current(folder, gguf)
    assert not caplog.records


@pytest.mark.local
@pytest.mark.slow
def test_a_conversion_is_announced_the_first_time_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the folder that it fills and the size that it then has, at a level that Python prints by default."""
    kept = find("smollm2-135m").path
    if not kept.exists():
        pytest.skip("needs smollm2-135m: confroute pull smollm2-135m")
    gguf = tmp_path / "small.gguf"
    shutil.copy(kept, gguf)
    loading.load_gguf(gguf, "bfloat16")
    folder = tmp_path / "small.gguf.bfloat16"
    ((name, level, line),) = caplog.record_tuples
    assert (name, level) == ("confroute", logging.WARNING)
    assert line.startswith("converting small.gguf to bfloat16, once: ")
    assert line.endswith(f" GB are written to {folder}")
    said = float(line.split(" GB")[0].split()[-1])
    assert said == pytest.approx((folder / "model.safetensors").stat().st_size / 1e9, abs=0.051)
    loading.load_gguf(gguf, "bfloat16")
    assert len(caplog.records) == 1


def test_core_import_needs_no_torch() -> None:
    """Neither the package nor this module imports torch."""
    code = "import sys, confroute, confroute.models.local, confroute.models.nli; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("has_it", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_the_type_this_processor_is_fast_in(has_it, expected, tiny_folder, monkeypatch):
    """bfloat16 where the CPU multiplies it, since it is many times slower elsewhere."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert LocalModel.load(tiny_folder, dtype="auto").network.dtype is expected


@pytest.mark.parametrize(("large", "expected"), [(0, torch.bfloat16), (10**12, torch.float32)])
def test_the_type_of_weights_is_chosen_by_size(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, large: int, expected: torch.dtype
) -> None:
    """By one rule for all who load a model, who then share one copy."""
    from langchain_confroute import ChatLocal
    from llamaindex_confroute import LocalLLM

    monkeypatch.setattr(loading, "LARGE_BYTES", large)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    network = LocalModel.load(tiny_folder).network
    assert network.dtype is expected
    where = str(tiny_folder)
    for model in (LocalTextModel(model=where), ChatLocal(model=where), LocalLLM(model=where)):
        assert model.loaded().network is network


def test_a_model_of_the_hub_is_taken_to_be_large() -> None:
    """Its size is not known before it is there."""
    assert loading.suited_dtype(None) == "auto"


def test_the_head_reads_a_contiguous_state(tiny_folder: Path) -> None:
    """Of a slice of all positions torch would copy the head's weights, in bfloat16."""
    network = LocalModel.load(tiny_folder, dtype="bfloat16").network
    seen: list[torch.Tensor] = []
    handle = network.get_output_embeddings().register_forward_pre_hook(
        lambda _head, states: seen.append(states[0])
    )
    try:
        network(input_ids=torch.tensor([[1, 2, 3]]), logits_to_keep=1)
    finally:
        handle.remove()
    (state,) = seen
    assert state.shape[:2] == (1, 1)
    assert state.stride(0) == state.shape[2]
