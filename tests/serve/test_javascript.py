"""OpenAI's client from npm against the server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from confroute import Cascade, Router, TokenLogprob
from confroute.serve import make_app
from confroute.testing import Reply, ScriptedModel
from tests.serve.conftest import serving

CLIENT = Path(__file__).with_name("client.mjs")
PACKAGE = "openai@7.59.0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the client and its package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine: install Node.js 20 or newer")
    made = tmp_path_factory.mktemp("javascript")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", PACKAGE]
    installed = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install {PACKAGE}: {installed.stderr[-300:]}")
    shutil.copy(CLIENT, made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logprob", "route", "text"), [(-0.01, "edge", "Bern it is"), (-2.0, "cloud", "Geneva perhaps")]
)
def test_the_client_from_npm(folder, logprob, route, text):
    """Models, whole answers, streams with usage, its stream helper, and an error with its status."""
    edge = ScriptedModel([Reply(text="Bern it is", logprob=logprob)], name="small")
    cloud = ScriptedModel(["Geneva perhaps"], name="large")
    router = Router(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.3))
    with serving(make_app(router)) as url:
        ran = subprocess.run(
            ["node", CLIENT.name, f"{url}/v1"], cwd=folder, capture_output=True, text=True, check=False
        )
    assert not ran.returncode, ran.stderr
    told = json.loads(ran.stdout)
    assert told["models"] == ["confroute"]
    assert told["text"] == told["whole"] == "".join(told["parts"]) == text
    assert told["header"]["route"] == told["body"]["route"] == told["decision"]["route"] == route
    assert told["usage"]["total_tokens"] > 0
    assert len(told["parts"]) == (1 if route == "edge" else 2)
    assert (told["refusal"]["kind"], told["refusal"]["status"]) == ("BadRequestError", 400)
    assert "confroute_rout" in told["refusal"]["message"]
