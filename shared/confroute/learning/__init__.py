"""Learns thresholds while calls are routed, with a guarantee that holds at every moment."""

from confroute.learning.online import LearnOnline
from confroute.learning.sequential_certification import LearningState, SequentialCertification

__all__ = ["LearnOnline", "LearningState", "SequentialCertification"]
