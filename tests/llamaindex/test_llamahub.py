"""`llama_index.llms.confroute`, beside LlamaIndex's own integrations."""

import importlib
import tomllib
from pathlib import Path

import llama_index.llms.openai_like

import llamaindex_confroute

HUB = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "llamahub"
]


def test_the_integration_is_found_where_llamaindex_looks():
    """In an editable install and in the wheel's; an integration that another package installs stays importable."""
    found = importlib.import_module(HUB["import_path"])
    assert sorted(HUB["class_authors"]) == found.__all__
    for name in found.__all__:
        assert getattr(found, name) is getattr(llamaindex_confroute, name)
    assert llama_index.llms.openai_like.OpenAILike
