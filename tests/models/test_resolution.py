"""From names and objects to models: one reader for every command and for `Router`."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from confroute.errors import ModelError, PolicyError
from confroute.models.local import LocalTextModel
from confroute.models.openai import OpenAIModel
from confroute.models.resolution import resolve
from confroute.models.text_model import FunctionModel
from confroute.testing import ScriptedModel
from confroute.types import Message

ASKED = (Message(role="user", text="Capital of France?"),)


def test_names_of_every_kind(monkeypatch):
    """local:, openai:, ollama: and MODULE:OBJECT make the model that they say."""
    module = types.ModuleType("mymodels")
    module.judge = lambda messages: "yes"
    monkeypatch.setitem(sys.modules, "mymodels", module)
    assert resolve("local:smollm2-135m") == LocalTextModel(model="smollm2-135m")
    assert resolve("local:smollm2-135m", dtype="bfloat16", max_tokens=9) == LocalTextModel(
        model="smollm2-135m", dtype="bfloat16", max_tokens=9
    )
    assert resolve("openai:org/model:free").name == "org/model:free"
    ollama = resolve("ollama:qwen3:1.7b")
    assert ollama == OpenAIModel(model="qwen3:1.7b", base_url="http://127.0.0.1:11434/v1")
    assert not ollama.remote
    assert isinstance(resolve("mymodels:judge"), FunctionModel)


def test_any_other_name_is_langchain_s(monkeypatch):
    """Providers that only `init_chat_model` knows, with the server and the length that are given."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    model = resolve("anthropic:claude-x", base_url="http://127.0.0.1:9", max_tokens=9)
    assert (model.name, model.remote) == ("claude-x", True)
    assert model.tier.chat.max_tokens == 9
    with pytest.raises(ModelError, match="google-genai"):  # its package is not installed
        resolve("google_genai:gemini-x")


def test_objects_are_taken_as_they_are():
    """A model of one's own, whatever it derives from."""
    model = ScriptedModel(["yes"])
    assert resolve(model) is model
    local = resolve("local:smollm2-135m")
    assert resolve(local) is local


def test_a_module_of_the_current_folder_is_found(tmp_path, monkeypatch):
    """Also from an installed script, which has its own folder on the path in place of the current one."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models_of_this_folder.py").write_text("def judge(messages):\n    return 'yes'\n")
    assert resolve("models_of_this_folder:judge").generate(ASKED)[0].text == "yes"


@pytest.mark.parametrize(
    ("model", "base_url", "says"),
    [
        ("smollm2-135m", None, "did you mean 'local:smollm2-135m'"),
        ("smollm2", None, "expected local:NAME, openai:MODEL, ollama:MODEL"),
        ("no_such_module:x", None, "cannot be imported"),
        ("confroute:no_such_name", None, "cannot be imported"),
        ("confroute:__doc__", None, "is a string"),
        ("local:smollm2-135m", "http://x", "runs in this process"),
        (7, None, "a int is not a model"),
        (ScriptedModel(), "http://x", "set the URL on the ScriptedModel itself"),
    ],
)
def test_what_is_not_a_model_is_refused_with_what_is_expected(model, base_url, says):
    """Errors name what was given and what is taken."""
    with pytest.raises(PolicyError, match=says):
        resolve(model, base_url=base_url)


WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from confroute.models.resolution import resolve
try:
    resolve({name!r})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("missing", "name", "says"),
    [
        (["openai"], "openai:small", "pip install 'confroute[openai]'"),
        (["langchain"], "anthropic:claude-x", "pip install 'confroute[agents]'"),
    ],
)
def test_a_missing_package_is_named_exactly(missing, name, says):
    """The smallest one that helps."""
    code = WITHOUT.format(missing=missing, name=name)
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert says in told
