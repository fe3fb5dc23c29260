"""What code behind a router receives while the model that it was routed to answers 500: ours and LLMRouter's client.

    python benchmarks/outage.py [--json] [--llmrouter-python PATH]

LLMRouter need not be in this environment: `python -m venv V && V/bin/pip install llmrouter-lib==0.4.0 litellm pandas`,
then `--llmrouter-python V/bin/python`. Both ask the same loopback server over HTTP; tries of its own are left to each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI

from confroute import Cascade, Limits, TokenLogprob
from confroute.errors import ConfrouteError
from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

THEIRS = Path(__file__).parent / "peers" / "llmrouter_call.py"


def received(cloud: ChatOpenAI, on_cloud_error: str) -> dict[str, object]:
    """What one call brings whose draft is not good enough, and how it is marked."""
    router = ChatConfRoute(
        edge=ScriptedChat.of("a doubtful draft", name="edge", logprob=-2.0),
        cloud=cloud,
        policy=Cascade.of(TokenLogprob(), 0.25, on_cloud_error=on_cloud_error),
        cloud_limits=Limits(attempts=1),
    )
    start = time.perf_counter()
    try:
        got = router.invoke("Hello")
    except ConfrouteError as error:
        told = {"received": type(error).__name__, "as": "exception", "says": str(error)[:90]}
    else:
        assert isinstance(got, AIMessage)
        degraded = got.response_metadata["confroute"]["degraded"]
        told = {"received": got.text, "as": "answer, degraded" if degraded else "answer"}
    return {**told, "seconds": round(time.perf_counter() - start, 3)}


def main() -> int:
    """Ask each once and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--llmrouter-python", metavar="PATH", help="an environment that has LLMRouter")
    args = parser.parse_args()
    server = ScriptedServer(ScriptedModel(replies=[Reply(fault=faults.status(500))]))
    server.start()
    try:
        cloud = ChatOpenAI(model="m", base_url=server.url, api_key="none", max_retries=0)
        rows = {f"confroute, on_cloud_error={how!r}": received(cloud, how) for how in ("raise", "edge")}
        if args.llmrouter_python:
            command = [args.llmrouter_python, str(THEIRS), server.url]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows["LLMRouter 0.4.0"] = json.loads(said.splitlines()[-1])
    finally:
        server.stop()
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for name, row in rows.items():
        print(f"{name:<38} {row['as']:<18} {row['seconds']:>7} s  {row['received']!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
