"""What a run of the label pipeline did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from confroute.labels.rows import Label
from confroute.recording import Row
from confroute.types import JSON

# Short factual prompts do give equal samples; all of so many do not.
_ENOUGH = 10


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a run did.

    Attributes
    ----------
    labelled, failed : int
        Now.
    kept : int
        Labels that stood in the file already.
    winners, sources : Counter
        Of all labels of the file.
    sampled, alike : Counter
        By model, prompts sampled now, and those whose samples were letter for letter the same.
    tokens : Counter
        By "edge" and "cloud", drawn now, input and output together.
    """

    labelled: int = 0
    failed: int = 0
    kept: int = 0
    winners: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sampled: Counter[str] = field(default_factory=Counter)
    alike: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, label: Label) -> None:
        """Count a label."""
        self.winners[label.winner] += 1
        self.sources[label.source] += 1

    def look(self, row: Row) -> None:
        """Count samples that were drawn now."""
        for name, side in (("edge", row.edge), ("cloud", row.cloud)):
            if side is None or not isinstance(used := side.extra.get("sampled"), dict):
                continue
            self.tokens[name] += sum(value for value in used.values() if isinstance(value, int))
            if len(side.samples) > 1:
                self.sampled[name] += 1
                self.alike[name] += len({sample.text for sample in side.samples}) == 1

    def suspicious(self) -> list[str]:
        """Models whose samples never differ: they ignore the temperature, and their entropy says nothing."""
        return [name for name, n in self.sampled.items() if n >= _ENOUGH and self.alike[name] == n]

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "labelled": self.labelled,
            "failed": self.failed,
            "kept": self.kept,
            "winners": dict(self.winners),
            "sources": dict(self.sources),
            "tokens": dict(self.tokens),
            "samples_never_differ": [*self.suspicious()],
        }
