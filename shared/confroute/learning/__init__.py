"""A threshold that is learned while calls are routed, and keeps a promise at every moment."""

from confroute.learning.online import LearnOnline
from confroute.learning.sequential_certification import Learned, Looks

__all__ = ["LearnOnline", "Learned", "Looks"]
