"""Two real models of this machine that answer differently, from one set of weights; importable as MODULE:OBJECT."""

from __future__ import annotations

from confroute.models.speaking import LocalSpeaker


class Calm:
    """The local model at half the requested temperature, with its own name."""

    name = "calm"
    remote = False

    def __init__(self, model):
        self._model = model

    def say(self, messages, *, n=1, temperature=0.0, max_tokens=512, seed=None):
        """Nearly always the same answer."""
        return self._model.say(messages, n=n, temperature=temperature / 2, max_tokens=max_tokens, seed=seed)

    async def asay(self, messages, **settings):
        """Not used by the label pipeline."""
        raise NotImplementedError


calm = Calm(LocalSpeaker(model="smollm2-135m"))
