"""A threshold that is learned while calls are routed, and keeps a promise at every moment."""

from confroute.learning.looks import Learned, Looks
from confroute.learning.online import LearnOnline

__all__ = ["LearnOnline", "Learned", "Looks"]
