"""The demo over two models behind a real HTTP server: calibration, routes, outage, prices, JSON."""

import json
from pathlib import Path

import pytest

from confroute.cli import main
from confroute.demo.questions import CALIBRATION, REQUESTS

FERRY = str(Path(__file__).parents[2] / "examples" / "ferry")
MODELS = ["--edge", "openai:small", "--cloud", "openai:large", "--folder", FERRY]
KNOWN = {item.question: position for position, item in enumerate(CALIBRATION)}


def respond(body):
    """The large model knows the calibration's answers; the small one every second of them, and how sure it is."""
    question = body["messages"][-1]["content"]
    if question not in KNOWN:
        return ("forty two", -0.05) if body["model"] == "small" and len(question) % 2 else ("so it is", -1.5)
    good = body["model"] == "large" or KNOWN[question] % 2 == 0
    return (CALIBRATION[KNOWN[question]].accepted[0], -0.05) if good else ("no idea at all", -1.5)


def run(capsys, *args):
    """Run the demo; return its exit code and what it printed."""
    code = main(["demo", *MODELS, *args])
    return code, capsys.readouterr()


def test_json(openai_server, capsys):
    """One JSON object: every request with what was measured, and totals that add up."""
    openai_server.respond = respond
    code, printed = run(capsys, "--json", "--cloud-price", "1,2")
    assert code == 0, printed.err
    result = json.loads(printed.out)
    rows = {row["id"]: row for row in result["requests"]}
    assert list(rows) == [asked.id for asked in REQUESTS]
    assert {row["host"] for row in rows.values()} == {"langchain", "llamaindex"}
    for row in rows.values():
        assert {"route", "stage", "uncertainty", "signals", "reason", "latency_s", "usage"} <= set(row)
        if row["stage"] == "draft":
            kept = row["signals"]["token_logprob"]["uncertainty"] <= row["threshold"]
            assert row["route"] == ("edge" if kept else "cloud")
    assert rows["private"]["rule"] == "keep_private"
    totals = result["totals"]
    assert totals["cloud_share"] == round(sum(r["route"] == "cloud" for r in rows.values()) / len(rows), 4)
    sent = [row["usage"].get("cloud", {"input_tokens": 0, "output_tokens": 0}) for row in rows.values()]
    cloud = totals["usage"]["cloud"]
    assert cloud["input_tokens"] == sum(u["input_tokens"] for u in sent) > 0
    assert totals["cost_usd"] == pytest.approx((cloud["input_tokens"] + 2 * cloud["output_tokens"]) / 1e6)
    assert 0.05 < result["thresholds"]["token_logprob"]["value"] < 1.5
    private = [b for b in openai_server.bodies if "patient" in json.dumps(b)]
    assert {b["model"] for b in private} == {"small"}


def test_the_cloud_that_is_off_is_off(openai_server, capsys):
    """A rejected draft without a cloud comes back flagged, after a connection that was really refused."""
    openai_server.respond = lambda body: (
        respond(body) if body["messages"][-1]["content"] in KNOWN else ("hm", -1.5)
    )
    code, printed = run(capsys, "--json")
    assert code == 0
    row = json.loads(printed.out)["requests"][-1]
    assert (row["id"], row["route"], row["degraded"], row["stage"]) == ("outage", "edge", True, "fallback")
    assert "ConnectionRefusedError" in row["reason"]


def test_words_then_table(openai_server, capsys):
    """Three sentences, then each request in the table; meanwhile every question, and where it went, a line each."""
    openai_server.respond = respond
    code, printed = run(capsys)
    assert code == 0
    shown = printed.out.splitlines()
    sentences = [line.partition(":")[0] for line in shown if line.startswith(("Stayed:", "Saved:", "Wrong:"))]
    assert sentences == ["Stayed", "Saved", "Wrong"]
    assert printed.out.index("Wrong:") < printed.out.index("why, and the answer")
    for words in (
        "edge: openai:small",
        f"calibrated on {len(CALIBRATION)} questions",
        "ferry-dogs",
        "threshold of token_logprob",
    ):
        assert words in printed.out
    told = printed.err.splitlines()
    for number, asked in enumerate(CALIBRATION, start=1):
        at = told.index(f"calibrating, {number} of {len(CALIBRATION)}: {asked.question.splitlines()[0]}")
        assert told[at + 1] == f"  edge {'right' if number % 2 else 'wrong'}, cloud right"
    for number, asked in enumerate(REQUESTS, start=1):
        question = asked.turns[-1].text.splitlines()[0]
        at = told.index(f"{number} of 14, {asked.host}: {question}")
        # A warning of the log, where the cloud is off, comes between the two.
        assert any(line.startswith(("  -> edge, ", "  -> cloud, ")) for line in told[at + 1 : at + 3])


def test_an_edge_that_is_never_right_is_an_error_with_numbers(openai_server, capsys):
    """No threshold is made up where none is worth it."""
    openai_server.respond = lambda body: (
        respond(body) if body["model"] == "large" else ("no idea at all", -0.1)
    )
    code, printed = run(capsys, "--json")
    assert (code, printed.out) == (1, "")
    assert (
        f"token_logprob: no threshold beats the cloud alone on {len(CALIBRATION)} calls (mean quality: edge 0.00, cloud 1.00"
        in printed.err
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--cloud", "openai:small"], "two different models"),
        (["--edge", "smollm2-135m"], "did you mean 'local:smollm2-135m'"),
        (["--folder", "nowhere"], "--folder"),
        (["--edge", "local:smollm2-135m", "--edge-base-url", "http://127.0.0.1"], "runs in this process"),
    ],
)
def test_arguments_that_cannot_work(capsys, args, words):
    """Each is refused before any model is called."""
    code, printed = run(capsys, *args)
    assert code == 1
    assert words in printed.err


@pytest.mark.parametrize("price", ["1", "a,b", "-1,2"])
def test_prices_that_are_none(capsys, price):
    """Before any model is loaded, with what is expected."""
    code, printed = run(capsys, f"--cloud-price={price}")
    assert code == 1
    assert f"price {price!r}" in printed.err or "0 or more" in printed.err
