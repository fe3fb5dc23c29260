"""What a policy may be fitted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from confroute.fitting.objective import Objective
from confroute.fitting.promise import MaxLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudShare:
    """The goal of sending about this share of calls to the cloud, in [0, 1]."""

    share: float


Goal: TypeAlias = MaxLoss | CloudShare | Objective
