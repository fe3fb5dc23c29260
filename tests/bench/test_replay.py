"""The replay of RouteLLM's benchmarks: loading, protocol, leaks of test prompts, and known reference numbers."""

import csv
import gzip
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from confroute.bench import load_benchmarks, replay
from confroute.bench.candidates import CANDIDATES, HEAD_CHOICES, HeadChoice, joined
from confroute.bench.data import STRONG, WEAK, Benchmark
from confroute.bench.material import Texts, embed_cached
from confroute.bench.preference import compare, routed_quality
from confroute.bench.protocol import cpt_binned, cpt_crossing, measure
from confroute.bench.report import html, markdown, plot, write
from confroute.bench.training import STRONG as STRONG_MODELS
from confroute.bench.training import WEAK as WEAK_MODELS
from confroute.bench.training import knowing, load_tasks, load_training_set, near_duplicates
from confroute.cli import main
from confroute.errors import PolicyError
from confroute.heads import encoder
from confroute.stats.metrics import apgr

DATA = Path(os.environ.get("CONFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))


def bench(n=400, seed=0):
    """A benchmark whose quality depends on a hidden difficulty, and that difficulty."""
    generator = np.random.default_rng(seed)
    hard = generator.random(n)
    weak, strong = (generator.random(n) > hard).astype(float), (generator.random(n) > hard / 3).astype(float)
    made = Benchmark(
        name="made",
        prompts=tuple(f"prompt {at}" for at in range(n)),
        weak=weak,
        strong=strong,
        weak_usd=np.full(n, 1e-6),
        strong_usd=np.full(n, 1e-3),
    )
    return made, hard


def subject(at):
    """Eleven words that differ by row, so that rows are not near-duplicates."""
    letters = np.random.default_rng(at).integers(97, 123, (11, 6))
    return " ".join("".join(map(chr, word)) for word in letters)


@pytest.fixture
def routellm(tmp_path):
    """A small folder in RouteLLM's layout, and recorded training data beside it."""
    evals = tmp_path / "clone/routellm/evals"
    (evals / "mmlu/responses").mkdir(parents=True)
    with (evals / "mmlu/responses/mmlu_law.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", WEAK, STRONG])
        for at in range(60):
            rows.writerow([f"{subject(at)}?\nA. x\nB. y\nAnswer:", at % 3 > 0, at % 7 > 0])
    leak = {"eval_prompt": f"{subject(0)}?\nA. x\nB. y\nAnswer:"}
    (evals / "mmlu/contaminated_prompts.jsonl").write_text(json.dumps(leak) + "\n")
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    with gzip.open(recorded / "nine_models_mmlu_medmcqa.jsonl.gz", "wt") as file:
        for at in range(40, 140):
            models = {
                name: {"correct": (at + k) % 3 > 0} for k, name in enumerate(WEAK_MODELS + STRONG_MODELS)
            }
            line = {"id": f"r{at}", "dataset": "mmlu", "question": f"{subject(at)}?", "models": models}
            file.write(json.dumps({**line, "prompt": "Choices:\nA: x\nB: y\n\nAnswer: "}) + "\n")
    return tmp_path / "clone", recorded


def tiny(texts):
    """A deterministic embedding that counts words by a hash."""
    vectors = np.zeros((len(texts), 64))
    for row, text in zip(vectors, texts, strict=True):
        np.add.at(row, [zlib.crc32(word.encode()) % 64 for word in text.split()], 1.0)
    return vectors


def test_crossings_and_bins_agree_with_the_definition():
    """A perfect order reaches the target where counting says; RouteLLM's interpolation comes close."""
    made, _ = bench()
    gain = made.strong - made.weak
    first = cpt_crossing(gain, made)
    wins = int(np.ceil(0.5 * gain.sum()))
    assert first[1] == pytest.approx(100 * wins / made.n)
    assert cpt_binned(gain + np.linspace(0, 1e-3, made.n), made)[1] == pytest.approx(first[1], abs=5)


def test_a_measured_method_has_all_its_numbers():
    """APGR is exact and lies in its interval, and the cost rises with the target."""
    made, hard = bench()
    result = measure("hard", hard, made, resamples=200)
    assert result.apgr == apgr(hard, made.weak, made.strong)
    assert result.apgr_ci[0] < result.apgr < result.apgr_ci[1]
    assert result.usd[0] < result.usd[1] < result.usd[2]
    assert set(result.to_dict()) == {"apgr", "apgr_ci", "cpt50", "cpt80"}


def test_a_better_router_is_preferred_and_equal_ones_are_not():
    """Against random order the hidden difficulty wins on every measure; against itself all differences are 0."""
    made, hard = bench(n=2000)
    good = measure("hard", hard, made, resamples=10)
    random = measure("random", np.random.default_rng(1).random((5, made.n)), made, resamples=10)
    comparison = compare(good, random, made, 200)
    assert comparison.preference.low > 0
    assert comparison.win_rate.low > 0.5
    assert comparison.below_cloud.high < 0
    same = compare(good, good, made, 50)
    assert (same.preference.value, same.win_rate.value, same.spread.value) == (0, 0.5, 0)
    assert routed_quality(good.scores, made, 1.0)[0].tolist() == made.strong.tolist()


def test_near_duplicates_are_found_whatever_their_numbers():
    """Case, punctuation and figures do not hide a test prompt; a shared phrase does not make one."""
    tests = ["A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts?"]
    near = "a robe takes 5 bolts of blue fiber, and half that much white fiber. How many bolts"
    far = "How many bolts of blue cloth does the old tailor of the town buy in a week of work?"
    assert near_duplicates([near, far, ""], tests) == {0}


def test_two_questions_from_one_template_are_not_duplicates():
    """Text in more than ten test prompts is a template: it does not count, unless the prompt is nothing else."""
    form = "For which of these two scenarios does the main character, who says so, do something that is clearly morally wrong?"
    tests = [f"{form} {subject(at)}" for at in range(11)]
    assert near_duplicates([f"{form} {subject(99)}", f"{form} {subject(3)}", form], tests) == {1, 2}
    assert near_duplicates([f"{form} {subject(99)}"], tests[:10]) == {0}


def test_no_test_prompt_stays_in_a_training_set(routellm):
    """Recorded rows that are test prompts are removed by their words and by their vectors, the others stay."""
    clone, recorded = routellm
    tests = load_benchmarks(clone)["mmlu"].prompts
    train = load_training_set(recorded)
    by_words, by_cosine = train.distinct_from(tests, tiny(train.prompts), tiny(tests))
    assert (~by_words).sum() == 20
    assert not (by_cosine & ~by_words).any()
    rest = train.subset(by_words)
    assert rest.removed + len(rest.prompts) == 100
    assert rest.gain().shape == rest.battle.shape == rest.wrong.shape == (80,)
    assert not {*rest.prompts} & {*tests}


def test_soft_labels_are_means_over_the_models(routellm):
    """They are how much more often strong models are right than weak ones, and leave out models on request."""
    train = load_training_set(routellm[1])
    weak, strong = train.weak.mean(axis=0), train.strong.mean(axis=0)
    assert train.gain() == pytest.approx((1 + strong - weak) / 2)
    assert train.pairs == [*zip(WEAK_MODELS[1:], STRONG_MODELS, strict=True)]
    assert not np.array_equal(train.gain(), train.gain(without=(WEAK_MODELS[0], STRONG_MODELS[0])))


def test_models_that_fail_by_their_format_label_nothing(tmp_path):
    """Of LLMRouter's rows those models count that beat chance and a third of the best; the largest gap parts them."""
    means = {"format": 0.1, "small": 0.3, "medium": 0.4, "large": 0.8, "best": 0.9}
    with gzip.open(tmp_path / "llmrouter_9models.jsonl.gz", "wt") as file:
        for at in range(40):
            scores = {name: float(at < 40 * mean) for name, mean in means.items()}
            row = {"task": "gsm8k" if at % 2 else "math", "prompt": f"sum {at}?", "choices": None}
            file.write(json.dumps({**row, "scores": scores}) + "\n")
    tasks = load_tasks(tmp_path)
    assert [*tasks] == ["gsm8k", "math"]
    one = tasks["gsm8k"]
    assert one.weak_models == ("small", "medium")
    assert one.strong_models == ("large", "best")
    assert one.pairs == [("small", "large"), ("medium", "best")]
    assert one.weak.mean(axis=1) == pytest.approx([0.3, 0.4])
    # With four options chance is .25: the same scores leave out whoever guesses, however low the best is.
    assert knowing({"a": np.array([0.2]), "b": np.array([0.3]), "c": np.array([0.5])}, chance=0.25) == (
        ("b",),
        ("c",),
    )
    assert load_tasks(tmp_path / "nowhere") == {}


def test_options_are_read_as_routellm_writes_them(tmp_path):
    """They are the text of a Python list, which is parsed and never run."""
    with gzip.open(tmp_path / "llmrouter_9models.jsonl.gz", "wt") as file:
        for at, task in enumerate(("gsm8k", "math") * 3):
            scores = {"a": float(at > 1), "b": 1.0}
            row = {"task": task, "prompt": "Which?", "choices": "['x', 'y']", "scores": scores}
            file.write(json.dumps(row) + "\n")
    assert load_tasks(tmp_path)["math"].prompts[0] == "Which?\nA. x\nB. y\nAnswer:"
    for broken in ("print(1)", "print("):
        with gzip.open(tmp_path / "llmrouter_9models.jsonl.gz", "wt") as file:
            file.write(json.dumps({**row, "task": "gsm8k", "choices": broken}) + "\n")
        with pytest.raises(PolicyError, match="expected the recorded files, unchanged"):
            load_tasks(tmp_path)


def test_a_choice_blends_its_members_and_takes_off_their_disagreement():
    """The mean, minus the standard deviation where members disagree and doubt is on."""
    scores = {"words": np.array([0.2, 0.4]), "minilm": np.array([0.4, 0.4]), "length": np.array([9.0, 9.0])}
    blend = HeadChoice(members=("words", "minilm"))
    assert blend.score(scores) == pytest.approx([0.3, 0.4])
    doubting = HeadChoice(members=("words", "minilm"), doubt=True)
    assert doubting.score(scores) == pytest.approx([0.2, 0.4])
    assert len({*CANDIDATES}) == len(CANDIDATES)
    assert {*HEAD_CHOICES.values()} <= {*CANDIDATES}


def test_runs_are_joined_without_a_trace_of_which_is_which():
    """Labels of each run have the same mean; prompts and all vectors follow one another."""
    one = Texts(prompts=("a", "b"), vectors=np.ones((2, 23)), others={"tuned": np.ones((2, 24))})
    two = Texts(prompts=("c",), vectors=np.zeros((1, 23)), others={"tuned": np.zeros((1, 24))})
    texts, labels = joined([(one, np.array([0.2, 0.4])), (two, np.array([0.9]))])
    assert texts.prompts == ("a", "b", "c")
    assert labels == pytest.approx([0.4, 0.6, 0.5])
    assert texts.others["tuned"].shape == (3, 24)
    assert texts.subset(np.array([False, False, True])).vectors.sum() == 0
    assert joined([(one, np.array([0.2, 0.4]))])[1] == pytest.approx([0.2, 0.4])


def test_everything_runs_from_folders(routellm, tmp_path):
    """With training data all heads are measured, embeddings are cached, and the pages contain every method."""
    clone, recorded = routellm
    lines = []
    embed, training_sets = encoder(tiny, name="tiny", features=True), []

    def tuned(train):
        training_sets.append(train)
        return encoder(lambda texts: -tiny(texts), name="tiny, tuned", features=True)

    replays = replay(
        clone,
        train=recorded,
        encoder=lambda: embed,
        tune=tuned,
        larger=lambda: encoder(lambda texts: tiny(texts)[:, ::-1], name="larger", features=True),
        cache=tmp_path / "c",
        resamples=20,
        say=lines.append,
    )
    names = [result.name for result in replays["mmlu"].results]
    assert {"random", "oracle", "prompt length", "kNN", "SW", "MF", "MLP", "confroute best"} <= {*names}
    # The encoder is tuned once, without test prompts.
    assert [len(train.prompts) for train in training_sets] == [80]
    assert any("near-duplicates" in line for line in lines)
    assert any("dropped as contaminated" in line for line in lines)
    assert {path.name for path in write(replays, tmp_path / "out")} == {
        "replay.html",
        "replay.md",
        "mmlu.svg",
        "mmlu-routers.svg",
    }
    for text in (html(replays), markdown(replays)):
        assert all(name in text for name in names)
    assert plot(replays["mmlu"]).startswith("<svg")
    assert embed_cached(embed, ["never", "seen"], tmp_path / "c").shape == (2, 64 + 22)


def test_embeddings_are_computed_once(tmp_path):
    """A second run reads the file of the first; other texts are embedded."""
    calls = []
    embed = encoder(lambda texts: calls.append(len(texts)) or tiny(texts), name="tiny")
    first = embed_cached(embed, ["a", "b"], tmp_path)
    assert np.array_equal(embed_cached(embed, ["a", "b"], tmp_path), first)
    embed_cached(embed, ["a", "c"], tmp_path)
    assert calls == [2, 2]


def test_standard_output_is_json_only(routellm, capsys, monkeypatch):
    """What is left out without training data is reported on standard error."""
    monkeypatch.delenv("CONFROUTE_DATA", raising=False)
    assert main(["bench", "replay", "--data", str(routellm[0]), "--resamples", "20", "--json"]) == 0
    out, err = capsys.readouterr()
    mmlu = json.loads(out)["benchmarks"]["mmlu"]
    assert mmlu["n"] == 59
    assert set(mmlu["methods"]["random"]) == {"apgr", "apgr_ci", "cpt50", "cpt80"}
    assert "no training data" in err


def test_a_folder_that_is_not_routellms_is_refused(tmp_path, capsys):
    """The errors name an empty folder, a missing argument and a missing training folder."""
    with pytest.raises(PolicyError, match="expected RouteLLM's folder layout"):
        load_benchmarks(tmp_path)
    assert main(["bench", "replay"]) == 1
    assert main(["bench", "replay", "--data", str(tmp_path), "--train", str(tmp_path / "no")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_reference_points_of_the_real_files():
    """The oracle, prompt length and the sizes have the values that were computed independently."""
    folder = DATA / "routellm"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set CONFROUTE_DATA to the folder of recorded data")
    benches = load_benchmarks(folder)
    expected = {"gsm8k": (1307, 1.121, 0.598), "mmlu": (14037, 1.285, 0.586), "mt-bench": (72, 0.964, 0.547)}
    for name, (n, oracle, length) in expected.items():
        one = benches[name]
        assert one.n == n
        assert apgr(one.strong - one.weak, one.weak, one.strong) == pytest.approx(oracle, abs=1e-3)
        assert apgr([len(p) for p in one.prompts], one.weak, one.strong) == pytest.approx(length, abs=1.1e-3)
    assert benches["mt-bench"].weak.mean() == pytest.approx(8.281, abs=1e-3)
    assert benches["mt-bench"].strong.mean() == pytest.approx(9.212, abs=1e-3)
