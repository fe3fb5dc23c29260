"""The models of a recorded run, as they answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confroute.policy.provenance import RecordedModel
from confroute.recording.rows import ASKED, KIND, Row, Side, billed


@dataclass(slots=True, kw_only=True)
class Answers:
    """What is kept of the answers of one tier's model, answer by answer."""

    n: int = 0
    answered: int = 0
    cut: int = 0
    longest: int | None = None
    most: int | None = None
    names: dict[str, None] = field(default_factory=dict)

    def add(self, side: Side) -> None:
        """Take an answer."""
        self.n += 1
        self.names.update(dict.fromkeys(_names(side)))
        if isinstance(limit := _asked(side).get("max_tokens"), int):
            self.most = max(limit, self.most or limit)
        if side.text is None:
            return
        self.answered += 1
        self.cut += side.finish == "length"
        if (used := billed(side.usage)) is not None:
            self.longest = max(used.output_tokens, self.longest or 0)

    @property
    def recorded(self) -> RecordedModel:
        """All of it, in the form of policy files."""
        return RecordedModel(
            names=tuple(self.names),
            max_tokens=self.most,
            longest=self.longest,
            cut_off=self.cut / self.answered if self.answered else 0.0,
        )


@dataclass(slots=True, kw_only=True)
class Models:
    """Both tiers' models, and the kinds by which their answers were read, row by row."""

    edge: Answers = field(default_factory=Answers)
    cloud: Answers = field(default_factory=Answers)
    kinds: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Take a row."""
        self.edge.add(row.edge)
        if row.cloud is not None:
            self.cloud.add(row.cloud)
        if isinstance(kind := row.extra.get(KIND), str):
            self.kinds.add(kind)


def _asked(side: Side) -> Mapping[str, object]:
    asked = side.extra.get(ASKED)
    return asked if isinstance(asked, dict) else {}


def _names(side: Side) -> Iterable[str]:
    """The names of a side's model; none where the run says that it was asked for by none."""
    asked = _asked(side)
    name = asked.get("model", side.model)
    return [one for one in dict.fromkeys((name, side.model)) if isinstance(one, str)] if name else []
