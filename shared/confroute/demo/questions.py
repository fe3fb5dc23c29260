"""What the demo asks: questions it calibrates on, and other ones that it then routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from confroute.types import Message

Host: TypeAlias = Literal["langchain", "llamaindex"]
Kind: TypeAlias = Literal["fact", "arithmetic", "option", "chat", "code", "private", "documents", "cloud off"]

SYSTEM = "Answer as briefly as you can, in one short sentence."
PRIVATE_PATTERN = r"(?i)\bpatient\b|\bsalary\b|\biban\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A question with its answer: right is whatever contains one of `accepted`, as a word, in any case."""

    question: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of the demo.

    Attributes
    ----------
    id : str
    kind : str
    host : {"langchain", "llamaindex"}
    turns : tuple of Message
        The conversation; for "documents" its only message is the question to the query engine.
    """

    id: str
    kind: Kind
    host: Host
    turns: tuple[Message, ...]


CALIBRATION: tuple[Graded, ...] = (
    Graded(question="What is the capital of Italy?", accepted=("rome",)),
    Graded(question="What is the capital of Australia?", accepted=("canberra",)),
    Graded(question="What is the capital of Kenya?", accepted=("nairobi",)),
    Graded(question="What is the chemical symbol for oxygen?", accepted=("o", "o2")),
    Graded(question="What is the chemical symbol for potassium?", accepted=("k",)),
    Graded(question="Who painted the Mona Lisa?", accepted=("vinci", "leonardo")),
    Graded(question="Who discovered penicillin?", accepted=("fleming",)),
    Graded(question="Which planet is the largest in the solar system?", accepted=("jupiter",)),
    Graded(question="Which ocean is the largest?", accepted=("pacific",)),
    Graded(question="At what temperature in Celsius does water boil at sea level?", accepted=("100",)),
    Graded(question="What is 6 + 3?", accepted=("9", "nine")),
    Graded(question="What is 14 + 19?", accepted=("33",)),
    Graded(question="What is 12 * 11?", accepted=("132",)),
    Graded(question="What is 91 - 46?", accepted=("45",)),
    Graded(question="A pen costs 3 euros. How many euros do 7 pens cost?", accepted=("21",)),
    Graded(
        question="Tom has 15 sweets and gives away 6. How many sweets has he left?", accepted=("9", "nine")
    ),
    Graded(
        question="Which of these is a fruit?\nA. Carrot\nB. Apple\nC. Potato\nD. Onion\nAnswer with the letter.",
        accepted=("b", "apple"),
    ),
    Graded(
        question="Which gas do plants take in?\nA. Oxygen\nB. Helium\nC. Carbon dioxide\nD. Neon\nAnswer with the letter.",
        accepted=("c", "carbon"),
    ),
)


def _user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", text=text),)


REQUESTS: tuple[Asked, ...] = (
    Asked(id="capital", kind="fact", host="langchain", turns=_user("What is the capital of France?")),
    Asked(
        id="planet", kind="fact", host="langchain", turns=_user("Which planet is known as the red planet?")
    ),
    Asked(id="author", kind="fact", host="llamaindex", turns=_user("Who wrote the play Romeo and Juliet?")),
    Asked(
        id="symbol", kind="fact", host="llamaindex", turns=_user("What is the chemical symbol for tungsten?")
    ),
    Asked(id="sum", kind="arithmetic", host="langchain", turns=_user("What is 2 + 2?")),
    Asked(id="product", kind="arithmetic", host="langchain", turns=_user("What is 17 * 23?")),
    Asked(
        id="apples",
        kind="arithmetic",
        host="llamaindex",
        turns=_user("A box holds 8 apples. How many apples do 6 boxes hold?"),
    ),
    Asked(
        id="option",
        kind="option",
        host="langchain",
        turns=_user(
            "Which of these is a mammal?\nA. Trout\nB. Eagle\nC. Whale\nD. Frog\nAnswer with the letter."
        ),
    ),
    Asked(
        id="chat",
        kind="chat",
        host="langchain",
        turns=(
            Message(role="user", text="My name is Ada and I live in Lisbon."),
            Message(role="assistant", text="Nice to meet you, Ada."),
            Message(role="user", text="In which country is my city?"),
        ),
    ),
    Asked(
        id="code",
        kind="code",
        host="langchain",
        turns=_user("Write one line of Python that reverses the string s."),
    ),
    Asked(
        id="private",
        kind="private",
        host="langchain",
        turns=_user("Put into polite words: the patient has not paid the bill of 80 euros."),
    ),
    Asked(
        id="ferry-price",
        kind="documents",
        host="llamaindex",
        turns=_user("How much does a return ticket to Holm cost?"),
    ),
    Asked(id="ferry-dogs", kind="documents", host="llamaindex", turns=_user("Where do dogs stay on board?")),
    Asked(id="outage", kind="cloud off", host="langchain", turns=_user("What is 4817 * 39?")),
)
