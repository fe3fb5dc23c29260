"""How often a small model asks for a larger one rightly: where no tool fits, and not where one does.

Any OpenAI-compatible server with tools: `python benchmarks/ask_for_help.py --url http://127.0.0.1:8080/v1 --model NAME`
"""

import argparse
from collections import Counter
from collections.abc import Sequence

from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI

from confroute import Cascade, Gate, Threshold, TokenLogprob, record
from confroute.policy import HelpTool
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat


@tool
def weather(city: str) -> str:
    """The weather in a city now."""
    raise NotImplementedError  # offered to the model, and never executed here


@tool
def departures(station: str, line: str) -> str:
    """The next departures of a bus or tram line from a station."""
    raise NotImplementedError  # offered to the model, and never executed here


@tool
def convert(amount: float, source: str, target: str) -> float:
    """Convert an amount of money from one currency to another, each as its three letters."""
    raise NotImplementedError  # offered to the model, and never executed here


TOOLS: Sequence[BaseTool] = (weather, departures, convert)
# A question, and the tool that answers it; none where a larger model would have to find a way.
CASES: Sequence[tuple[str, str | None]] = (
    ("What is the weather in Oslo?", "weather"),
    ("Is it raining in Lisbon right now?", "weather"),
    ("Do I need a coat in Warsaw at the moment?", "weather"),
    ("How warm is it in Nairobi?", "weather"),
    ("When does tram 4 leave from Central Station?", "departures"),
    ("Next departures of bus 21 at Harbour Square, please.", "departures"),
    ("I am at Old Bridge. When is the next line 9?", "departures"),
    ("Show the departures of line U2 from City Hall.", "departures"),
    ("How many euros are 50 US dollars?", "convert"),
    ("Convert 1200 Japanese yen to British pounds.", "convert"),
    ("What is 80 CHF in SEK?", "convert"),
    ("I have 30 pounds. How much is that in dollars?", "convert"),
    ("Write a contract for renting out my boat for two weeks.", None),
    ("Prove that there are infinitely many primes of the form 4k + 3.", None),
    ("Which of my three job offers should I take? I described them yesterday.", None),
    ("Cancel my subscription and get the last payment back.", None),
    ("Find the error in the proof that I sent you.", None),
    ("Book a table for four at the harbour tonight.", None),
    ("Who won the chess tournament that ended this morning?", None),
    ("Translate the attached letter into Finnish, keeping its legal terms.", None),
    ("Reconcile these two bank statements and list what differs.", None),
    ("Design a study that tests whether the new drug is better.", None),
    ("Summarise what my team decided in the last meeting.", None),
    ("Optimise this SQL query for a table of two billion rows.", None),
)


def outcome(router: ChatConfRoute, question: str, tools: Sequence[BaseTool]) -> str:
    """What the small model did: "asked", the name of the tool that it called, or "words"."""
    with record() as decisions:
        answer = router.bind_tools(tools).invoke(question)
    if decisions[0].route == "cloud":
        return "asked" if decisions[0].stage == "asked" else "a call that no tool could take"
    return answer.tool_calls[0]["name"] if answer.tool_calls else "words"


def main() -> None:
    """Ask every question once, greedily, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    edge = ChatOpenAI(
        model=args.model, base_url=args.url, api_key="none", temperature=0, max_tokens=64, timeout=600
    )
    everything = (Gate(signal=TokenLogprob(), threshold=Threshold(value=1e9)),)
    policy = Cascade(gates=everything, ask_for_help=HelpTool(), on_no_signal="edge")
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat(model="large", calls=[]), policy=policy)
    found = []
    for question, expected in CASES:
        found.append((expected, outcome(router, question, TOOLS)))
        print(f"{question}: {found[-1][1]}", flush=True)
    for words, fits in (("one tool fits", True), ("no tool fits", False)):
        counts = Counter(
            "the right tool" if did == expected else did
            if did in {"asked", "words", "a call that no tool could take"} else "a wrong tool"
            for expected, did in found
            if (expected is not None) is fits
        )  # fmt: skip
        print(
            f"{words}: {counts.total()} questions; "
            + ", ".join(f"{name} {n}" for name, n in counts.most_common())
        )


if __name__ == "__main__":
    main()
