"""Tokens and quality of the cloud's answer alone, of verifying the edge's draft, and of patching it, on local models.

    python benchmarks/draft_reuse.py OUT.jsonl [--edge smollm2-135m] [--cloud qwen2.5-coder-1.5b] [--sums 12] [--max-tokens 32]

The demo's 18 graded questions and sums of two and three digits; every draft is rejected, so that the cloud is always asked. Each finished
answer is a line of OUT.jsonl: started again, it goes on where it was stopped. Intervals are 95 % bootstrap over questions.

`input`, `output`: the cloud's mean tokens a question. `right`: share of right answers. `kept`: drafts that the cloud verified; `wrongly`:
those of them that were wrong. USD are at 0.15 and 0.60 a million.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np

from confroute import Cascade, Message, Request, TokenLogprob
from confroute.asks import Evidence
from confroute.demo.calibrate import is_right
from confroute.demo.questions import CALIBRATION, SYSTEM, GradedQuestion
from confroute.flow import drive
from confroute.models.local import LocalModel
from confroute.policy.reuse import DraftReuse
from confroute.prices import Price
from confroute.stats.metrics import bootstrap_ci
from confroute.types import Generation, Usage

MODES = ("alone", "verify", "patch")
PRICE = Price(input_usd=0.15, output_usd=0.60)
# Below any mean negative log-probability: every draft is rejected.
REJECTS = Cascade.of(TokenLogprob(), 0.0)


def questions(sums):
    """The demo's, then sums, of which a small model gets some wrong."""
    chance = random.Random(0)
    yield from CALIBRATION
    for _ in range(sums):
        a, b = chance.randint(11, 999), chance.randint(11, 99)
        yield GradedQuestion(question=f"What is {a} + {b}?", accepted=(str(a + b),))


def messages(asked):
    """The conversation about a question."""
    return (Message(role="system", text=SYSTEM), Message(role="user", text=asked.question))


def drafted(model, asked, limit):
    """The edge's draft."""
    (draft,) = model.generate(messages(asked), max_tokens=limit)
    return draft


def answered(mode, model, asked, draft, limit):
    """One question under one mode: the answer, whose it is, and the cloud's tokens."""
    used = []

    def ask(wanted):
        if wanted.tier == "edge":
            return Evidence(generations=(draft,))
        note = (Message(role="user", text=wanted.note),) if wanted.note else ()
        said = model.generate((*messages(asked), *note), max_tokens=limit)
        used.append(said[0].usage)
        return Evidence(generations=said)

    policy = REJECTS if mode == "alone" else DraftReuse(policy=REJECTS, mode=mode)
    routed = drive(policy.flow(Request(messages=messages(asked))), ask)
    spent = sum(used, Usage())
    return {
        "mode": mode,
        "right": is_right(routed.generation.text, asked),
        "draft_right": is_right(draft.text, asked),
        "kept": routed.decision.route == "edge",
        "input": spent.input_tokens,
        "output": spent.output_tokens,
    }


def collected(options):
    """All rows: those of the file, and what was missing."""
    path = options.out
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["question"], row["mode"]) for row in rows}
    asked_of = {asked.question: asked for asked in questions(options.sums)}
    todo = [(q, mode) for q in asked_of for mode in MODES if (q, mode) not in done]
    if not todo:
        return rows
    edge, cloud = LocalModel.load(options.edge), LocalModel.load(options.cloud)
    drafts: dict[str, Generation] = {}
    with path.open("a", encoding="utf-8") as out:
        for question, mode in todo:
            asked = asked_of[question]
            if question not in drafts:
                drafts[question] = drafted(edge, asked, options.max_tokens)
            found = answered(mode, cloud, asked, drafts[question], options.max_tokens)
            rows.append({"question": question, **found})
            out.write(json.dumps(rows[-1]) + "\n")
            out.flush()
    return rows


def shown(values):
    """Mean and interval."""
    low, high = bootstrap_ci(np.mean, np.array(values, dtype=float), seed=0)
    return f"{np.mean(values):.3g} [{low:.3g}, {high:.3g}]"


def main():
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--edge", default="smollm2-135m")
    parser.add_argument("--cloud", default="qwen2.5-coder-1.5b")
    parser.add_argument("--sums", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=32)
    rows = collected(parser.parse_args())
    by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in MODES}
    drafts = [row["draft_right"] for row in by_mode["alone"]]
    print(f"{len(drafts)} questions; the edge's own drafts are right on {shown(drafts)}")
    for mode, found in by_mode.items():
        usd = [
            1000 * PRICE.of(Usage(input_tokens=row["input"], output_tokens=row["output"])) for row in found
        ]
        kept = [row for row in found if row["kept"]]
        wrongly = sum(not row["draft_right"] for row in kept)
        print(
            f"{mode:7} right {shown([row['right'] for row in found])}  input {shown([row['input'] for row in found])}  "
            f"output {shown([row['output'] for row in found])}  USD for 1000 {shown(usd)}  kept {len(kept)}, wrongly {wrongly}"
        )


if __name__ == "__main__":
    main()
