"""Subagents whose work is routed: a main agent hands out tasks, and each subagent asks the small model where it can be trusted.

The pattern of `deepagents`, with `create_agent` alone: a subagent is a dictionary of name, description, prompt and tools, and the main agent
calls it through one tool, `task`. There a subagent gets a fixed cheaper model; here it gets `ConfRouteMiddleware`, so that a cheap answer
has to earn its place. With `deepagents` installed, the same middleware goes into the specification: `{"name": ..., "middleware": [routed]}`.

`python examples/subagents.py` runs on scripted models; `--real` on two local ones.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, tool

from confroute import Cascade, TokenLogprob, record
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatLocal
from langchain_confroute.middleware import ConfRouteMiddleware
from langchain_confroute.testing import ScriptedChat

REQUEST = "When does the last ferry to Holm leave, and may my dog come along?"
SUBAGENTS: Sequence[Mapping[str, Any]] = (
    {
        "name": "timetable",
        "description": "Knows all departures.",
        "system_prompt": "Ferries to Holm leave at 07:30 and 19:10. Answer in one sentence.",
    },
    {
        "name": "rules",
        "description": "Knows what may be taken on board.",
        "system_prompt": "Dogs travel free on the open deck; other animals by arrangement. Answer in one sentence.",
    },
)


def task_tool(make: Callable[[Mapping[str, Any]], Any]) -> BaseTool:
    """The tool by which the main agent hands a task to a subagent, which sees nothing but that task."""
    agents = {one["name"]: make(one) for one in SUBAGENTS}

    @tool
    def task(description: str, subagent: str) -> str:
        """Hand a task to a subagent and return its answer."""
        if subagent not in agents:
            return f"Error: there is no subagent {subagent!r}: expected one of {', '.join(agents)}"
        done = agents[subagent].invoke({"messages": [HumanMessage(description)]})
        return str(done["messages"][-1].text)

    task.description += "".join(f"\n- {one['name']}: {one['description']}" for one in SUBAGENTS)
    return task


def scripted() -> tuple[BaseChatModel, BaseChatModel, BaseChatModel]:
    """The main agent's model, a small one that is sure of its first answer only, and the cloud."""
    calls = [
        {"name": "task", "args": {"description": "When does the last ferry leave?", "subagent": "timetable"}},
        {"name": "task", "args": {"description": "May a dog come along?", "subagent": "rules"}},
    ]
    said = "The last ferry leaves at 19:10, and your dog travels free on the open deck."
    main = ScriptedChat(script=ScriptedModel([said], name="main"), model="main", calls=calls)
    sure, unsure = (
        Reply(text="At 19:10.", logprob=-0.02),
        Reply(text="Perhaps, if it is small.", logprob=-1.4),
    )

    def by_question(prompt: str) -> Reply:
        return unsure if "dog come" in prompt else sure

    small = ScriptedChat(script=ScriptedModel(by_question, name="small"), model="small")
    return main, small, ScriptedChat.of("Dogs travel free, on the open deck.", name="large")


def real() -> tuple[BaseChatModel, BaseChatModel, BaseChatModel]:
    """The same with local models for the subagents; the main agent's plan stays scripted, since it needs a model that calls tools."""
    edge = ChatLocal(model="smollm2-135m", max_tokens=32)
    return scripted()[0], edge, ChatLocal(model="qwen2.5-coder-1.5b", max_tokens=32)


def main() -> None:
    """Run the main agent once, and print who answered what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="local models in the subagents")
    parser.add_argument("--threshold", type=float, default=0.25, help="nats per token")
    args = parser.parse_args()
    planner, edge, cloud = real() if args.real else scripted()
    routed = ConfRouteMiddleware(edge, policy=Cascade.of(TokenLogprob(), args.threshold))

    def subagent(given: Mapping[str, Any]) -> Any:
        return create_agent(
            cloud, system_prompt=given["system_prompt"], middleware=[routed], name=given["name"]
        )

    agent = create_agent(planner, [task_tool(subagent)])
    with record() as decisions:
        done = agent.invoke({"messages": [HumanMessage(REQUEST)]})
    for message in done["messages"][1:]:
        print(f"{message.type}: {message.text or [call['args'] for call in message.tool_calls]}")
    for decision in decisions:
        print(f"  {decision.route}: {decision.reason}")


if __name__ == "__main__":
    main()
