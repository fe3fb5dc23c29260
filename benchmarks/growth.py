"""How time and memory of the commands that read a recorded run grow with its rows.
"""
from __future__ import annotations
import json, math, sys
from pathlib import Path
import numpy as np


def write_run(path: Path, n: int, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    with path.open("w", encoding="ascii") as file:
        for at in range(n):
            file.write(json.dumps(_row(at, generator)) + "\n")


def _row(at, generator):
    hardness = float(generator.random())
    right = 100 + int(generator.integers(400))
    edge_right, cloud_right = (bool(generator.random() < 1 - share * hardness) for share in (0.9, 0.3))
    answers = [right if generator.random() < 1 - 0.9 * hardness else right + int(generator.integers(1, 5)) for _ in range(5)]
    edge = _side("small", right if edge_right else right + 1, edge_right, generator, hardness)
    samples = [_sample(one, hardness, generator) for one in answers]
    agree = sum(str(one) != edge["answer"] for one in answers) / 5
    return {
        "id": f"row-{at}", "dataset": "synthetic",
        "prompt": f"A shop has {right // 2} apples and is given {right - right // 2} more by {NAMES[at % 7]}, before it closes for the day. How many apples does it have?",
        "messages": None, "reference": str(right),
        "edge": {**edge, "samples": samples, "error": None, "finish": "stop" if generator.random() < 0.98 else "length", "temperature": 1.0},
        "cloud": _side("large", right if cloud_right else right + 1, cloud_right, generator, hardness / 3),
        "signals": {"token_logprob.mean": -float(np.mean(edge["logprobs"])), "self_consistency": agree, "verbalized": round(float(generator.beta(1 + 4 * hardness, 5)), 1)},
        "answer_kind": "auto",
    }

NAMES = ("Ann", "Ben", "Cem", "Dora", "Eve", "Finn", "Gil")
WORDS = "first the shop counts what is left then adds all of them up so that".split()

def _sample(answer, hardness, generator):
    tokens = _tokens(answer, generator)
    return {"text": "".join(tokens).strip(), "logprobs": _logprobs(tokens, hardness, generator), "answer": str(answer), "finish": "stop"}


def _tokens(answer, generator):
    return [*(f" {WORDS[at]}" for at in generator.integers(len(WORDS), size=18)), ".", " The", " answer", " is", f" {answer}", "."]


def _logprobs(tokens, hardness, generator):
    return [round(-float(x), 6) for x in generator.exponential(0.1 + 0.5 * hardness, size=len(tokens))]


def _side(model, answer, quality, generator, hardness):
    tokens = _tokens(answer, generator)
    return {"model": model, "text": "".join(tokens).strip(), "logprobs": _logprobs(tokens, hardness, generator), "tokens": tokens, "answer": str(answer), "quality": float(quality),
      "usage": {"input_tokens": 40, "output_tokens": len(tokens)}, "latency_s": round(float(generator.gamma(4, 0.1)), 4), "cost_usd": 1e-5 if model == "small" else 1e-3}


if __name__ == "__main__":
    write_run(Path(sys.argv[2]), int(sys.argv[1]))
