"""Time samples behind one shared prompt against as many calls of transformers' `generate`, and against lm-polygraph's sampler.

    python benchmarks/sampling.py [--model NAME] [--samples 10] [--repeats 3] [--json]

Prints the median of interleaved repeats and the range of their ratios; every side draws the same number of tokens. lm-polygraph
0.7.0 runs its own `SamplingGenerationCalculator` where it can be imported; it is no dependency of this project.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from confroute.models.local import LocalModel
from confroute.types import Message

SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards quietly fix a boxy jukebox. "


def conversation(model: LocalModel, tokens: int) -> list[Message]:
    """A prompt of about that many tokens."""
    text = ""
    while model.count_tokens([Message(role="user", text=text + SENTENCE)]) <= tokens:
        text += SENTENCE
    return [Message(role="user", text=text + "Go on.")]


def shared(model: LocalModel, messages: list[Message], n: int, new: int) -> None:
    """n samples in one call; the end tokens are taken away so that both sides draw as many tokens."""
    model._ends = frozenset()
    answers = model.generate(messages, n=n, max_tokens=new, temperature=1.0, seed=0)
    assert [len(a.raw) for a in answers] == [new] * n


def sequential(model: LocalModel, messages: list[Message], n: int, new: int) -> None:
    """n samples in n calls of `model.generate`."""
    turns = [{"role": m.role, "content": m.text} for m in messages]
    ids: Any = model.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    for _ in range(n):
        out = model.network.generate(
            **ids, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=new, min_new_tokens=new
        )
        assert out.shape[1] == ids["input_ids"].shape[1] + new


def polygraph(model: LocalModel, samples: int) -> Callable[..., None] | None:
    """The same with lm-polygraph's own sampler on the same network; None where it is not installed."""
    try:
        from lm_polygraph.stat_calculators.sample import SamplingGenerationCalculator
        from lm_polygraph.utils.model import WhiteboxModel
    except ImportError as error:
        print(f"lm-polygraph is left out: {error}", file=sys.stderr)
        return None
    theirs = WhiteboxModel(model.network, model.tokenizer, model_path=model.name)
    calculate = SamplingGenerationCalculator(samples_n=samples)

    def run(model: LocalModel, messages: list[Message], n: int, new: int) -> None:
        turns = [{"role": m.role, "content": m.text} for m in messages]
        text = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        settings = model.network.generation_config
        end, settings.eos_token_id = settings.eos_token_id, None  # all samples of full length, as on our side
        try:
            found = calculate({}, [text], theirs, max_new_tokens=new)
        finally:
            settings.eos_token_id = end
        assert len(found["sample_texts"][0]) == n

    return run


def timed(run: Callable[..., None], *args: object) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    run(*args)
    return time.perf_counter() - started


def compare(model: LocalModel, tokens: int, *, n: int, new: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    messages = conversation(model, tokens)
    sides = {"shared": shared, "sequential": sequential, "polygraph": polygraph(model, n)}
    runs = {name: run for name, run in sides.items() if run is not None}
    for run in runs.values():
        run(model, messages, n, 2)
    rounds = [
        {name: timed(run, model, messages, n, new) for name, run in runs.items()} for _ in range(repeats)
    ]
    row: dict[str, Any] = {
        "prompt_tokens": model.count_tokens(messages),
        "samples": n,
        "new_tokens": new,
        "repeats": repeats,
        "shared_s": round(statistics.median(took["shared"] for took in rounds), 3),
    }
    for name in [*runs][1:]:
        ratios = [took[name] / took["shared"] for took in rounds]
        row[name] = {
            "s": round(statistics.median(took[name] for took in rounds), 3),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_min": round(min(ratios), 2),
            "ratio_max": round(max(ratios), 2),
        }
    return row


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = LocalModel.load(asked.model, dtype=asked.dtype)
    rows = [compare(model, size, n=asked.samples, new=asked.new, repeats=asked.repeats) for size in (64, 600)]
    if asked.json:
        print(json.dumps({"model": model.name, "threads": torch.get_num_threads(), "rows": rows}))
        return
    print(f"{model.name}, {torch.get_num_threads()} threads, {asked.samples} samples of {asked.new} tokens")
    print("prompt tokens  shared s  other side       s  ratio (min-max)")
    for row in rows:
        for name in ("sequential", "polygraph"):
            if name in row:
                it = row[name]
                spread = f"{it['ratio']:.2f} ({it['ratio_min']:.2f}-{it['ratio_max']:.2f})"
                print(
                    f"{row['prompt_tokens']:>13}  {row['shared_s']:>8.2f}  {name:<10}  {it['s']:>6.2f}  {spread}"
                )


if __name__ == "__main__":
    main()
