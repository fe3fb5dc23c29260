"""What `confroute serve` adds to a call of its upstream, in microseconds.

    python benchmarks/serve.py [--calls N]

Upstream, server and client are three processes on loopback. The upstream is a scripted server that answers at once, the policy
compares the log-probability of a word, and every answer is kept: one upstream call each. Calls of the upstream and of the server
are made in turn by one client over open connections, so that both see the same machine. Wall time is that of the client, in quartiles; CPU time is that of
the server's process a call, which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from confroute import Cascade, TokenLogprob
from confroute.policy import save_policy

UPSTREAM = """
import sys
from confroute.testing import ScriptedModel, ScriptedServer
with ScriptedServer(ScriptedModel(["Bern"])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(process):
    """Seconds of CPU that a process has taken (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def timed(connection, path, body):
    """Seconds of one call."""
    start = time.perf_counter()
    connection.request("POST", path, body, {"content-type": "application/json"})
    with connection.getresponse() as response:
        assert response.status == 200, response.read()
        response.read()
    return time.perf_counter() - start


def opened(url):
    """A connection that stays open, and the path of calls."""
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port), f"{parts.path}/chat/completions"


def measured(targets, server, calls):
    """Seconds of each target's calls, in turn, and the server's CPU seconds a call; the first calls do not count."""
    times = {name: [] for name in targets}
    for number in range(calls + 50):
        if number == 50:
            begun = cpu_s(server)
        for name, (connection, path, body) in targets.items():
            took = timed(connection, path, body)
            if number >= 50:
                times[name].append(took)
    return times, (cpu_s(server) - begun) / calls


def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1000, help="of each (default: %(default)s)")
    calls = parser.parse_args().calls
    pipes = {"stdin": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE, **pipes) as upstream,
    ):
        url, policy = upstream.stdout.readline().strip(), Path(folder) / "policy.json"
        save_policy(Cascade.of(TokenLogprob(), 0.3), policy)
        models = ["--edge", "openai:small", "--edge-url", url, "--cloud", "openai:large", "--cloud-url", url]
        command = [sys.executable, "-m", "confroute", "serve", str(policy), *models, "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, **pipes) as server:
            served = re.search(r"http://\S+", server.stderr.readline())[0]
            asked = {"messages": [{"role": "user", "content": "Capital of Switzerland?"}]}
            targets = {
                "upstream": (*opened(url), json.dumps({**asked, "model": "small", "logprobs": True})),
                "server": (*opened(served), json.dumps({**asked, "model": "confroute"})),
            }
            times, cpu = measured(targets, server, calls)
            server.terminate()
        upstream.stdin.close()
    quartiles = {name: [1e6 * at for at in statistics.quantiles(took, n=4)] for name, took in times.items()}
    for name, (low, middle, high) in quartiles.items():
        print(f"{name:10} {low:8.0f} {middle:8.0f} {high:8.0f} us (quartiles of {calls} calls)")
    added = [server - upstream for upstream, server in zip(*quartiles.values(), strict=True)]
    print(f"{'added':10} {added[0]:8.0f} {added[1]:8.0f} {added[2]:8.0f} us")
    print(f"CPU of the server a call: {1e6 * cpu:.0f} us")


if __name__ == "__main__":
    main()
