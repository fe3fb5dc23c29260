"""Two real models of this machine that answer differently, from one set of weights; importable as MODULE:OBJECT."""

from __future__ import annotations

from confroute.models.local import LocalTextModel


class Calm:
    """The local model at half the requested temperature, with its own name."""

    name = "calm"
    remote = False

    def __init__(self, model):
        self._model = model

    def generate(self, messages, *, temperature=0.0, **settings):
        """Nearly always the same answer."""
        return self._model.generate(messages, temperature=temperature / 2, **settings)

    async def agenerate(self, messages, **settings):
        """Not used by the label pipeline."""
        raise NotImplementedError


calm = Calm(LocalTextModel(model="smollm2-135m"))
