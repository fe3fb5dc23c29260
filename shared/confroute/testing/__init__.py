"""Helps to test what you build on confroute: scripted models, faults, loopback servers and a contract for adapters.

The rest of the library imports nothing from here. The pytest plugin is `confroute.testing.plugin`.
"""

from confroute.testing import faults
from confroute.testing.contract import AdapterAnswer, AdapterContract, TieredAdapterContract
from confroute.testing.model_server import ModelServer
from confroute.testing.scripted import (
    ModelCall,
    Reply,
    ScriptedCalls,
    ScriptedModel,
    stream_tokens,
    token_at,
)
from confroute.testing.server import ScriptedServer

__all__ = [
    "AdapterAnswer",
    "AdapterContract",
    "ModelCall",
    "ModelServer",
    "Reply",
    "ScriptedCalls",
    "ScriptedModel",
    "ScriptedServer",
    "TieredAdapterContract",
    "faults",
    "stream_tokens",
    "token_at",
]
