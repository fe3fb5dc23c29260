"""Which heads the replay's best is made of: chosen on the recorded models' answers, without any benchmark's answers.

    CONFROUTE_DATA=... python benchmarks/select_heads.py [--cache FOLDER] [--ceilings]

A pair of a weak and a strong model stands for edge and cloud; labels come from the models that are not in the pair. Three
ways to hold prompts out: at random (for MMLU), the maths subjects (for GSM8K), one of four groups of subjects (for MT-Bench).
Tuned encoders have seen the correctness of all nine models, the pair's too, on the prompts that are not held out.
Prompts that are near-duplicates of any benchmark's are out, as in the replay; nothing else of a benchmark is
read. Of the settings within one standard error of the best (of the paired difference) the simplest is chosen: the first in the table.
`--ceilings` prints instead what a benchmark's own labels would give, which is told and never chosen by.
"""

import argparse
import json
import re
from pathlib import Path

import _recorded
import numpy as np

from confroute.bench import load_benchmarks
from confroute.bench.material import CANDIDATES, EMBEDDED, TUNED, Texts, embed_cached
from confroute.bench.training import STRONG, WEAK, load_training_set, tuned_encoder
from confroute.heads import encoder
from confroute.models.catalog import cache_dir
from confroute.stats.metrics import apgr

PAIRS = [(WEAK[1], STRONG[0]), (WEAK[2], STRONG[2]), (WEAK[3], STRONG[1]), (WEAK[4], STRONG[3])]
WRONG = (0.0, 0.5, 1.0)
RESAMPLES = 200
GROUPS = {
    "science": "algebra anatomy astronomy biology chemistry computer mathematics physics electrical statistics machine",
    "humanities": "logic history law jurisprudence fallacies moral philosophy religions prehistory",
    "society": "econo geography government psychology sexuality relations security sociology foreign",
}
MATHS = ("mathematics", "algebra", "statistics")


def group(subject):
    """Which of four groups a subject is of."""
    return next((name for name, words in GROUPS.items() if any(w in subject for w in words.split())), "rest")


def splits(subjects):
    """Lists of what is held out, by protocol."""
    random = np.random.default_rng(0).permutation(len(subjects)) % 5
    groups = np.array([group(subject) for subject in subjects])
    maths = np.array([any(word in subject for word in MATHS) for subject in subjects])
    return {
        "random fifths": [random == fold for fold in range(5)],
        "maths": [maths],
        "groups": [groups == name for name in sorted({*groups})],
    }


def predicted(scorer, wrong, train, texts, held):
    """Scores of what is held out, one row a pair of models; prompts that never are have none. `texts` is one a part."""
    rows = np.full((len(PAIRS), len(train.prompts)), np.nan)
    for row, pair in zip(rows, PAIRS, strict=True):
        labels = train.gain(without=pair, wrong=wrong)
        for part, known in zip(held, texts, strict=True):
            row[part] = scorer(known.subset(~part), labels[~part], known.subset(part))
    return rows


def tuned_texts(train, held, cache):
    """The prompts with vectors of an encoder that was tuned without the part that is held out, for each part."""
    for part in held:
        embed = tuned_encoder(train.subset(~part), cache=cache, say=lambda text: print(text, flush=True))
        yield Texts(prompts=train.prompts, vectors=embed_cached(embed, train.prompts, cache))


def value(rows, train, parts, drawn):
    """APGR of the drawn prompts of each part, mean over parts and pairs weighted by their gaps."""
    areas, gaps = [], []
    for row, (edge, cloud) in zip(rows, PAIRS, strict=True):
        weak, strong = train.weak[WEAK.index(edge)], train.strong[STRONG.index(cloud)]
        for part in parts:
            at = drawn[part[drawn]]
            gap = float((strong - weak)[at].sum())
            if gap > 0:
                areas.append(apgr(row[at], weak[at], strong[at]))
                gaps.append(gap)
    return float(np.average(areas, weights=gaps))


def chosen(values):
    """The first setting whose distance to the best is below one standard error of that distance, by the bootstrap."""
    table = np.array([*values.values()])
    behind = table[table[:, 0].argmax()] - table
    within = behind[:, 0] <= behind[:, 1:].std(axis=1)
    return [*values][int(np.argmax(within))]


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
        print(f"gsm8k  {what:24s} {apgr(np.array(scores, float), bench.weak, bench.strong):.3f}", flush=True)


def ceilings(benches, embed, cache):
    """Print five-fold APGR on each benchmark's own labels, and on MMLU by the number of labelled questions."""
    solutions(benches["gsm8k"])
    names = ("embedding and features, ridge 1e4", "words, ridge 10", "both, ridge 1e4 and 10")
    for bench in (benches[name] for name in ("gsm8k", "mmlu")):
        texts = Texts(prompts=bench.prompts, vectors=embed_cached(embed, bench.prompts, cache))
        labels = (1 + bench.strong - bench.weak) / 2
        order = np.random.default_rng(0).permutation(bench.n)
        for name in names:
            scores = np.empty(bench.n)
            for fold in range(5):
                held = order % 5 == fold
                scores[held] = CANDIDATES[name](texts.subset(~held), labels[~held], texts.subset(held))
            print(
                f"{bench.name:6s} five-fold {name:36s} {apgr(scores, bench.weak, bench.strong):.3f}",
                flush=True,
            )
        for count in (400, 1635, 3000) if bench.name == "mmlu" else ():
            areas = []
            for draw in range(3):
                known = np.random.default_rng(draw).permutation(bench.n) < count
                scores = CANDIDATES[names[2]](texts.subset(known), labels[known], texts.subset(~known))
                areas.append(apgr(scores, bench.weak[~known], bench.strong[~known]))
            print(
                f"{bench.name:6s} {count} labels {names[2]}: {np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f})",
                flush=True,
            )


def main():
    """Print the table and the choice by each protocol, or the ceilings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=cache_dir() / "embeddings")
    parser.add_argument(
        "--ceilings", action="store_true", help="what the benchmarks' own labels would give; minutes"
    )
    given = parser.parse_args()
    cache, benches = given.cache, load_benchmarks(_recorded.found(_recorded.DATA / "routellm"))
    if given.ceilings:
        ceilings(benches, encoder(features=True), cache)
        return
    train = load_training_set(_recorded.found(_recorded.DATA / "recorded"))
    embed = encoder(features=True)
    texts = Texts(prompts=train.prompts, vectors=embed_cached(embed, train.prompts, cache))
    keep = np.ones(len(train.prompts), dtype=bool)
    for bench in benches.values():
        tests = embed_cached(embed, bench.prompts, cache)[:, : texts.dim]
        by_words, by_cosine = train.distinct_from(bench.prompts, texts.vectors[:, : texts.dim], tests)
        keep &= by_words & by_cosine
    train, texts = train.subset(keep), texts.subset(keep)
    print(f"{keep.sum()} prompts, {(len(CANDIDATES) - 1 + len(EMBEDDED)) * len(WRONG) + 1} settings")
    generator = np.random.default_rng(0)
    n = len(train.prompts)
    draws = [np.arange(n), *generator.integers(0, n, (RESAMPLES, n))]
    for kind, held in splits(train.subjects).items():
        # Fifths are ranked together; subjects that were held out together are ranked among themselves.
        parts = [np.ones(n, dtype=bool)] if kind == "random fifths" else held
        frozen, tuned = [texts] * len(held), [*tuned_texts(train, held, cache)]
        settings = [(name, name, frozen) for name in CANDIDATES]
        settings += [(f"{TUNED}{name}", name, tuned) for name in CANDIDATES if name in EMBEDDED]
        values = {}
        for label, name, known in settings:
            for wrong in WRONG if name != "length" else WRONG[:1]:
                rows = predicted(CANDIDATES[name], wrong, train, known, held)
                values[f"{label}, wrong {wrong}"] = [value(rows, train, parts, at) for at in draws]
        best = max(area[0] for area in values.values())
        for name, area in values.items():
            print(f"{kind:14s} {name:56s} {area[0]:.4f} +- {np.std(area[1:]):.4f}", flush=True)
        print(f"{kind}: best {best:.4f}, chosen: {chosen(values)}", flush=True)


if __name__ == "__main__":
    main()
