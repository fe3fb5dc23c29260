"""Which small model is worth having as an edge: the catalogue's, on 30 short questions of all kinds, under the default policy.

    python benchmarks/edges.py [--edge smollm2-135m --edge qwen2.5-coder-0.5b] [--cloud qwen2.5-coder-1.5b] [--json]

Each edge answers alone, the cloud answers alone, and `Router` routes between them without a policy of yours, as in a first
try. An answer is right that contains one of the accepted words. Intervals are 95 % Wilson intervals over the questions; the
time is that of all routed calls, samples included. Two models of this machine: the cloud's prices and speed are not a real cloud's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from confroute import Router
from confroute.decision import Decision
from confroute.demo.calibrate import conversation, is_right
from confroute.demo.questions import GradedQuestion
from confroute.models.resolution import resolve
from confroute.models.text_model import OneByOne, TextModel
from confroute.types import Generation, Message, Usage

MAX_TOKENS = 32
EDGES = ("smollm2-135m", "qwen2.5-coder-0.5b")
QUESTIONS = tuple(
    GradedQuestion(question=question, accepted=accepted)
    for question, *accepted in (
        ("What is the capital of Spain?", "madrid"),
        ("What is the capital of Canada?", "ottawa"),
        ("Which river flows through London?", "thames"),
        ("On which continent is Egypt?", "africa"),
        ("Which is the longest river in South America?", "amazon"),
        ("How many days are there in a leap year?", "366"),
        ("How many minutes are there in three hours?", "180"),
        ("Which month comes after August?", "september"),
        ("What is the opposite of 'ancient'?", "modern", "new", "recent", "contemporary"),
        ("What is the plural of 'mouse'?", "mice"),
        ("Translate 'good morning' into French.", "bonjour"),
        ("Translate 'thank you' into German.", "danke"),
        ("Who wrote 'Pride and Prejudice'?", "austen"),
        ("Who developed the theory of relativity?", "einstein"),
        ("In which year did the Second World War end?", "1945"),
        ("Who was the first person to walk on the Moon?", "armstrong"),
        ("What is the chemical symbol for gold?", "au"),
        ("What is the chemical symbol for sodium?", "na"),
        ("Which gas do humans need to breathe?", "oxygen"),
        ("At what temperature in Celsius does water freeze?", "0", "zero"),
        ("How many legs does a spider have?", "8", "eight"),
        ("Which organ pumps blood through the body?", "heart"),
        ("What is 8 + 7?", "15", "fifteen"),
        ("What is 9 * 6?", "54"),
        ("What is 144 / 12?", "12", "twelve"),
        ("What is 23 * 17?", "391"),
        ("A train travels 60 km in one hour. How many km does it travel in 4 hours?", "240"),
        ("A shirt costs 40 euros and is reduced by 25 percent. How many euros does it cost now?", "30"),
        ("Which keyword defines a function in Python?", "def"),
        ("Is this review positive or negative? 'The food was cold and the waiter was rude.'", "negative"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One edge: how many of `questions` it, the cloud and the router answered rightly, and what went to the cloud."""

    edge: str
    cloud: str
    questions: int
    edge_right: int
    cloud_right: int
    routed_right: int
    to_cloud: int
    cloud_tokens: int
    always_cloud_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered(OneByOne):
    """A model that gives an answer it has given before at once: at temperature 0 it would be the same."""

    model: TextModel
    remote: bool = False
    _answers: dict[tuple[Message, ...], Generation] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.model.name

    def generate(self, messages: Sequence[Message], *, n: int = 1, **settings: Any) -> tuple[Generation, ...]:
        """Ask the model, but for one likeliest answer that is known."""
        if n > 1 or settings.get("temperature"):
            return self.model.generate(messages, n=n, **settings)
        key = tuple(messages)
        if key not in self._answers:
            (self._answers[key],) = self.model.generate(messages, **settings)
        return (self._answers[key],)


def asked(router: Router, route: Literal["auto", "edge", "cloud"]) -> list[tuple[bool, Decision]]:
    """Ask every question; for each, whether the answer is right, and the decision."""
    answers = [router.ask(conversation(item.question), route=route) for item in QUESTIONS]
    return [
        (is_right(answer.text, item.accepted), answer.decision)
        for answer, item in zip(answers, QUESTIONS, strict=True)
    ]


def tokens_of(decisions: Iterable[Decision]) -> int:
    """What the cloud was sent and wrote."""
    return sum(decision.usage.get("cloud", Usage()).total_tokens for decision in decisions)


def compared(edge: TextModel, cloud: TextModel) -> Result:
    """Ask the edge alone, the cloud alone, and the router under the default policy."""
    router = Router(edge=edge, cloud=cloud)
    alone, always = asked(router, "edge"), asked(router, "cloud")
    routed = asked(router, "auto")
    return Result(
        edge=edge.name,
        cloud=cloud.name,
        questions=len(QUESTIONS),
        edge_right=sum(right for right, _ in alone),
        cloud_right=sum(right for right, _ in always),
        routed_right=sum(right for right, _ in routed),
        to_cloud=sum(decision.route == "cloud" for _, decision in routed),
        cloud_tokens=tokens_of(decision for _, decision in routed),
        always_cloud_tokens=tokens_of(decision for _, decision in always),
    )


def main() -> None:
    """Ask the cloud, then each edge and its router."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--edge", action="append", help=f"a model of the catalogue; default: {' and '.join(EDGES)}"
    )
    parser.add_argument("--cloud", default="qwen2.5-coder-1.5b")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    cloud, *edges = (
        Remembered(model=resolve(f"local:{name}", max_tokens=MAX_TOKENS))
        for name in (args.cloud, *(args.edge or EDGES))
    )
    results = [compared(edge, cloud) for edge in edges]
    if args.json:
        print(json.dumps([asdict(result) for result in results]))
        return
    first = results[0]
    print(
        f"{first.questions} questions; {cloud.name} alone: {first.cloud_right} right, {first.always_cloud_tokens} tokens"
    )
    print("edge                 edge right  routed right  to the cloud  cloud tokens")
    for result in results:
        print(
            f"{result.edge:<21}{result.edge_right:>10}{result.routed_right:>14}{result.to_cloud:>14}"
            f"{result.cloud_tokens:>14}"
        )


if __name__ == "__main__":
    main()
