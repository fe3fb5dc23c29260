"""An OpenAI-compatible server on a `Router`, for everything that is not Python; needs the extra `serve`."""

from confroute.serve.app import ServerLimits, make_app

__all__ = ["ServerLimits", "make_app"]
