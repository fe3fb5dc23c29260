"""``confroute reset STORE KEY``: remove records of a store, so that the next call starts them again."""

from __future__ import annotations

import argparse
from pathlib import Path

from confroute.cli.terminal import say
from confroute.errors import PolicyError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "reset",
        help="remove records from a store, so that they start again",
        description="Remove records of budgets, audits or learned thresholds, such as one that an error names as unusable. The next call "
        "starts each of them again: a budget with its full amount, an audit without losses, learning without labels. The exit code is 1 "
        "if a record does not exist.",
    )
    parser.add_argument("store", metavar="STORE", help="sqlite:PATH or redis://HOST:PORT/DB")
    parser.add_argument(
        "keys", nargs="+", metavar="KEY", help="the record's key, as the error names it, such as budget/cloud"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Remove the records and say which were there.

    Raises
    ------
    PolicyError
        STORE is not the address of a store that other processes can reach.
    StateError
        The store cannot be written.
    """
    from confroute.state import open_store

    kind, _, path = args.store.partition(":")
    if kind == "memory":
        msg = "a memory: store lives in the process that uses it: end that process"
        raise PolicyError(msg)
    # SQLite makes a file that is not there.
    if kind == "sqlite" and not Path(path).is_file():
        msg = f"{path}: no such file; expected the store of a policy, as its `store` names it"
        raise PolicyError(msg)
    store = open_store(args.store)
    missing = 0
    for key in args.keys:
        removed = store.remove(key)
        missing += not removed
        say(f"{key}: {'removed' if removed else 'there is no such record'}")
    return 1 if missing else 0
