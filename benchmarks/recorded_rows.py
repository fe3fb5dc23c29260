"""Write recorded data of others in the line format of `confroute record`, one file a data set.

    CONFROUTE_DATA=... python benchmarks/recorded_rows.py OUT_FOLDER

nine_models_mmlu, nine_models_medmcqa: Llama-3.1 8B as edge, 405B as cloud, as recorded: one answer letter, its log-probability,
costs in USD. gsm8k_x48: sampled answers of Llama-2-13B; in an order drawn once (seed 0) the first is the draft and the next ten are the
samples; the cloud is GPT-4-1106's recorded correctness. gsm8k_x48_vote: the edge's answer is what most of these eleven say, all of which are paid
for; the share that says otherwise is its signal. Neither tokens nor costs are recorded there: both are billed by RouteLLM's prices
(0.24 and 24.7 USD per million tokens) at four characters a token, for the prompt and an answer as long as the edge's.
qwen_edge_mmlu, qwen_edge_gsm8k: as they are, one file a benchmark.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import lines

from confroute.recording import RecordedSample, Row, Side, row_from_dict, write_rows

EDGE, CLOUD, SAMPLES = "llama3.1-8b", "llama3.1-405b", 10
USD_A_TOKEN = {"edge": 0.24e-6, "cloud": 24.7e-6}
CHARACTERS_A_TOKEN = 4


def nine_models(dataset: str) -> Iterator[Row]:
    """Rows of one data set."""
    for row in lines("nine_models_mmlu_medmcqa.jsonl.gz"):
        if row["dataset"] == dataset:
            edge, cloud = (_side(name, row["models"][name]) for name in (EDGE, CLOUD))
            yield Row(
                id=row["id"],
                dataset=dataset,
                prompt=row["prompt"],
                reference=row["reference"],
                edge=edge,
                cloud=cloud,
            )


def _side(name: str, said: dict[str, Any]) -> Side:
    return Side(
        model=name,
        text=said["answer"],
        answer=said["answer"],
        logprobs=None if said["conf_logprob"] is None else (said["conf_logprob"],),
        quality=float(said["correct"]),
        usage={"input_tokens": said["tok_in"], "output_tokens": said["tok_out"]},
        latency_s=said["latency_ms"] / 1000,
        cost_usd=said["cost_usd"],
    )


def gsm8k(*, vote: bool) -> Iterator[Row]:
    """A draft and ten samples a question, or what most of the eleven say."""
    generator = np.random.default_rng(0)
    for row in lines("gsm8k_llama2_13b_x48.jsonl.gz"):
        answers = row["weak_sample_answers"]
        order = generator.permutation(len(answers))[: SAMPLES + 1].tolist()
        if len(order) <= SAMPLES:
            continue
        # Where programs and answers are not aligned, an answer stands for its own text.
        texts = row["weak_samples"] if row["samples_aligned_with_answers"] else [str(one) for one in answers]
        characters = len(row["prompt"]) + len(row["weak_samples"][order[0]])
        if vote:
            yield _voted(row, [answers[at] for at in order], characters)
            continue
        draft, *further = (RecordedSample(text=texts[at], answer=answers[at]) for at in order)
        yield Row(
            id=row["id"],
            dataset="gsm8k",
            prompt=row["prompt"],
            reference=row["reference"],
            edge=Side(
                model="llama-2-13b",
                text=draft.text,
                answer=draft.answer,
                quality=float(draft.answer == row["reference"]),
                cost_usd=_usd("edge", characters),
                samples=tuple(further),
            ),
            cloud=_cloud(row, characters),
        )


def _usd(tier: str, characters: int) -> float:
    return USD_A_TOKEN[tier] * characters / CHARACTERS_A_TOKEN


def _cloud(row: dict[str, Any], characters: int) -> Side:
    right = float(row["gpt4_1106_correct"])
    return Side(model="gpt-4-1106-preview", quality=right, cost_usd=_usd("cloud", characters))


def _voted(row: dict[str, Any], said: list[float], characters: int) -> Row:
    (answer, votes), *_ = Counter(said).most_common()
    edge = Side(
        model=f"llama-2-13b, vote of {len(said)}",
        answer=answer,
        quality=float(answer == row["reference"]),
        cost_usd=len(said) * _usd("edge", characters),
    )
    return Row(
        id=row["id"],
        dataset="gsm8k",
        prompt=row["prompt"],
        reference=row["reference"],
        edge=edge,
        cloud=_cloud(row, characters),
        signals={"vote_disagreement": 1 - votes / len(said)},
    )


def qwen(dataset: str) -> Iterator[Row]:
    """Rows of one benchmark, as they are."""
    rows = (row_from_dict(row) for row in lines("qwen_edge.jsonl.gz"))
    return (row for row in rows if row.dataset == dataset)


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    made: dict[str, Iterable[Row]] = {
        "nine_models_mmlu": nine_models("mmlu"),
        "nine_models_medmcqa": nine_models("medmcqa"),
        "gsm8k_x48": gsm8k(vote=False),
        "gsm8k_x48_vote": gsm8k(vote=True),
        "qwen_edge_mmlu": qwen("mmlu_test"),
        "qwen_edge_gsm8k": qwen("gsm8k_test"),
    }
    for name, rows in made.items():
        path = asked.out / f"{name}.jsonl"
        kept = list(rows)
        write_rows(path, kept)
        print(f"{path}: {len(kept)} rows")


if __name__ == "__main__":
    main()
