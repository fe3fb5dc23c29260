"""Has the edge become worse? Shadow audits, a test that may be looked at after every one, and estimates from logs."""

from confroute.drift.audit import Audited
from confroute.drift.eprocess import DriftTest
from confroute.drift.offpolicy import Logged, OffPolicy, off_policy

__all__ = ["Audited", "DriftTest", "Logged", "OffPolicy", "off_policy"]
