"""From what users name or hold in their hands to a `TextModel`: the one reader of models' names.

========================  ==============================================================================
``local:NAME``            a model of the catalogue, a file or a folder, in this process
``openai:MODEL``          a model of OpenAI, or of any server that speaks its protocol, by its base URL
``ollama:MODEL``          the same, on Ollama's own port
``MODULE:OBJECT``         an object of yours, imported
``PROVIDER:MODEL``        any other name that LangChain's ``init_chat_model`` takes
========================  ==============================================================================
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

from confroute.display import Address
from confroute.errors import MissingExtraError, PolicyError
from confroute.models.local import LocalModel, LocalTextModel
from confroute.models.openai import OLLAMA_URL, OpenAIModel
from confroute.models.text_model import MAX_TOKENS, FunctionModel, TextModel

NAMES = "local:NAME, openai:MODEL, ollama:MODEL or MODULE:OBJECT"
_SERVED = ("openai", "ollama")
_ADAPTERS = {
    "langchain_core": "langchain_confroute.text_model",
    "llama_index": "llamaindex_confroute.text_model",
}


def resolve(
    model: object, *, base_url: str | None = None, dtype: str | None = None, max_tokens: int | None = None
) -> TextModel:
    """Make a `TextModel` of a name or an object.

    Parameters
    ----------
    model : str or object
        A name (see the table above); a `TextModel`, which is returned as it is; a LangChain chat model; a LlamaIndex LLM; a
        `LocalModel`; a function of the conversation.
    base_url : str, optional
        The server of a model that is named; for "ollama:MODEL" it ends in /v1.
    dtype : str, optional
        Of the weights of "local:NAME"; by default what suits the model's size.
    max_tokens : int, optional
        The longest answer of a model that is named, where its caller says none.

    Raises
    ------
    PolicyError
        None of these, a module or object that is not there, or a base URL where nothing takes one.
    MissingExtraError
        A package that the model needs is not installed.

    Examples
    --------
    >>> resolve("local:smollm2-135m").remote, resolve(lambda messages: "yes").generate(())[0].text
    (False, 'yes')
    """
    if isinstance(model, str):
        return _named(model, base_url, dtype, max_tokens)
    if base_url is not None:
        msg = f"base_url={Address(base_url)!r} goes only with the name of a model: set the URL on the {type(model).__name__} itself"
        raise PolicyError(msg)
    for base in type(model).__mro__:
        adapter = _ADAPTERS.get(base.__module__.partition(".")[0])
        if adapter is not None:
            # The core imports no host: the object's own host is here already.
            made: TextModel = importlib.import_module(adapter).text_model(model)
            return made
    return _plain(model)


def _plain(model: object) -> TextModel:
    if isinstance(model, TextModel):
        return model
    if isinstance(model, LocalModel):
        return LocalTextModel(model=model)
    if callable(model):
        return FunctionModel(function=model)
    msg = f"a {type(model).__name__} is not a model: expected a name, a chat model of LangChain or LlamaIndex, or a function"
    raise PolicyError(msg)


def _named(spec: str, base_url: str | None, dtype: str | None, max_tokens: int | None) -> TextModel:
    kind, name = split_name(spec)
    if kind in _SERVED:
        if find_spec("openai") is None:
            raise MissingExtraError(extra="openai", needed_for=f"the model {spec!r}")
        url = base_url or (OLLAMA_URL if kind == "ollama" else None)
        return OpenAIModel(model=name, base_url=url, max_tokens=max_tokens or MAX_TOKENS)
    if kind == "local":
        if base_url is not None:
            msg = f"model {spec!r} runs in this process: only models behind a server have a base URL"
            raise PolicyError(msg)
        return LocalTextModel(model=name, dtype=dtype, max_tokens=max_tokens or MAX_TOKENS)
    try:
        target = imported(spec)
    except PolicyError:
        made = _of_provider(spec, base_url, max_tokens)
        if made is None:
            raise
        return made
    if isinstance(target, str):
        msg = f"model {spec!r} is a string: expected a chat model, a TextModel or a function"
        raise PolicyError(msg)
    return resolve(target, base_url=base_url)


def _of_provider(spec: str, base_url: str | None, max_tokens: int | None) -> TextModel | None:
    """What LangChain makes of the name; None where it knows no such provider, or is not installed."""
    if find_spec("langchain") is None:
        return None
    made: TextModel | None = importlib.import_module(_ADAPTERS["langchain_core"]).named(
        spec, base_url=base_url, max_tokens=max_tokens
    )
    return made


def split_name(spec: str) -> tuple[str, str]:
    """What stands before and behind the first colon of a model's name.

    Raises
    ------
    PolicyError
        One of them is empty.

    Examples
    --------
    >>> split_name("ollama:qwen3:1.7b")
    ('ollama', 'qwen3:1.7b')
    """
    kind, _, name = spec.partition(":")
    if not kind or not name:
        msg = f"model {spec!r}: expected {NAMES}{_hint(spec)}"
        raise PolicyError(msg)
    return kind, name


def in_catalogue(name: str) -> bool:
    """Whether `confroute pull` knows a model of this name."""
    from confroute.models.catalog import catalog_entries

    return any(entry.name == name for entry in catalog_entries())


def local_name(spec: str) -> str | None:
    """The model that "local:NAME" names, or NAME alone if it is in the catalogue; None for another kind of name.

    Examples
    --------
    >>> local_name("local:smollm2-135m"), local_name("smollm2-135m"), local_name("openai:gpt-4o-mini")
    ('smollm2-135m', 'smollm2-135m', None)
    """
    kind, _, name = spec.rpartition(":")
    return name if kind == "local" or (not kind and in_catalogue(name)) else None


def _hint(spec: str) -> str:
    """For who left the "local:" out; empty where that is not it."""
    return f"; did you mean 'local:{spec}'?" if in_catalogue(spec) else ""


def _of_langchain() -> str:
    if find_spec("langchain") is not None:
        return ", or a name for LangChain's init_chat_model"
    return "; a name for LangChain's init_chat_model needs pip install 'confroute[agents]'"


def imported(spec: str, what: str = "model", expected: str | None = None) -> object:
    """The object of a name such as "my_package.models:judge"; dots behind the colon name attributes.

    Modules of the current folder are found as well, as other command lines do: the folder is put first on `sys.path`.

    Parameters
    ----------
    spec : str
    what, expected : str
        What it is the name of, and how such names look, for the error.

    Raises
    ------
    PolicyError
        No such module or object.
    """
    module, _, name = spec.partition(":")
    _find_here()
    try:
        target: object = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError) as error:
        names = f"{NAMES}{_of_langchain()}" if expected is None else expected
        msg = f"{what} {spec!r} cannot be imported: {error}; expected {names}"
        raise PolicyError(msg) from error
    return target


def import_module_here(name: str) -> None:
    """Import a module for what it registers; one of the current folder is found as well.

    Raises
    ------
    PolicyError
        No such module, or one that cannot be imported.
    """
    _find_here()
    try:
        importlib.import_module(name)
    except (ImportError, ValueError) as error:
        msg = f"module {name!r} cannot be imported: {error}; expected a name such as my_signals or my_package.signals"
        raise PolicyError(msg) from error


def _find_here() -> None:
    # An installed script has its own folder there in its place; it stays, for what the module imports later.
    if "" not in sys.path and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
