"""Whether a head's spread tells prompts unlike its training prompts, and what escalating the most doubtful ones brings.

    CONFROUTE_DATA=... python benchmarks/head_doubt.py [--cache FOLDER]

Heads are trained on the recorded models' answers to MMLU validation questions. *Alike* are MMLU test questions, *unlike* are
GSM8K's and MT-Bench's prompts and trivia questions; AUROC 0.5 is chance. The last column: the fifth of MMLU test prompts
with the largest spread goes to the cloud, the others stay; beside it a random fifth.
"""

import argparse
from pathlib import Path

import _recorded
import numpy as np

from confroute.bench import load_benchmarks
from confroute.bench.material import embed_cached
from confroute.bench.training import load_training_set
from confroute.heads import (
    MLP,
    MatrixFactorisation,
    NearestNeighbours,
    Ridge,
    SimilarityRanking,
    WordRidge,
    encoder,
)
from confroute.models.catalog import cache_dir
from confroute.stats.metrics import auroc

SIZE = 1000
FITS = {
    "knn": lambda x, y: NearestNeighbours.fit(x, y, k=50),
    "similarity ranking": SimilarityRanking.fit,
    "matrix factorisation": MatrixFactorisation.fit,
    "mlp": lambda x, y: MLP.fit(x, y, epochs=8),
    "ridge": lambda x, y: Ridge.fit(x, y, penalty=1e4),
}


def main():
    """Print a line a head."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=cache_dir() / "embeddings")
    cache = parser.parse_args().cache
    train = load_training_set(_recorded.found(_recorded.DATA / "recorded"))
    benches = load_benchmarks(_recorded.found(_recorded.DATA / "routellm"))
    mmlu, embed = benches["mmlu"], encoder()
    trivia = [
        r["question"]
        for r in _recorded.lines("train_queries.jsonl.gz")
        if r["dataset"] == "triviaqa_rc_validation"
    ]
    drawn = np.sort(np.random.default_rng(0).permutation(mmlu.n)[:SIZE])
    texts = {
        "mmlu": [mmlu.prompts[at] for at in drawn],
        "gsm8k": benches["gsm8k"].prompts[:SIZE],
        "mt-bench": benches["mt-bench"].prompts,
        "trivia": trivia[:SIZE],
    }
    # All MMLU prompts are embedded, as in the replay, so that its cache serves here.
    vectors = {name: embed_cached(embed, found, cache) for name, found in texts.items() if name != "mmlu"}
    vectors["mmlu"] = embed_cached(embed, mmlu.prompts, cache)[drawn]
    x = embed_cached(embed, train.prompts, cache)
    gain = mmlu.strong[drawn] - mmlu.weak[drawn]
    print(
        f"trained on {len(x)} prompts; a random fifth to the cloud recovers {gain.mean() / 5:.4f} of quality"
    )
    for name, fit in {**FITS, "words": None}.items():
        if fit is None:
            head = WordRidge.fit(train.prompts, train.gain())
            spread = {kind: head.estimate(found).spread for kind, found in texts.items()}
        else:
            labels = train.battle if name == "similarity ranking" else train.gain()
            head = fit(x, labels)
            spread = {kind: head.estimate(found).spread for kind, found in vectors.items()}
        tells = [
            f"{kind} {auroc(np.r_[spread['mmlu'], spread[kind]], np.repeat([0, 1], [SIZE, len(spread[kind])])):.3f}"
            for kind in ("gsm8k", "mt-bench", "trivia")
        ]
        most = np.argsort(-spread["mmlu"], kind="stable")[: SIZE // 5]
        print(
            f"{name:21s} AUROC of spread: {', '.join(tells)}; most doubtful fifth recovers {gain[most].sum() / SIZE:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
