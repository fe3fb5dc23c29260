"""The questions that the demo calibrates on, and the requests that it then routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from confroute.types import Message

Host: TypeAlias = Literal["langchain", "llamaindex"]
Kind: TypeAlias = Literal["fact", "arithmetic", "option", "chat", "code", "private", "documents", "cloud off"]

SYSTEM = "Answer as briefly as you can, in one short sentence."
PRIVATE_PATTERN = r"(?i)\bpatient\b|\bsalary\b|\biban\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedQuestion:
    """A question with its right answers: any text that contains one of `accepted` as a word, in any case."""

    question: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """One request of the demo.

    Attributes
    ----------
    id : str
    kind : str
    host : {"langchain", "llamaindex"}
    turns : tuple of Message
        The conversation; for "documents" its only message is the question to the query engine.
    accepted : tuple of str
        Words of which a right answer contains one; empty where no word tells.
    """

    id: str
    kind: Kind
    host: Host
    turns: tuple[Message, ...]
    accepted: tuple[str, ...] = ()


# Two of each kind: each of them is asked of both models, which is most of what the demo takes.
CALIBRATION: tuple[GradedQuestion, ...] = (
    GradedQuestion(question="What is the capital of Italy?", accepted=("rome",)),
    GradedQuestion(question="What is the capital of Australia?", accepted=("canberra",)),
    GradedQuestion(question="What is the chemical symbol for oxygen?", accepted=("o", "o2")),
    GradedQuestion(question="What is the chemical symbol for potassium?", accepted=("k",)),
    GradedQuestion(question="Who painted the Mona Lisa?", accepted=("vinci", "leonardo")),
    GradedQuestion(question="Who discovered penicillin?", accepted=("fleming",)),
    GradedQuestion(question="Which planet is the largest in the solar system?", accepted=("jupiter",)),
    GradedQuestion(question="Which ocean is the largest?", accepted=("pacific",)),
    GradedQuestion(question="What is 6 + 3?", accepted=("9", "nine")),
    GradedQuestion(question="What is 14 + 19?", accepted=("33",)),
    GradedQuestion(question="A pen costs 3 euros. How many euros do 7 pens cost?", accepted=("21",)),
    GradedQuestion(
        question="Tom has 15 sweets and gives away 6. How many sweets has he left?", accepted=("9", "nine")
    ),
    GradedQuestion(
        question="Which of these is a fruit?\nA. Carrot\nB. Apple\nC. Potato\nD. Onion\nAnswer with the letter.",
        accepted=("b", "apple"),
    ),
    GradedQuestion(
        question="Which gas do plants take in?\nA. Oxygen\nB. Helium\nC. Carbon dioxide\nD. Neon\nAnswer with the letter.",
        accepted=("c", "carbon"),
    ),
)


def _user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", text=text),)


REQUESTS: tuple[DemoRequest, ...] = (
    DemoRequest(
        id="capital",
        kind="fact",
        host="langchain",
        turns=_user("What is the capital of France?"),
        accepted=("paris",),
    ),
    DemoRequest(
        id="planet",
        kind="fact",
        host="langchain",
        turns=_user("Which planet is known as the red planet?"),
        accepted=("mars",),
    ),
    DemoRequest(
        id="author",
        kind="fact",
        host="llamaindex",
        turns=_user("Who wrote the play Romeo and Juliet?"),
        accepted=("shakespeare",),
    ),
    DemoRequest(
        id="symbol",
        kind="fact",
        host="llamaindex",
        turns=_user("What is the chemical symbol for tungsten?"),
        accepted=("w",),
    ),
    DemoRequest(
        id="sum", kind="arithmetic", host="langchain", turns=_user("What is 2 + 2?"), accepted=("4", "four")
    ),
    DemoRequest(
        id="product", kind="arithmetic", host="langchain", turns=_user("What is 17 * 23?"), accepted=("391",)
    ),
    DemoRequest(
        id="apples",
        kind="arithmetic",
        host="llamaindex",
        turns=_user("A box holds 8 apples. How many apples do 6 boxes hold?"),
        accepted=("48",),
    ),
    DemoRequest(
        id="option",
        kind="option",
        host="langchain",
        turns=_user(
            "Which of these is a mammal?\nA. Trout\nB. Eagle\nC. Whale\nD. Frog\nAnswer with the letter."
        ),
        accepted=("c", "whale"),
    ),
    DemoRequest(
        id="chat",
        kind="chat",
        host="langchain",
        turns=(
            Message(role="user", text="My name is Ada and I live in Lisbon."),
            Message(role="assistant", text="Nice to meet you, Ada."),
            Message(role="user", text="In which country is my city?"),
        ),
        accepted=("portugal",),
    ),
    DemoRequest(
        id="code",
        kind="code",
        host="langchain",
        turns=_user("Write one line of Python that reverses the string s."),
    ),
    DemoRequest(
        id="private",
        kind="private",
        host="langchain",
        turns=_user("Put into polite words: the patient has not paid the bill of 80 euros."),
    ),
    DemoRequest(
        id="ferry-price",
        kind="documents",
        host="llamaindex",
        turns=_user("How much does a return ticket to Holm cost?"),
        accepted=("15", "fifteen"),
    ),
    DemoRequest(
        id="ferry-dogs",
        kind="documents",
        host="llamaindex",
        turns=_user("Where do dogs stay on board?"),
        accepted=("deck", "outside"),
    ),
    DemoRequest(
        id="outage",
        kind="cloud off",
        host="langchain",
        turns=_user("What is 4817 * 39?"),
        accepted=("187863",),
    ),
)
