"""What a conversation of 40 turns is billed with and without `Sticky`, and where it does not pay.

    python benchmarks/cache.py [--turns 40] [--conversations 60] [--share 0.3] [--tokenizer smollm2-135m]

Each conversation asks recorded questions of GSM8K in one thread, behind a text of `--context` tokens. The edge's answers, their
log-probabilities and both models' grades are recorded (an edge of 1.5B, GPT-4 as cloud), tokens are those of the pulled model's
tokenizer, and the clock is set by hand. The cloud is a provider that keeps a prompt for 300 s after its last use, and tells how much
of a prompt it read from there, in steps of 128 tokens from 1024 on; where it bills what it writes, it tells that too.

Every cell is the bill over that of the same policy without `Sticky`: mean and 95 % bootstrap interval over conversations, each
against its own. Below 1 it pays. "pinned" stays on the cloud once it was there. `right` is the share of right answers; `stayed` of turns.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from _recorded import lines

from confroute import Cascade, Message, Request, TokenLogprob
from confroute.executor import run
from confroute.models.local import LocalModel
from confroute.policy import Sticky, TierPrice
from confroute.prices import Price
from confroute.recording.rows import row_from_dict
from confroute.state import MemoryStore
from confroute.stats.metrics import bootstrap_ci
from confroute.types import Generation, Usage

TTL_S = 300.0
# Of the chat template, a message.
FRAME = 4
LEAST, STEP = 1024, 128
PRICE = Price(input_usd=2.5, output_usd=10.0)
PRICES = {
    "cached .10": replace(PRICE, cached_usd=0.25),
    "cached .10, written 1.25": replace(PRICE, cached_usd=0.25, cache_write_usd=3.125),
    "cached .25": replace(PRICE, cached_usd=0.625),
    "cached .50": replace(PRICE, cached_usd=1.25),
}
GAPS = ("60 s", "140 s", "240 s", "360 s", "random")
THREAD = frozenset({"thread_id=1"})


class Talk:
    """One conversation under one policy: its history, its clock, its provider's cache and its bill."""

    def __init__(self, count, context, price):
        """Begin behind the context."""
        self.count, self.price, self.now = count, price, 0.0
        self.history = [Message(role="system", text=context)]
        self.kept_until, self.kept = -1.0, 0
        self.usage, self.right, self.stayed, self.on_cloud = Usage(), [], 0, False

    def tokens(self):
        """Of the prompt as it is now."""
        return sum(self.count(message.text) + FRAME for message in self.history)

    def cloud(self, row):
        """The cloud's recorded answer, and what it bills for this prompt now."""
        sent = self.tokens()
        warm = self.kept if self.now < self.kept_until and self.kept >= LEAST else 0
        cached = warm // STEP * STEP
        self.kept_until, self.kept = self.now + TTL_S, sent
        writes = self.price.cache_write_usd is not None and sent >= LEAST
        return Generation(
            text=row["strong_answer"],
            model="cloud",
            finish="stop",
            usage=Usage(
                input_tokens=sent,
                output_tokens=self.count(row["strong_answer"]),
                cached_tokens=cached,
                cache_write_tokens=sent - cached if writes else 0,
            ),
        )

    def turn(self, policy, row, *, pinned=False):
        """Ask one question."""
        self.history.append(Message(role="user", text=row["question"]))
        sent = self.tokens()
        usage = Usage(input_tokens=sent, output_tokens=len(row["draft"].logprobs))
        draft = replace(row["draft"], usage=usage, model="edge")
        route = "cloud" if pinned and self.on_cloud else None
        request = Request(messages=tuple(self.history), tags=THREAD, route=route)
        routed = run(policy, request, lambda ask: [draft if ask.tier == "edge" else self.cloud(row)], {})
        self.on_cloud = routed.decision.route == "cloud"
        self.right.append(row["right"][routed.decision.route])
        self.stayed += bool(routed.decision.layers.get("sticky", {}).get("stayed"))
        self.usage += routed.decision.usage.get("cloud", Usage())
        self.history.append(Message(role="assistant", text=routed.generation.text))


def recorded():
    """Questions with the edge's draft, the cloud's text and both grades."""
    texts = {one["id"]: one["strong_answer"] for one in lines("gsm8k_test_17models.jsonl.gz")}
    for one in lines("qwen_edge.jsonl.gz"):
        row = row_from_dict(one)
        draft = row.edge.generation()
        if row.id in texts and draft is not None and draft.logprobs and draft.finish == "stop":
            yield {
                "question": row.prompt,
                "draft": draft,
                "strong_answer": texts[row.id],
                "right": {"edge": row.edge.quality, "cloud": row.cloud.quality},
            }


def gaps(kind, turns, chance):
    """Seconds before each turn."""
    if kind != "random":
        return [float(kind.split()[0])] * turns
    return [*chance.lognormal(np.log(90), 1.0, turns)]


def conversation(mode, rows, waits, policy, price, count, context):
    """The conversation under one mode, to its end."""
    talk = Talk(count, context, price)
    if mode == "sticky":
        prices, store = (TierPrice(tier="cloud", price=price),), MemoryStore(clock=lambda: talk.now)
        policy = Sticky(policy=policy, prices=prices, ttl_s=TTL_S, store=store)
    for row, wait in zip(rows, waits, strict=True):
        talk.now += wait
        talk.turn(policy, row, pinned=mode == "pinned")
    return talk


def shown(values):
    """Mean and interval."""
    low, high = bootstrap_ci(np.mean, np.array(values, dtype=float), seed=0)
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def compared(kind, price, options, material):
    """One line of the table: all conversations with these waits at this price, under each mode."""
    pool, policy, count, context = material
    talks = {mode: [] for mode in ("plain", "sticky", "pinned")}
    for seed in range(options.conversations):
        chance = np.random.default_rng(seed)
        rows = [pool[at] for at in chance.choice(len(pool), options.turns)]
        waits = gaps(kind, options.turns, chance)
        for mode, found in talks.items():
            found.append(conversation(mode, rows, waits, policy, price, count, context))
    bills = {mode: np.array([price.of(one.usage) for one in found]) for mode, found in talks.items()}
    right = {mode: [np.mean(one.right) for one in found] for mode, found in talks.items()}
    gained = np.subtract(right["sticky"], right["plain"])
    stayed = np.mean([one.stayed / options.turns for one in talks["sticky"]])
    return (
        f"{1000 * bills['plain'].mean():6.1f}  {shown(bills['sticky'] / bills['plain'])}  {stayed:.2f}  "
        f"{np.mean(right['plain']):.3f}  {np.mean(gained):+.3f} [{', '.join(f'{end:+.3f}' for end in bootstrap_ci(np.mean, gained, seed=0))}]  "
        f"{shown(bills['pinned'] / bills['plain'])}"
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--conversations", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.3, help="of drafts that are not kept")
    parser.add_argument("--context", type=int, default=2000, help="tokens before the first question")
    parser.add_argument("--tokenizer", default="smollm2-135m")
    options = parser.parse_args()
    tokenizer = LocalModel.load(options.tokenizer).tokenizer
    known = {}

    def count(text):
        if text not in known:
            known[text] = len(tokenizer.encode(text, add_special_tokens=False))
        return known[text]

    pool = [*recorded()]
    doubts = [-np.mean(row["draft"].logprobs) for row in pool]
    policy = Cascade.of(TokenLogprob(), float(np.quantile(doubts, 1 - options.share)))
    words = tokenizer.encode(" ".join(row["strong_answer"] for row in pool), add_special_tokens=False)
    context = tokenizer.decode(np.resize(words, options.context))
    print(
        f"{len(pool)} questions, {options.turns} turns, {options.conversations} conversations, context {count(context)} tokens, "
        f"{options.share:.0%} of drafts not kept; bills at 2.5 and 10 USD a million\n"
        f"{'price':25} {'turn every':10} mUSD    Sticky's bill          stayed right  Sticky's gain             pinned's bill"
    )
    for name, price in PRICES.items():
        for kind in GAPS:
            line = compared(kind, price, options, (pool, policy, count, context))
            print(f"{name:25} {kind:10} {line}", flush=True)


if __name__ == "__main__":
    main()
