"""Record the edge on your own prompts, fit a policy that keeps a promise, look at it, deploy it.

Where prompts have a reference that grades the answers, two commands do the same: `confroute record`, `confroute fit`. Here the
grade is a rule of our own. The cloud's answers stand in the prompts, as from its own log.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from confroute import load_policy, record
from confroute.cli import main as confroute
from confroute.fitting import MaxLoss, fit
from confroute.recording import Row, read_rows
from langchain_confroute import ChatConfRoute, ChatLocal

CAPITALS = """Argentina Buenos Aires, Australia Canberra, Austria Vienna, Bangladesh Dhaka, Belgium Brussels, Bulgaria Sofia,
Canada Ottawa, Chile Santiago, China Beijing, Croatia Zagreb, Denmark Copenhagen, Egypt Cairo, Finland Helsinki, France Paris,
Germany Berlin, Greece Athens, Hungary Budapest, India New Delhi, Iran Tehran, Iraq Baghdad, Ireland Dublin, Italy Rome,
Japan Tokyo, Kenya Nairobi, Lebanon Beirut, Mexico Mexico City, Norway Oslo, Pakistan Islamabad, Peru Lima, Philippines Manila,
Poland Warsaw, Portugal Lisbon, Romania Bucharest, Spain Madrid, Sweden Stockholm, Thailand Bangkok"""
PAIRS = [pair.strip().split(" ", 1) for pair in CAPITALS.replace("\n", " ").split(",")]
EDGE = "qwen2.5-coder-0.5b"


def question(country: str) -> str:
    """The question about a country."""
    return f"What is the capital of {country}?"


def prompts() -> list[dict[str, object]]:
    """The lines of the prompt file, each with the cloud's answer."""
    return [
        {"id": country, "prompt": question(country), "cloud": {"text": city, "quality": 1.0}}
        for country, city in PAIRS
    ]


def graded(row: Row) -> Row:
    """Grade by a rule of our own: whether the answer names the city."""
    right = dict(PAIRS)[row.id].lower() in (row.edge.text or "").lower()
    return replace(row, edge=replace(row.edge, quality=float(right)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cloud-model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--max-loss", type=float, default=0.3, help="mean loss to the cloud")
    args = parser.parse_args()

    Path("prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts()), encoding="utf-8")
    confroute(
        ["record", "prompts.jsonl", "--out", "run.jsonl", "--edge", f"local:{EDGE}", "--max-tokens", "32"]
    )

    fitted = fit(
        map(graded, read_rows("run.jsonl")), MaxLoss(alpha=args.max_loss), signal="token_logprob.mean"
    )
    fitted.save("policy.json")
    print("edge alone:", f"{fitted.front.edge.quality:.2f} right")
    print("promised:", fitted.certificate.words)
    print("expected:", f"{fitted.expected.cloud_share:.0%} to the cloud, {fitted.expected.quality:.2f} right")

    router = ChatConfRoute(
        edge=ChatLocal(model=EDGE, max_tokens=32),
        cloud=ChatLocal(model=args.cloud_model, max_tokens=32),
        policy=load_policy("policy.json"),
    )
    with record() as decisions:
        for country in ("France", "Kyrgyzstan"):
            print(f"deployed: {question(country)} {router.invoke(question(country)).text}")
    for decision in decisions:
        print(f"{decision.route}: {decision.reason}")
