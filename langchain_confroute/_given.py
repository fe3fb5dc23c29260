"""The two models as the user gave them: names made into models, and what is no chat model refused."""

from __future__ import annotations

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers.base import BaseLLMOutputParser
from langchain_core.runnables import RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase

from confroute.errors import MissingExtraError, PolicyError
from confroute.models.resolution import in_catalogue
from langchain_confroute._tiers import Model


def resolved(model: Model | str, tier: str) -> Model:
    """The model itself, made by `init_chat_model` where only its name was given.

    Raises
    ------
    PolicyError
        The name of a local model, or a chain that ends in an output parser.
    MissingExtraError
        `langchain` is not installed.
    """
    if not isinstance(model, str):
        _refuse_parser(model, tier)
        return model
    kind, _, name = model.rpartition(":")
    if kind == "local" or (not kind and in_catalogue(name)):
        msg = f"{tier}={model!r} is no name for init_chat_model: for a local model give ChatLocal(model={name!r})"
        raise PolicyError(msg)
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError(
            extra="agents", needed_for=f"{tier}={model!r}, a name for init_chat_model,"
        ) from error
    made: Model = init_chat_model(model)
    return made


def _refuse_parser(model: Model, tier: str) -> None:
    """Every call of such a chain would fail, and an edge's failures go to the cloud."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    last = model.last if isinstance(model, RunnableSequence) else None
    if isinstance(last, BaseLLMOutputParser) and not _gives_message(last):
        msg = (
            f"{tier} is a chain that ends in {type(last).__name__}: expected a chat model or a chain that ends in one; leave "
            "the output parser out (it may follow the router), or route between whole chains with ConfidenceRouter"
        )
        raise PolicyError(msg)


def _gives_message(parser: object) -> bool:
    try:
        kind = getattr(parser, "OutputType", None)
    except TypeError:  # it does not say
        return False
    return isinstance(kind, type) and issubclass(kind, BaseMessage)
