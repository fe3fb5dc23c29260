"""Time Monte Carlo dropout over a drafted answer against one teacher-forced pass over the same tokens.

    python benchmarks/dropout.py [--model NAME] [--passes 10] [--layers top-third] [--repeats 7] [--json]

Prints the median of interleaved repeats and the range of their ratios. The single pass is one forward call over prompt
and answer that projects the answer's positions only, which is less than `logprobs_of` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from confroute.models import prompts
from confroute.models.dropout import dropout_passes
from confroute.models.local import LocalModel
from confroute.types import Message

SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards quietly fix a boxy jukebox. "


def conversation(model: LocalModel, tokens: int) -> list[Message]:
    """The longest prompt of repeated sentences and single words that has at most that many tokens."""
    text = ""
    for piece in (SENTENCE, "and "):
        while model.count_tokens([Message(role="user", text=text + piece)]) <= tokens:
            text += piece
    return [Message(role="user", text=text)]


def answer_of(model: LocalModel, tokens: int) -> str:
    """A text that the tokenizer splits into that many tokens."""
    text = ""
    for word in (SENTENCE * tokens).split():
        if len(prompts.encode(model.tokenizer, f"{text} {word}", special=False)) > tokens:
            break
        text = f"{text} {word}"
    while len(prompts.encode(model.tokenizer, text, special=False)) < tokens:
        text += " a"
    return text


@torch.inference_mode()
def single(model: LocalModel, messages: list[Message], answer: str) -> torch.Tensor:
    """Log-probabilities of the answer by one forward call."""
    ids = prompts.prompt_ids(model.tokenizer, messages)
    said = prompts.encode(model.tokenizer, answer, special=False)
    whole = torch.tensor([[*ids, *said[:-1]]])
    out = model.network(input_ids=whole, use_cache=False, logits_to_keep=len(said))
    logits: torch.Tensor = out.logits[0].float()
    return logits.gather(1, torch.tensor(said)[:, None])[:, 0] - logits.logsumexp(1)


def timed(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(model: LocalModel, size: int, *, tokens: int, repeats: int, **settings: Any) -> dict[str, Any]:
    """One row of the table."""
    messages, answer = conversation(model, size), answer_of(model, tokens)
    runs: dict[str, Callable[[], object]] = {
        "single": lambda: single(model, messages, answer),
        "logprobs_of": lambda: model.logprobs_of(messages, answer),
        "dropout": lambda: dropout_passes(model, messages, answer, **settings),
        "dropout_prompt_too": lambda: dropout_passes(model, messages, answer, prompt=True, **settings),
    }
    for run in runs.values():
        run()
    rounds = [{name: timed(run) for name, run in runs.items()} for _ in range(repeats)]
    row: dict[str, Any] = {
        "prompt_tokens": model.count_tokens(messages),
        "answer_tokens": len(prompts.encode(model.tokenizer, answer, special=False)),
        "repeats": repeats,
    }
    for name in runs:
        ratios = [taken[name] / taken["single"] for taken in rounds]
        row[name] = {
            "s": round(statistics.median(taken[name] for taken in rounds), 3),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_min": round(min(ratios), 2),
            "ratio_max": round(max(ratios), 2),
        }
    return row


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument(
        "--layers", default="top-third", type=lambda given: int(given) if given.isdigit() else given
    )
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 600])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = LocalModel.load(asked.model, dtype=asked.dtype)
    settings = {"passes": asked.passes, "layers": asked.layers}
    rows = [
        compare(model, size, tokens=asked.tokens, repeats=asked.repeats, **settings) for size in asked.prompts
    ]
    if asked.json:
        print(json.dumps({"model": model.name, "threads": torch.get_num_threads(), **settings, "rows": rows}))
        return
    print(f"{model.name}, {torch.get_num_threads()} threads, {asked.passes} passes, layers {asked.layers}")
    for row in rows:
        print(f"prompt of {row['prompt_tokens']} tokens, answer of {row['answer_tokens']}")
        for name in ("single", "logprobs_of", "dropout", "dropout_prompt_too"):
            taken = row[name]
            spread = f"{taken['ratio']:.2f} ({taken['ratio_min']:.2f}-{taken['ratio_max']:.2f})"
            print(f"  {name:<20} {taken['s']:>7.3f} s   {spread}")


if __name__ == "__main__":
    main()
