"""Cluster 10 answers by meaning: NLI pairs and wall time, here, in uqlm and in lm-polygraph, with one NLI model.

    python benchmarks/clustering.py [--repeats 5] [--json]

The model is a BERT with random weights, written to a temporary folder: its cost is real, its verdicts are set by its
last bias (entails everything, nothing, or the likeliest tenth). Pairs are rows that reach the network. "equal" is ten times the same
answer: what a call costs before anything is compared. The last rows add up the times of easy, mixed and different. uqlm 0.6.7 and
lm-polygraph 0.7.0 are compared where they can be imported; both are heavy and no dependencies of this project.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from confroute.asks import Evidence
from confroute.flow import drive
from confroute.models.nli import LocalNLI
from confroute.signals.clusters import Clusters
from confroute.signals.equivalence import SameEntailment

QUESTION = "What is the capital of France?"
WORDINGS = [
    "It must be Paris as far as I know",
    "Paris is where the government sits",
    "France is governed from Paris",
    "The French capital city is Paris",
    "That city is Paris on the Seine",
    "Paris has been the capital for centuries",
    "The seat of the French state is Paris",
    "Everybody knows Paris is the capital",
    "Paris would be my answer here",
    "The right city to name is Paris",
]
CASES = {
    "equal": ["Paris"] * 10,
    # Sampled short answers repeat themselves: five spellings of one answer and two sentences.
    "easy": (["Paris", "paris.", "The answer is Paris", "It is Paris", "**Paris**"] * 2)[:8] + WORDINGS[:2],
    "paraphrases": WORDINGS,
    "mixed": WORDINGS,
    "different": WORDINGS,
}
ENTAILED = {"equal": 1.0, "easy": 1.0, "paraphrases": 1.0, "mixed": 0.1, "different": 0.0}


def write_nli(folder: Path, layers: int, hidden: int) -> None:
    """A random BERT classifier with the labels, in the order and case, that all three libraries read."""
    words = sorted(
        {
            word.strip("?.,*").lower()
            for text in [QUESTION, *CASES["easy"], *WORDINGS]
            for word in text.split()
        }
    )
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *"?.,*"]))
    transformers.BertTokenizer(str(vocabulary)).save_pretrained(folder)
    labels = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words) + 9,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        id2label=dict(enumerate(labels)),
        label2id={label: at for at, label in enumerate(labels)},
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)


def set_verdicts(network: Any, tokenizer: Any, share: float) -> None:
    """Move the last bias so that this share of all ordered pairs is entailed."""
    with torch.inference_mode():
        network.classifier.bias.zero_()
        pairs = [(f"{QUESTION} {a}", f"{QUESTION} {b}") for a in WORDINGS for b in WORDINGS if a != b]
        encoded = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
        logits = network(**encoded).logits
        lead = logits[:, 2] - logits[:, 1]
        bias = {0.0: -50.0, 1.0: 50.0}.get(share, -float(lead.quantile(1.0 - share)))
        network.classifier.bias[
            0
        ] = -50.0  # one label is out of the way: the verdict is the sign of `lead` + bias
        network.classifier.bias[2] = bias


class Counted:
    """Rows and passes through a network."""

    def __init__(self, network: Any) -> None:
        self.rows = self.passes = 0
        network.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        self.rows, self.passes = self.rows + len(ids), self.passes + 1


def ours(folder: Path) -> tuple[Any, Any, Callable[[list[str]], int]]:
    """Network, tokenizer, and what clusters answers."""
    loaded = LocalNLI.load(folder)
    encoder = loaded._encoder

    def run(answers: list[str]) -> int:
        nli = LocalNLI(encoder=encoder, name="nli", entailment=2)  # remembers nothing of an earlier repeat
        clusters = Clusters(question=QUESTION, equivalence=SameEntailment(model="nli"))
        drive(clusters.extend(answers), lambda ask: Evidence(numbers=nli(ask.pairs)))
        return len(clusters.representatives)

    return encoder.network, encoder.tokenizer, run


def uqlm(folder: Path) -> tuple[Any, Any, Callable[[list[str]], int]]:
    """The same for uqlm."""
    from uqlm.nli.cluster import SemanticClusterer
    from uqlm.nli.nli import NLI

    nli = NLI(device="cpu", nli_model_name=str(folder))

    def run(answers: list[str]) -> int:
        nli.probabilities.clear()  # else it answers repeats, and other verdicts, from an earlier run
        clusterer = SemanticClusterer(nli=nli)
        return len(clusterer.cluster_responses(responses=answers, prompt=QUESTION)[0])

    return nli.model, nli.tokenizer, run


def lm_polygraph(folder: Path) -> tuple[Any, Any, Callable[[list[str]], int]]:
    """The same for lm-polygraph's two calculators; it judges answers without the question."""
    from lm_polygraph.stat_calculators.semantic_classes import SemanticClassesCalculator
    from lm_polygraph.stat_calculators.semantic_matrix import SemanticMatrixCalculator

    network = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    shim = SimpleNamespace(deberta=network, deberta_tokenizer=tokenizer, device="cpu", batch_size=10)

    def run(answers: list[str]) -> int:
        stats = {"sample_texts": [answers]}
        stats |= SemanticMatrixCalculator(shim)(stats, [QUESTION], None)
        stats |= SemanticClassesCalculator()(stats, [QUESTION], None)
        return len(stats["semantic_classes_entail"]["class_to_sample"][0])

    return network, tokenizer, run


def measured(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """One row a case and library, and one for each library that cannot be imported."""
    sides, missing = {}, []
    for name, make in (("confroute", ours), ("uqlm", uqlm), ("lm-polygraph", lm_polygraph)):
        try:
            sides[name] = make(folder)
        except ImportError as error:
            missing.append({"library": name, "missing": str(error)})
    counters = {name: Counted(side[0]) for name, side in sides.items()}
    rows = [row for case in CASES for row in compared(case, sides, counters, repeats)]
    return rows + totals(rows) + missing


def totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time of the three cases that answers really are, a library."""
    sums: dict[str, float] = {}
    for row in rows:
        if row["case"] in {"easy", "mixed", "different"}:
            sums[row["library"]] = sums.get(row["library"], 0.0) + row["ms"]
    return [
        {
            "case": "overall",
            "library": name,
            "ms": round(ms, 1),
            "ours_over_theirs": round(sums["confroute"] / ms, 2),
        }
        for name, ms in sums.items()
    ]


def compared(
    case: str, sides: dict[str, Any], counters: dict[str, Counted], repeats: int
) -> list[dict[str, Any]]:
    """The libraries on one case, their repeats interleaved."""
    answers = CASES[case]
    for network, tokenizer, run in sides.values():
        set_verdicts(network, tokenizer, ENTAILED[case])
        run(answers)  # warm
    for counter in counters.values():
        counter.rows = counter.passes = 0
    runs = [{name: timed(side[2], answers) for name, side in sides.items()} for _ in range(repeats)]
    return [
        {
            "case": case,
            "library": name,
            "clusters": runs[0][name][0],
            "pairs": counters[name].rows / repeats,
            "passes": counters[name].passes / repeats,
            "ms": round(1e3 * statistics.median(run[name][1] for run in runs), 2),
            "ours_over_theirs": round(
                statistics.median(run["confroute"][1] / run[name][1] for run in runs), 2
            ),
        }
        for name in sides
    ]


def timed(run: Callable[[list[str]], int], answers: list[str]) -> tuple[int, float]:
    """Clusters and seconds of one run."""
    start = time.perf_counter()
    return run(answers), time.perf_counter() - start


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_nli(Path(folder), asked.layers, asked.hidden)
        rows = measured(Path(folder), asked.repeats)
    if asked.json:
        print(json.dumps({"threads": torch.get_num_threads(), "repeats": asked.repeats, "rows": rows}))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
