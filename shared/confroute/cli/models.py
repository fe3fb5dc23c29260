"""``confroute models``: list the models of the catalogue, and which are on this machine."""

from __future__ import annotations

import argparse
import json
from typing import TypeAlias

from confroute.cli.terminal import say

Row: TypeAlias = "dict[str, str | int | bool | None]"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "models",
        help="list the models that can be pulled",
        description="List the known local models, and say which are on this machine.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue and where each pulled model lies."""
    rows = _rows()
    if args.json:
        say(json.dumps(rows, indent=2))
        return 0
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        size = f"{int(row['size_bytes'] or 0) / 1e6:.0f} MB"
        where = row["path"] or f"not here: confroute pull {row['name']}"
        say(f"{row['name']:<{width}}  {row['kind']:<9}  {size:>7}  {row['licence']}  {where}")
    return 0


def _rows() -> list[Row]:
    from confroute.models.catalog import catalog_entries, is_pulled

    return [
        {
            "name": entry.name,
            "kind": entry.kind,
            "size_bytes": entry.size_bytes,
            "licence": entry.licence,
            "cached": (here := is_pulled(entry.name)),
            "path": str(entry.path) if here else None,
        }
        for entry in catalog_entries()
    ]
