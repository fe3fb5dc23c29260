"""The table of docs/providers.md, cell by cell: each claim is checked against the provider's format through its real clients."""

import re
from pathlib import Path

import httpx
import pytest

from confroute import Cascade, Gate, SelfConsistency, Threshold, TokenLogprob
from confroute.models.provider_answers import finish_of, read_answer_logprobs, read_finish, read_usage
from confroute.models.resilience import rejects_logprobs
from confroute.signals import OptionProbability, TokenEntropy
from confroute.types import UNFINISHED, Usage
from tests.servers.formats import CALLED_MEAN, CHOSEN, MEAN, Anthropic, Gemini, Said
from tests.servers.ways import POLICY, PROVIDERS, WATCHED, stop_all

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
HOSTS = {"LangChain": "langchain", "LlamaIndex": "llamaindex", "plain": "plain"}
OPTIONS = "Which city?\nA. Paris\nB. Lyon"
OPTION = Said(tokens=(("A", -0.1),))
REASONS = re.compile(r"`(\w+)` (\w+)")


def table():
    """The rows of the page: by provider, its cells by column."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = table()


@pytest.fixture(scope="module", autouse=True)
def _servers():
    yield
    stop_all()


def gate(signal, value):
    return Gate(signal=signal, threshold=Threshold(value=value))


def decided(provider, way, policy=POLICY, *, said=None, **how):
    """The decision of one call, and what was sent."""
    with provider.serving(said) as server:
        return way.decide(server, policy, **how), server.bodies


def asks(body):
    return "logprobs" in body or any("logprobs" in one for one in body.get("include") or ())


def measured(decision, value):
    assert (decision.route, decision.signal) == ("edge", "token_logprob")
    assert decision.uncertainty == pytest.approx(value)


def unmeasured(decision):
    assert (decision.route, decision.stage, decision.signals) == ("cloud", "no_signal", {})


def each_token(provider, way):
    decision, bodies = decided(provider, way)
    measured(decision, MEAN)
    assert [asks(body) for body in bodies] == [True]


def never_asked(provider, way):
    decision, bodies = decided(provider, way)
    unmeasured(decision)
    assert [asks(body) for body in bodies] == [False]


def entropy(provider, way):
    decision, bodies = decided(provider, way, Cascade.of(TokenEntropy(), 9))
    assert (decision.route, decision.signal) == ("edge", "token_entropy")
    assert bodies[0]["top_logprobs"] == 5
    return decided(provider, way, Cascade.of(OptionProbability(), 1.0), said=OPTION, question=OPTIONS)[0]


def named(provider, way):
    assert entropy(provider, way).signal == "option_probability"


def numbered(provider, way):
    assert "by numbers" in entropy(provider, way).skipped["option_probability"]


def no_alternatives(provider, way):
    unmeasured(decided(provider, way, Cascade.of(TokenEntropy(), 9))[0])


def with_each_token(provider, way):
    decision, bodies = decided(provider, way, WATCHED, streamed=True)
    assert (decision.route, decision.stage, decision.uncertainty) == ("edge", "prefix", pytest.approx(0.02))
    assert bodies[0]["stream"] is True


def at_the_end(provider, way):
    decision, bodies = decided(provider, way, WATCHED, streamed=True)
    measured(decision, MEAN)
    assert (decision.stage, bodies[0]["stream"]) == ("draft", True)


def nothing_streamed(provider, way):
    unmeasured(decided(provider, way, WATCHED, streamed=True)[0])


def of_the_call(provider, way):
    measured(decided(provider, way, tools=True)[0], CALLED_MEAN)


def not_of_a_call(provider, way):
    unmeasured(decided(provider, way, tools=True)[0])


def refused(provider, way, name):
    """Two calls through a router each, since each router remembers by itself."""
    gates = (gate(TokenEntropy(top_logprobs=30), 9.0), *POLICY.gates)
    with provider.serving(refused=name) as server:
        decisions = [way.decide(server, Cascade(gates=gates, on_no_signal="edge")) for _ in range(2)]
    requests = [(asks(body), body.get("top_logprobs") or 0) for body in server.bodies]
    assert [decision.route for decision in decisions] == ["edge", "edge"]
    assert requests[0][0]
    assert requests[0][1] == 30
    return decisions, requests


def all_refused(provider, way):
    """Asked with alternatives, without, and not at all."""
    decisions, requests = refused(provider, way, "reasoning models")
    assert [decision.stage for decision in decisions] == ["no_signal"] * 2
    assert requests == [(True, 30), (True, 0), (False, 0)] * 2


def too_many_refused(name):
    def check(provider, way):
        decisions, requests = refused(provider, way, name)
        assert [decision.signal for decision in decisions] == ["token_logprob"] * 2
        assert requests == [(True, 30), (True, 0)] * 2

    return check


def refuses_whoever_asks(provider, way):
    """Its reference has no parameter for them, and unknown ones are refused."""
    with provider.serving() as server:
        body = {"model": "small", "messages": [], "logprobs": True}
        answer = httpx.post(f"{server.root}/v1/messages", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert rejects_logprobs(ValueError(error["message"]))


def details(*names):
    def check(provider, way):
        usage = decided(provider, way, said=Said(cached=40, reasoning=6))[0].usage["edge"]
        assert usage.cached_tokens == (40 if "cached" in names else 0)
        assert usage.reasoning_tokens == (6 if "reasoning" in names else 0)
        assert usage.input_tokens == 50

    return check


BOTH = Cascade(gates=(*POLICY.gates, gate(SelfConsistency(n=2, step=2), 0.5)))


def measures(provider, way):
    measured(decided(provider, way, BOTH)[0], MEAN)
    if way.host != "plain":
        measured(decided(provider, way, BOTH, tools=True)[0], CALLED_MEAN)


def samples(provider, way, **how):
    decision, bodies = decided(provider, way, BOTH, **how)
    assert (decision.route, decision.signal, decision.uncertainty) == ("edge", "self_consistency", 0.0)
    assert len(bodies) == 3


def samples_for_calls(provider, way):
    measured(decided(provider, way, BOTH)[0], MEAN)
    samples(provider, way, tools=True)


# What the words of a column claim.
CLAIMS = {
    "log-probabilities": {"each token": each_token, "none": never_asked},
    "alternatives": {"named": named, "by number": numbered, "none": no_alternatives},
    "streamed": {"with each token": with_each_token, "at the end": at_the_end, "none": nothing_streamed},
    "with tools": {"of the call": of_the_call, "of text alone": not_of_a_call, "none": not_of_a_call},
    "refuses": {
        "reasoning models": all_refused,
        "more alternatives than its limit": too_many_refused("more alternatives than its limit"),
        "more than 20 alternatives": too_many_refused("more than 20 alternatives"),
        "any request for them": refuses_whoever_asks,
    },
    "usage details": {
        "cached, reasoning": details("cached", "reasoning"),
        "cached": details("cached"),
        "none": details(),
    },
    "the router": {
        "measures each draft": measures,
        "measures drafts of text, samples for calls": samples_for_calls,
        "samples": samples,
    },
}
CELLS = [
    (name, column, way)
    for name, one in PROVIDERS.items()
    for column in CLAIMS
    for way in one.ways
    # The router without a framework has no tools.
    if (column, way.host) != ("with tools", "plain")
]


@pytest.mark.parametrize(
    ("name", "column", "way"), CELLS, ids=[f"{name}-{column}-{way.host}" for name, column, way in CELLS]
)
def test_a_cell_says_what_happens(name, column, way):
    """A cell of several hosts names each: "LangChain: ...; LlamaIndex: ..."."""
    cell = TABLE[name][column]
    if ":" in cell:
        hosts = dict(part.split(": ") for part in cell.split("; "))
        cell = {HOSTS[host]: words for host, words in hosts.items()}[way.host]
    CLAIMS[column][cell](PROVIDERS[name], way)


REASON_CELLS = [
    (name, way, *pair)
    for name, one in PROVIDERS.items()
    for way in one.ways
    for pair in REASONS.findall(TABLE[name]["finish reasons"])
]


@pytest.mark.parametrize(
    ("name", "way", "word", "meaning"),
    REASON_CELLS,
    ids=[f"{name}-{way.host}-{word}" for name, way, word, _ in REASON_CELLS],
)
def test_a_finish_reason_means_what_the_table_says(name, way, word, meaning):
    """As the host reads it; a draft that is not whole is not kept, however certain."""
    with PROVIDERS[name].serving(Said(end=word)) as server:
        assert way.read(server).finish == meaning
        decision = way.decide(server, Cascade.of(TokenLogprob(), 9, on_no_signal="edge"))
    assert (decision.route == "cloud") is (meaning in UNFINISHED)


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_word_and_client_is_in_the_table(name):
    """All of the format's finish reasons and refusals, and the clients that the other tests go through."""
    row, provider = TABLE[name], PROVIDERS[name]
    assert tuple(word for word, _ in REASONS.findall(row["finish reasons"])) == provider.serves.ends
    assert [HOSTS[host] for host in row["clients"].split(", ")] == [way.host for way in provider.ways]
    if provider.serves is not Anthropic:
        assert [row["refuses"]] == list(provider.serves.refusals)


def gemini_scores():
    assert [*zip(*_gemini("tokens", "logprobs"), strict=True)] == [*CHOSEN]
    assert read_answer_logprobs(Gemini.answer(Said(), scored=False)) is None


def _gemini(*names):
    scored = read_answer_logprobs(Gemini.answer(Said(), tops=2))
    return [getattr(scored, name) for name in names]


def gemini_alternatives():
    assert _gemini("alternatives")[0][0] == (("Paris", -0.03), ("Paris1", -1.03))


def gemini_refuses():
    assert rejects_logprobs(ValueError(Gemini.refusal["error"]["message"]))


def gemini_usage():
    bill = Usage(input_tokens=50, output_tokens=9, cached_tokens=40, reasoning_tokens=6)
    assert read_usage(Gemini.answer(Said(cached=40, reasoning=6))["usageMetadata"]) == bill


# Of the provider that no client is installed for: its JSON, through the one reader.
OF_GEMINI = {
    "log-probabilities": {"each token, or their mean alone": gemini_scores},
    "alternatives": {"named": gemini_alternatives},
    "refuses": {"some models": gemini_refuses},
    "usage details": {"cached, reasoning": gemini_usage},
    "the router": {"reads each token, does not ask": gemini_scores},
}


@pytest.mark.parametrize("column", OF_GEMINI)
def test_the_json_of_gemini(column):
    """What its row says of it."""
    OF_GEMINI[column][TABLE["Gemini"][column]]()


def test_the_finish_reasons_of_gemini():
    """Each as it is sent."""
    pairs = REASONS.findall(TABLE["Gemini"]["finish reasons"])
    assert tuple(word for word, _ in pairs) == Gemini.ends
    for word, meaning in pairs:
        assert read_finish(Gemini.answer(Said(end=word))) == finish_of(word) == meaning
    unchecked = [column for column, cell in TABLE["Gemini"].items() if cell == "not checked"]
    assert unchecked == ["streamed", "with tools"]


# Of the real servers, which only `make servers-test` starts: the tests that say what a cell says.
OF_REAL_SERVERS = {
    "llama.cpp": {
        ("log-probabilities", "each token"): "test_log_probabilities_spell_the_answer",
        ("alternatives", "named"): "test_alternatives_are_read",
        ("streamed", "with each token"): "test_one_answer_is_equally_certain_however_it_is_read",
        ("with tools", "of the call"): "test_tools_are_called_and_measured",
        (
            "refuses",
            "streams with tools",
        ): "test_tool_calls_are_drafted_whole_where_streams_of_them_are_refused_evidence",
        ("usage details", "cached"): "test_usage_is_the_server_s",
        ("the router", "measures each draft"): "test_a_kept_draft_is_the_answer",
    },
    "`transformers serve`": {
        ("log-probabilities", "none"): "test_log_probabilities_spell_the_answer",
        ("alternatives", "none"): "test_alternatives_are_read",
        ("streamed", "none"): "test_log_probabilities_spell_the_answer",
        ("with tools", "none"): "test_a_server_that_reads_no_tool_calls_leaves_them_to_the_cloud",
        ("refuses", "nothing: ignored"): "test_without_log_probabilities_samples_decide",
        ("usage details", "none"): "test_usage_is_the_server_s",
        ("the router", "samples"): "test_without_log_probabilities_samples_decide",
    },
}


@pytest.mark.parametrize("name", OF_REAL_SERVERS)
def test_what_is_said_of_a_real_server_has_its_test(name):
    """By name: they are slow, and their server has to be installed."""
    written = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    columns = [column for column, _ in OF_REAL_SERVERS[name]]
    assert sorted(columns) == sorted({*TABLE[name]} - {"clients", "finish reasons"})
    for (column, cell), test in OF_REAL_SERVERS[name].items():
        assert TABLE[name][column] == cell
        assert f"def {test}(" in written, test
    for word, meaning in REASONS.findall(TABLE[name]["finish reasons"]):
        assert finish_of(word) == meaning


def test_the_table_has_no_other_rows():
    """A provider is not in it without a server that tests ask."""
    assert set(TABLE) == {*PROVIDERS, *OF_REAL_SERVERS, "Gemini"}
