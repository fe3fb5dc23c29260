"""LangChain's standard suites on cascadeflow's chat model, between the same scripted models as ours.

Run by `benchmarks/standard_suites.py`; pytest does not find it by itself, since cascadeflow is not among our
dependencies.
"""

from cascadeflow.integrations.langchain import CascadeFlow
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_confroute.testing import ScriptedChat
from tests.langchain.test_standard import TEXT


class Suite:
    """What the standard suites ask of a plug-in; thresholds between which its drafts are kept and replaced."""

    quality = 0.1
    chat_model_class = CascadeFlow
    supports_json_mode = True

    @property
    def chat_model_params(self):
        return {
            "drafter": ScriptedChat.of(TEXT, name="small", logprob=-0.1),
            "verifier": ScriptedChat.of(TEXT, name="large"),
            "quality_threshold": self.quality,
        }


class TestUnitAccepted(Suite, ChatModelUnitTests):
    pass


class TestUnitEscalated(Suite, ChatModelUnitTests):
    quality = 0.999


class TestAccepted(Suite, ChatModelIntegrationTests):
    pass


class TestEscalated(Suite, ChatModelIntegrationTests):
    quality = 0.999
