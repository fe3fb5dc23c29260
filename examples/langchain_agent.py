"""An agent with two tools, and streams, on real models: the cloud is a server on loopback, asked over HTTP.

`confroute.testing.ModelServer` serves both local models in OpenAI's format, so everything here goes through `langchain-openai`
as it would with a provider; give `ChatOpenAI` a provider's address and name in its place:
`python examples/langchain_agent.py --threshold 0.25`
"""

import argparse
import time
from collections.abc import Sequence

from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from confroute import Cascade, Gate, Prefix, Threshold, TokenLogprob, record
from confroute.decision import Decision
from confroute.testing import ModelServer
from langchain_confroute import ChatConfRoute, ChatLocal

EDGE, CLOUD = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
TASK = "What does a return ticket to Holm cost, and what is 12 * 15? Use a tool for each."
SYSTEM = "Use the tools, one after another, until you have everything. Then answer in one sentence."
QUESTIONS = ("What is the capital of France?", "What is 17 * 23?")
FARES = {"single": 9, "return": 15}


@tool
def fare(kind: str) -> int:
    """Price in euros of one ticket to Holm; kind is "single" or "return"."""
    return FARES[kind]


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def client(server: ModelServer, model: str) -> ChatOpenAI:
    """A chat model behind the server."""
    return ChatOpenAI(
        model=model, base_url=server.url, api_key="none", max_tokens=64, timeout=600, max_retries=0
    )


def print_steps(messages: Sequence[BaseMessage]) -> None:
    """Print what an agent did."""
    for message in messages:
        for call in getattr(message, "tool_calls", ()):
            print(f"  calls {call['name']}({call['args']})")
        if message.text:
            print(f"  {message.type}: {message.text}")


def explained(decisions: Sequence[Decision]) -> None:
    """Print who answered and why."""
    for decision in decisions:
        print(f"  {decision.route}: {decision.reason}")


def run_agent(server: ModelServer, policy: Cascade) -> None:
    """An agent whose model is a router between two models behind the server."""
    router = ChatConfRoute(edge=client(server, EDGE), cloud=client(server, CLOUD), policy=policy)
    agent = create_agent(router, [fare, multiply], system_prompt=SYSTEM)
    print(f"agent: {TASK}")
    with record() as decisions:
        done = agent.invoke({"messages": [HumanMessage(TASK)]}, {"recursion_limit": 12})
    print_steps(done["messages"][1:])
    explained(decisions)


def run_stream(name: str, server: ModelServer, policy: Cascade) -> None:
    """Streams whose edge is in this process and whose cloud is behind the server."""
    router = ChatConfRoute(
        edge=ChatLocal(model=EDGE, max_tokens=24), cloud=client(server, CLOUD), policy=policy
    )
    for question in QUESTIONS:
        print(f"{name}: {question}")
        start, first_s, chunks = time.perf_counter(), None, 0
        with record() as decisions:
            for chunk in router.stream(question):
                if chunk.text:
                    first_s = time.perf_counter() - start if first_s is None else first_s
                    chunks += 1
                    print(chunk.text, end="", flush=True)
        print(
            f"\n  {chunks} chunks, the first after {first_s or 0:.1f} s of {time.perf_counter() - start:.1f} s"
        )
        explained(decisions)


def main() -> None:
    """Serve both models, then an agent and two ways to stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threshold", type=float, default=0.25, help="nats per token")
    args = parser.parse_args()
    gates = (Gate(signal=TokenLogprob(), threshold=Threshold(value=args.threshold)),)
    early = Prefix(
        commit=Threshold(value=args.threshold),
        cut=Threshold(value=max(args.threshold, 0.6)),
        tokens=4,
        least=4,
    )
    with ModelServer(EDGE, CLOUD) as server:
        run_agent(server, Cascade(gates=gates))
        run_stream("verify", server, Cascade(gates=gates))
        run_stream("prefix", server, Cascade(gates=gates, prefix=early))
        requested = [body["model"] for body in server.bodies]
        print(f"{requested.count(CLOUD)} requests reached the cloud, {requested.count(EDGE)} the served edge")


if __name__ == "__main__":
    main()
