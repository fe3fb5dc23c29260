"""For tests of what you build on confroute, and for confroute's own: scripted models, faults, servers, a contract.

Nothing here is imported by the rest of the library. The pytest plugin is `confroute.testing.plugin`.
"""

from confroute.testing import faults
from confroute.testing.contract import AdapterContract, Answered
from confroute.testing.model_server import ModelServer
from confroute.testing.scripted import Heard, Reply, ScriptedCalls, ScriptedModel, part, parts, prompt_of
from confroute.testing.server import ScriptedServer

__all__ = [
    "AdapterContract",
    "Answered",
    "Heard",
    "ModelServer",
    "Reply",
    "ScriptedCalls",
    "ScriptedModel",
    "ScriptedServer",
    "faults",
    "part",
    "parts",
    "prompt_of",
]
