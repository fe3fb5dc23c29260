"""A pipeline around a router is recorded as it is: its own answers, the router's evidence, and a policy that fits both."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import pytest

from confroute import (
    Cascade,
    ContextSupport,
    KeepPrivate,
    Router,
    SelfConsistency,
    SendTo,
    TokenLogprob,
    load_policy,
    record,
)
from confroute.budget import Budget, Paced
from confroute.cli import main
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError
from confroute.fitting import CloudShare, fit
from confroute.recording import Row, Side, read_rows, record_pipeline
from confroute.recording.pipeline import NO_CALL, SETTLED, PipelineRecorder, text_of
from confroute.testing import Reply, ScriptedModel

QUESTIONS = [f"How long is bridge {n}?" for n in range(24)]


def number_in(prompt):
    """That of the last question of a prompt."""
    return int(prompt.rsplit("bridge ", 1)[1].split("?")[0])


def edge_reply(prompt):
    """Right for every third bridge, and the surer the smaller its number."""
    n = number_in(prompt)
    return Reply(text=f"{n if n % 3 else n + 1} m", logprob=-0.01 * (n + 1))


def edge(name="small", **settings):
    return ScriptedModel(edge_reply, samples=["4 m", "5 m"], name=name, **settings)


def cloud():
    return ScriptedModel(lambda prompt: f"{number_in(prompt)} m", name="large", remote=True)


def router(policy=None, **models):
    return Router(
        **{"edge": edge(), "cloud": cloud(), **models}, policy=policy or Cascade.of(TokenLogprob(), 0.1)
    )


def questions():
    return [Row(id=str(n), prompt=text, reference=n, edge=Side()) for n, text in enumerate(QUESTIONS)]


def recorded(pipeline, given=None, **wanted):
    """The row of one question."""
    given = given or Row(id="7", prompt=QUESTIONS[7], reference=7, edge=Side())
    return PipelineRecorder(pipeline=pipeline, **wanted).row(given)


def test_a_row_holds_both_answers_and_the_evidence_of_the_router():
    """Whatever the router's own threshold would have decided; its policy, models and decisions are its own again."""
    own = router(Cascade.of(TokenLogprob(), 0.0))
    row = recorded(lambda question: own.ask(question).text, samples=3, kind="number")
    assert (row.edge.text, row.edge.quality, row.edge.model) == ("7 m", 1.0, "small")
    assert (row.cloud.text, row.cloud.quality, row.cloud.model) == ("7 m", 1.0, "large")
    assert [one.text for one in row.edge.samples] == ["4 m", "5 m", "4 m"]
    assert row.signals["token_logprob.mean"] == pytest.approx(0.08)
    assert row.signals["self_consistency"] == 1.0
    assert row.extra["calls"] == 1
    assert row.extra["question"] == row.question == QUESTIONS[7]
    assert own.ask(QUESTIONS[7]).decision.route == "cloud"


def test_recorded_fitted_saved_and_deployed_in_the_same_pipeline(tmp_path):
    """In five lines; the deployed router measures what was recorded, and decides as the fit says."""
    own = router()
    ticks = []
    summary = record_pipeline(
        lambda question: own.ask(question).text,
        questions(),
        tmp_path / "run.jsonl",
        tick=lambda so_far: ticks.append(so_far.recorded),
    )
    fit(read_rows(tmp_path / "run.jsonl"), CloudShare(share=0.5), signal="token_logprob.mean").save(
        tmp_path / "policy.json"
    )
    deployed = router(load_policy(tmp_path / "policy.json"))
    with record() as decisions:
        for question in QUESTIONS:
            deployed.ask(question)
    assert (summary.recorded, summary.failed, summary.several) == (24, 0, 0)
    assert ticks == [*range(25)]
    rows = {row.id: row for row in read_rows(tmp_path / "run.jsonl")}
    for n, decision in enumerate(decisions):
        assert decision.uncertainty == pytest.approx(rows[str(n)].signals["token_logprob.mean"])
    assert sum(one.route == "cloud" for one in decisions) == 12


def test_it_goes_on_where_it_was_stopped(tmp_path):
    """Rows that are there are not done again, failed ones are where asked for."""
    model, out = edge(), tmp_path / "run.jsonl"
    own, broken = router(edge=model), [True]

    def pipeline(question):
        if broken[0] and question == QUESTIONS[1]:
            raise LookupError("no such bridge")
        return own.ask(question).text

    first = record_pipeline(pipeline, questions(), out, limit=3)
    assert (first.recorded, first.failed) == (3, 1)
    failed = [row for row in read_rows(out) if row.edge.error]
    assert [(row.id, row.edge.error, row.cloud.error) for row in failed] == [
        ("1", "LookupError: no such bridge", "LookupError: no such bridge")
    ]
    broken[0] = False
    asked = len(model.calls)
    again = record_pipeline(pipeline, questions(), out, limit=4, retry_errors=True, concurrency=2)
    assert (again.recorded, again.before, again.failed) == (2, 2, 0)
    assert len(model.calls) == asked + 2
    assert record_pipeline(pipeline, questions(), out, limit=4).recorded == 0


def test_a_private_question_never_reaches_the_cloud():
    """Its row says so and has no cloud; nothing else of the pipeline goes there in that question either."""
    large = cloud()
    policy = Cascade.of(TokenLogprob(), 0.1, rules=(KeepPrivate(patterns=("bridge 7",)),))
    for around in (
        policy,
        Audited(policy=policy, test=DriftTest(level=0.1), share=1.0, store="memory:test-pipeline-private"),
    ):
        own = router(around, cloud=large)
        row = recorded(
            lambda question, own=own: f"{own.ask(question).text}{own.ask('Is bridge 8?').text[:0]}"
        )
        assert (row.cloud, row.extra["private"], row.edge.text, row.edge.quality) == (None, True, "7 m", 1.0)
    assert large.calls == []


def test_what_becomes_private_on_its_way_has_no_cloud():
    """A question whose second call repeats what only the cloud said."""
    large = ScriptedModel(lambda prompt: "secret bridge 7?", name="large")
    policy = Cascade.of(TokenLogprob(), 0.1, rules=(KeepPrivate(patterns=("secret",)),))
    own = router(policy, cloud=large)
    row = recorded(
        lambda question: own.ask(f"Say bridge {number_in(own.ask(question).text + 'bridge 7?')}?").text
    )
    assert (row.cloud is None, row.extra.get("private")) == (False, None)
    row = recorded(lambda question: own.ask(f"Again: {own.ask(question).text} bridge 7?").text)
    assert (row.cloud, row.extra["private"]) == (None, True)
    assert all("secret" not in call.prompt for call in large.calls)


def test_several_calls_keep_the_evidence_of_the_one_whose_text_is_the_result():
    """Else of the last; how many there were stands in the row, and cost and time are those of all."""
    own = router()

    def first_of_two(question):
        answer = own.ask(question).text
        own.ask("And bridge 20?")
        return f" {answer}\n"

    row = recorded(first_of_two)
    assert row.extra["calls"] == 2
    assert row.signals["token_logprob.mean"] == pytest.approx(0.08)
    assert "result" not in row.edge.extra
    row = recorded(lambda question: f"It is {[own.ask(question), own.ask('And bridge 20?')][1].text} long.")
    assert row.signals["token_logprob.mean"] == pytest.approx(0.21)
    assert (row.edge.text, row.edge.shown, row.edge.quality) == ("20 m", "It is 20 m long.", 0.0)
    assert row.question == "And bridge 20?"


def test_rules_and_forced_routes_hold_as_they_will():
    """A call that a rule or its caller settles is no evidence, in either run; where all are, the row says so."""
    large = cloud()
    own = router(
        Cascade.of(TokenLogprob(), 0.1, rules=(SendTo(tier="edge", purposes=("condense",)),)), cloud=large
    )

    def condensing(question):
        return own.ask(own.ask(question, purpose="condense").text + " bridge 7?").text

    row = recorded(condensing)
    assert row.extra["calls"] == 1
    assert row.messages[-1]["content"] == "7 m bridge 7?"
    assert [call.prompt for call in large.calls] == ["user: 7 m bridge 7?"]
    row = recorded(lambda question: own.ask(question, route="cloud").text)
    assert row.edge.error == SETTLED


@pytest.mark.parametrize("concurrency", [1, 3])
def test_async_pipelines(tmp_path, concurrency):
    """A coroutine function, also where a loop runs already, as in a notebook."""
    own = router()

    async def pipeline(question):
        answers = await asyncio.gather(own.aask(question), own.aask("And bridge 20?"))
        return answers[0].text

    async def notebook():
        return record_pipeline(pipeline, questions()[:4], tmp_path / "run.jsonl", concurrency=concurrency)

    assert asyncio.run(notebook()).failed == 0
    rows = sorted(read_rows(tmp_path / "run.jsonl"), key=lambda row: int(row.id))
    assert [row.signals["token_logprob.mean"] for row in rows] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert {row.extra["calls"] for row in rows} == {2}


def test_budgets_are_not_spent_and_a_router_inside_decides_for_itself():
    """Recording replaces the outer policy alone."""
    paced = Paced(
        policy=Cascade.of(TokenLogprob(), 0.1),
        budgets=(Budget(limit=1, unit="calls"),),
        store="memory:test-pipeline-paced",
    )
    own = router(paced)
    for _ in range(3):
        assert recorded(lambda question: own.ask(question).text).cloud.error is None
    inner = router()
    outer = router(edge=lambda messages: inner.ask(messages[-1].text).text)
    with record() as decisions:
        row = recorded(lambda question: outer.ask("How long is bridge 21?").text)
    (inside,) = decisions[0].steps[0].inner
    assert (inside.route, row.edge.text, decisions[0].route) == ("cloud", "21 m", "edge")
    assert [step.kind for one in decisions for step in one.steps] == ["draft", "final"]


def test_a_pipeline_without_a_router_and_what_returns_no_text_are_told(tmp_path):
    """By the row, or before all rows."""
    row = recorded(lambda question: "Bern")
    assert (row.edge.error, row.cloud.error) == (NO_CALL, NO_CALL)
    own = router()
    with pytest.raises(PolicyError, match="returned a NoneType: expected a text, or JSON"):
        recorded(lambda question: own.ask(question) and None)
    with pytest.raises(PolicyError, match="is not a pipeline: expected an object with query"):
        PipelineRecorder(pipeline=7)

    class Chat:
        def chat(self, question): ...

    with pytest.raises(PolicyError, match="keeps a history from question to question"):
        PipelineRecorder(pipeline=Chat())


def test_grades_of_a_function(tmp_path):
    """It sees question, result and reference; what is no grade is refused."""
    own, seen = router(), []

    def grade(question, answer, reference):
        seen.append((question, answer, reference))
        return answer == "7 m"

    row = recorded(lambda question: own.ask(question).text, grade=grade)
    assert (row.edge.quality, row.cloud.quality) == (1.0, 1.0)
    assert seen == [(QUESTIONS[7], "7 m", 7)] * 2
    with pytest.raises(PolicyError, match=r"the grade of row '7' is 2: expected a number from 0 to 1"):
        recorded(lambda question: own.ask(question).text, grade=lambda *_: 2)


def test_texts_of_results():
    """Of plain values as JSON."""
    assert text_of({"b": 1, "a": ["x"]}) == '{"a": ["x"], "b": 1}'
    assert text_of(4) == "4"


def test_samples_and_signals_are_those_of_the_router_inside():
    """Signals with settings are kept with them, and deployed as such."""
    own = router()
    row = recorded(
        lambda question: own.ask(question).text,
        samples=2,
        signals={"agree": lambda n: SelfConsistency(n=n, kind="number")},
        kind="number",
    )
    assert row.signals == {"agree": 1.0}
    assert row.measured_by["agree"]["class"] == "SelfConsistency"


APP = """
from confroute import Router, Cascade, TokenLogprob, KeepPrivate
from confroute.testing import Reply, ScriptedModel

def number(prompt):
    return int(prompt.rsplit("bridge ", 1)[1].split("?")[0])

def draft(prompt):
    n = number(prompt)
    return Reply(text=f"{n if n % 3 else n + 1} m", logprob=-0.01 * (n + 1), finish="length" if n == 5 else "stop")

rules = (KeepPrivate(patterns=("bridge 2[?]",)),)
router = Router(
    edge=ScriptedModel(draft, name="small"),
    cloud=ScriptedModel(lambda prompt: f"{number(prompt)} m", name="large"),
    policy=Cascade.of(TokenLogprob(), 0.1, rules=rules),
)

def pipeline(question):
    if number(question) == 4:
        router.ask(question)
    return router.ask(question).text

def grade(question, answer, reference):
    return float(answer == f"{reference} m")
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A module of a user's in the current folder, and a file of questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bridge_app.py").write_text(APP)
    lines = ({"id": str(n), "prompt": text, "reference": n} for n, text in enumerate(QUESTIONS))
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_from_the_command_line_to_a_policy(app, tmp_path, capsys):
    """It says what it did now and then, and at the end what that means; the fit goes by the rows."""
    command = ["record", "q.jsonl", "--out", "run.jsonl", "--pipeline", "bridge_app:pipeline"]
    assert main([*command, "--grade", "bridge_app:grade", "--cloud-price", "1,1"]) == 0
    out, err = capsys.readouterr()
    assert [line.split(",")[0] for line in err.splitlines()] == [f"{n} of 24 rows" for n in range(3, 24, 3)]
    said = out.splitlines()
    assert said[0] == "run.jsonl: 24 rows recorded, 0 there before, 0 with an error"
    assert said[1].startswith("1 draft cut off at the length limit: a policy sends such calls to the cloud")
    assert said[2].startswith("1 row private: kept from the cloud")
    assert said[3].startswith("1 question took several routed calls, up to 2.")
    assert main(command) == 0
    assert "0 rows recorded, 24 there before" in capsys.readouterr().out
    fitted = [
        "fit",
        "run.jsonl",
        "--out",
        "policy.json",
        "--signal",
        "token_logprob.mean",
        "--cloud-share",
        "0.5",
    ]
    assert main(fitted) == 0
    assert "23 recorded calls" in capsys.readouterr().out
    assert main(["signals", "run.jsonl"]) == 0
    assert "cut off at the length limit: 1 draft" in capsys.readouterr().out
    assert load_policy("policy.json").gates[0].signal == TokenLogprob()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "neither --edge nor --pipeline is given"),
        (
            ["--pipeline", "bridge_app:pipeline", "--edge", "openai:m"],
            "--edge beside --pipeline: expected one of them",
        ),
        (["--pipeline", "bridge_app:pipeline", "--cloud", "openai:m"], "--cloud beside --pipeline"),
        (["--pipeline", "bridge_app:pipeline", "--system", "Be brief."], "--system beside --pipeline"),
        (["--pipeline", "bridge_app:nothing"], "--pipeline 'bridge_app:nothing' cannot be imported"),
        (["--pipeline", "bridge_app:rules"], "a tuple is not a pipeline"),
        (["--pipeline", "bridge_app:pipeline", "--grade", "bridge_app:no"], "expected MODULE:FUNCTION"),
    ],
)
def test_misuse_is_refused(app, capsys, tmp_path, more, said):
    """Before any question is asked."""
    assert main(["record", "q.jsonl", "--out", "run.jsonl", *more]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run.jsonl").exists()


def test_context_support_of_retrieved_passages_is_recorded():
    """With the question apart from the prompt, as the router has it."""
    own = router()

    def pipeline(question):
        prompt = f"Bridge 7 is 7 m long.\n{question}"
        return own.ask(prompt, question=question, context=[("Bridge 7 is 7 m long.", 0.8)]).text

    row = recorded(pipeline)
    assert row.extra["context"] == {
        "question": QUESTIONS[7],
        "passages": ["Bridge 7 is 7 m long."],
        "scores": [0.8],
    }
    assert row.signals["context_support"] == 0.0
    assert row.signals["retrieval_score"] == pytest.approx(0.2)
    assert ContextSupport().name == "context_support"


@pytest.mark.parametrize("left", [False, True])
def test_a_private_call_that_fails_or_is_left_is_private_all_the_same(left):
    """Whatever the pipeline makes of it goes to no cloud, and no judge is to get the row."""

    def edge_down(prompt):
        if "bridge" in prompt:
            raise ValueError("down")
        return "It is long"

    keep = KeepPrivate(patterns=("bridge",))
    own = router(Cascade.of(TokenLogprob(), 0.1, rules=(keep,)), edge=ScriptedModel(edge_down))

    def pipeline(question):
        try:
            return next(own.stream(question)) if left else own.ask(question).text
        except ValueError:
            return own.ask("Which are long?").text

    if left:
        own = router(own.policy)
    row = recorded(pipeline)
    assert (row.extra["private"], row.cloud) == (True, None)


def test_a_policy_of_one_s_own_around_another_keeps_private_what_it_keeps():
    """Only the wrappers that ship are passed over."""

    @dataclass(frozen=True)
    class Own:
        policy: Cascade

        def flow(self, request):
            keep = Cascade.of(TokenLogprob(), 0.1, rules=(KeepPrivate(patterns=("bridge",)),))
            return (yield from keep.flow(request))

    own = router(Own(Cascade.of(TokenLogprob(), 0.1)))
    row = recorded(lambda question: own.ask(question).text)
    assert (row.extra["private"], row.cloud) == (True, None)


def test_tiers_of_other_names_are_recorded_as_the_first_and_the_last():
    """A row's two sides are the cheapest model and the dearest, however they are called."""
    tiers = {"small": edge(), "mid": edge(name="mid"), "large": cloud()}
    own = Router(tiers=tiers, policy=Cascade(tiers=tuple(tiers)))
    row = recorded(lambda question: own.ask(question).text)
    assert (row.edge.model, row.edge.error, row.cloud.model, row.cloud.error) == (
        "small",
        None,
        "large",
        None,
    )
