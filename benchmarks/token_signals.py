"""Time every signal that reads a draft's tokens on one long answer.

    python benchmarks/token_signals.py [--tokens 500] [--repeats 200] [--json]

The answer is a JSON object of numbers, so that `span="answer"` has hundreds of values to find. The least, the median and
the 95th percentile of interleaved repeats, in microseconds: on a machine that does other things as well the least is the cost.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from confroute.signals import Case, Signal, TokenEntropy, TokenLogprob, TokenMargin
from confroute.types import Generation, Tier


def case_of(tokens: int, alternatives: int) -> Case:
    """A draft of that many tokens; every tenth drawn token is none of the alternatives."""
    generator = np.random.default_rng(0)
    texts = ["{", *(f'"k{at}":' if at % 2 else f"{at}," for at in range(1, tokens - 2)), "0", "}"]
    if tokens % 2:
        texts[-2] = '"k":0'
    share = generator.dirichlet(np.full(alternatives + 1, 0.3), size=tokens)[:, :alternatives]
    logs = np.log(np.sort(share + 1e-12, axis=1)[:, ::-1])
    tops = tuple(
        tuple(
            (text if at == 0 and place % 10 else f"other {at}", float(value)) for at, value in enumerate(row)
        )
        for place, (text, row) in enumerate(zip(texts, logs, strict=True))
    )
    draft = Generation(
        text="".join(texts),
        tokens=tuple(texts),
        logprobs=tuple(min(0.0, float(row[0])) for row in logs),
        top_logprobs=tops,
    )
    return Case(tier=Tier(name="edge", model="m"), question="Which numbers?", draft=draft)


def seconds(signal: Signal, case: Case) -> float:
    """One measurement."""
    start = time.perf_counter()
    try:
        next(signal.measure(case))
    except StopIteration:
        return time.perf_counter() - start
    raise AssertionError("a token signal asks for nothing")


def measured(tokens: int, repeats: int) -> list[dict[str, Any]]:
    """One row a signal and a number of alternatives."""
    kinds: tuple[tuple[str, Any], ...] = (
        ("log-probability", TokenLogprob),
        ("margin", TokenMargin),
        ("entropy", TokenEntropy),
    )
    sides = [
        (f"{name}, {span}", kind(span=span), case, k)
        for k in (5, 20)
        for case in (case_of(tokens, k),)
        for name, kind in kinds
        for span in ("all", "answer")
    ]
    rounds = [[seconds(signal, case) for _, signal, case, _ in sides] for _ in range(repeats + 1)][1:]
    least, middle, high = 1e6 * np.quantile(rounds, [0.0, 0.5, 0.95], axis=0)
    return [
        {"signal": name, "alternatives": k, "least_us": round(a), "median_us": round(b), "p95_us": round(c)}
        for (name, _, _, k), a, b, c in zip(sides, least, middle, high, strict=True)
    ]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = measured(asked.tokens, asked.repeats)
    if asked.json:
        print(json.dumps({"tokens": asked.tokens, "repeats": asked.repeats, "rows": rows}))
        return
    print(f"{asked.tokens} tokens, {asked.repeats} repeats; microseconds")
    print(f"{'signal':<26} {'least':>7} {'median':>7} {'95 %':>7}  alternatives per token")
    for row in rows:
        times = f"{row['least_us']:>7} {row['median_us']:>7} {row['p95_us']:>7}"
        print(f"{row['signal']:<26} {times}  {row['alternatives']}")


if __name__ == "__main__":
    main()
