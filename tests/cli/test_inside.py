"""Monte Carlo dropout and ensemble variance from the command line to a deployed policy, on tiny local models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("langchain_core")

from confroute import load_policy
from confroute.cli import main
from confroute.recording import Row, read_rows

COUNT = 12


@pytest.fixture(scope="module")
def models(make_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny random chat model and of a flatter copy of it."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("edge", "flat")}
    for name, scale in (("edge", 4.0), ("flat", 1.0)):
        make_tiny(folders[name], scale=scale)
    return folders


@pytest.fixture(scope="module")
def run(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run with dropout passes, an ensemble and a further call of the edge, and no other signal."""
    folder = tmp_path_factory.mktemp("run")
    cloud = {"text": "B", "quality": 1.0, "usage": {"input_tokens": 20, "output_tokens": 1}}
    rows = [
        {"id": str(i), "prompt": f"Where did cat {i} sit?", "reference": "B", "cloud": cloud}
        for i in range(COUNT)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(folder / "prompts.jsonl"), "--out", str(folder / "run.jsonl")]
    edge = ["--edge", f"local:{models['edge']}", "--max-tokens", "6", "--signals", "Verbalised()"]
    inside = ["--dropout", "3", "--dropout-rates", "0.1", "--member", f"flat=local:{models['flat']}"]
    assert main(["record", *files, *edge, *inside]) == 0
    return folder / "run.jsonl"


def deployed(policy: Path, row: Row, models: dict[str, Path]) -> Any:
    """The decision of a LangChain router with that policy on the recorded prompt."""
    from langchain_confroute import ChatConfRoute, ChatLocal
    from langchain_confroute.testing import ScriptedChat

    chats = {name: ChatLocal(model=str(path), max_tokens=6) for name, path in models.items()}
    edge, cloud = chats.pop("edge"), ScriptedChat.of("B")
    router = ChatConfRoute(edge=edge, cloud=cloud, members=chats, policy=load_policy(policy))
    return router.invoke(row.prompt).response_metadata["confroute"]


@pytest.mark.parametrize(
    ("column", "signal"),
    [
        ("mc_dropout@0.1.token_variance", "mc_dropout"),
        ("mc_dropout@0.1.mutual_information", "mc_dropout"),
        ("ensemble.score_variance", "ensemble"),
    ],
)
def test_recorded_fitted_saved_applied_and_deployed(
    column: str, signal: str, run: Path, models: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    """The router measures on each prompt the number that was recorded, and takes the route that apply says."""
    out = tmp_path / "policy.json"
    fit = ["fit", str(run), "--out", str(out), "--signal", column, "--cloud-share", "0.5"]
    assert main(fit) == 1
    assert "drafts are incomplete or empty" in capsys.readouterr().err
    # Random models never end an answer: each draft is cut off after six tokens.
    assert main([*fit, "--on-unfinished", "judge"]) == 0
    said = capsys.readouterr().out
    assert f"signal {column}" in said
    assert "only be replayed" not in said
    assert main(["apply", str(out), str(run), "--json"]) == 0
    applied = json.loads(capsys.readouterr().out)
    rows = [*read_rows(run)]
    assert len({round(row.signals[column] or 0.0, 6) for row in rows}) > COUNT // 2
    decisions = [deployed(out, row, models) for row in rows]
    assert [one["uncertainty"] for one in decisions] == pytest.approx(
        [row.signals[column] for row in rows],
        abs=1e-6,  # metadata is rounded
    )
    assert {one["signal"] for one in decisions} == {signal}
    share = sum(one["route"] == "cloud" for one in decisions) / COUNT
    assert applied["expected"]["cloud_share"] == pytest.approx(share)
    assert 0 < share < 1


def test_members_that_are_named_wrong_are_refused(run: Path, models: dict[str, Path], capsys: Any) -> None:
    """A tier's name, a name twice, no model, and a server of nobody's."""
    prompts = str(run.with_name("prompts.jsonl"))
    command = [
        "record",
        prompts,
        "--out",
        str(run.with_name("new.jsonl")),
        "--edge",
        f"local:{models['edge']}",
    ]
    for more in (["--member", "cloud=m"], ["--member", "a"], ["--member", "a=x", "--member", "a=y"]):
        assert main([*command, *more]) == 1
        assert "expected NAME=VALUE, each NAME once" in capsys.readouterr().err
    assert main([*command, "--member-base-url", "a=http://127.0.0.1"]) == 1
    assert "--member-base-url a: expected a name that --member gives" in capsys.readouterr().err


APP = """
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.output_parsers import StrOutputParser
from langchain_confroute import ChatConfRoute, ChatLocal
from langchain_confroute.testing import ScriptedChat
from confroute import Cascade, TokenLogprob, load_policy

edge = ChatLocal(model={edge!r}, max_tokens=6)
members = {{"flat": ChatLocal(model={flat!r}, max_tokens=6)}}

def chain_with(policy):
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("B"), members=members, policy=policy)
    return ChatPromptTemplate.from_template("Where did {{cat}} sit?") | router | StrOutputParser()

chain = chain_with(Cascade.of(TokenLogprob(), 0.1))
"""


def test_a_pipeline_on_local_weights(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Dropout and an ensemble of the router's own members, recorded in a chain, are measured again by the deployed chain."""
    from confroute import record

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    folders = {name: str(path) for name, path in models.items()}
    Path("cat_app.py").write_text(APP.format(**folders))
    rows = [{"id": str(i), "prompt": f"cat {i}", "reference": "B"} for i in range(COUNT)]
    Path("cats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["record", "cats.jsonl", "--out", "run.jsonl", "--pipeline", "cat_app:chain", "--signals"]
    score = "ensemble=Ensemble(members=('flat',), statistic='score_variance')"
    assert main([*command, score, "--dropout", "3", "--dropout-rates", "0.1"]) == 0
    assert f"{COUNT} drafts cut off at the length limit" in capsys.readouterr().out
    from cat_app import chain_with

    for column in ("mc_dropout@0.1.token_variance", "ensemble"):
        fit = ["fit", "run.jsonl", "--out", "policy.json", "--signal", column, "--cloud-share", "0.5"]
        assert main([*fit, "--on-unfinished", "judge"]) == 0
        assert "only be replayed" not in capsys.readouterr().out
        with record() as decisions:
            for row in rows:
                chain_with(load_policy("policy.json")).invoke(row["prompt"])
        assert [one.uncertainty for one in decisions] == pytest.approx(
            [row.signals[column] for row in read_rows("run.jsonl")], abs=1e-6
        )
