"""``confroute judge``: grade recorded answers, compare two sets of answers, and measure judges against humans."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from confroute import reading as read
from confroute.cli import terminal
from confroute.cli.options import add_judging, count, new_file, panel_of, price_of
from confroute.cli.terminal import one_sided, say
from confroute.errors import PolicyError
from confroute.writing import write_whole

if TYPE_CHECKING:
    from confroute.judge import Judge, Winner
    from confroute.judge.agreement import Agreement, Item
    from confroute.judge.judging import JudgeUsage
    from confroute.policy.rules import KeepPrivate
    from confroute.types import JSON

FAILED = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "judge",
        help="let a model grade or compare answers; measure judges against people",
        description="LLM as a judge, by the MT-Bench protocol: grades from 1 to 10, or comparisons of two answers in both orders, where a win "
        "counts only if both orders agree. Judges: local:NAME, openai:MODEL, ollama:MODEL or MODULE:OBJECT.",
    )
    parts = parser.add_subparsers(metavar="WHAT", required=True)
    _add_grade(parts)
    _add_sheet(parts)
    _add_enter(parts)
    _add_compare(parts)
    _add_agreement(parts)


def _add_grade(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    grade = parts.add_parser(
        "grade",
        help="fill in the quality of recorded answers from a judge's grades",
        description="Fill in the quality of recorded answers from a judge's grades. The exit code is 1 if some could not be graded.",
    )
    grade.add_argument("data", type=Path, metavar="DATA", help="JSON lines of `confroute record`")
    grade.add_argument("--out", type=new_file, required=True, metavar="FILE", help="the same rows, graded")
    grade.add_argument(
        "--side",
        choices=("edge", "cloud", "both"),
        default="both",
        help="whose answers to grade; both includes every tier in between (default: %(default)s)",
    )
    grade.add_argument(
        "--into",
        choices=("quality", "judged"),
        default="quality",
        help="where to write the grades: quality fills in only missing qualities; judged keeps all qualities and adds the grades next to them, "
        "for `confroute fit --judged` (default: %(default)s)",
    )
    grade.add_argument(
        "--again",
        action="store_true",
        help="also grade answers that already have such a grade; a grade in quality is replaced",
    )
    add_judging(grade, required=True)
    grade.set_defaults(run=run_grade)


def _add_sheet(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sheet = parts.add_parser(
        "sheet",
        help="draw answers at random for a person to grade",
        description="Draw rows at random and write their answers to a CSV file. A person fills in edge_quality and cloud_quality, from 0 "
        "(wrong) to 1 (right); `confroute judge enter` reads them back.",
    )
    sheet.add_argument("data", type=Path, metavar="DATA", help="JSON lines of `confroute record`")
    sheet.add_argument(
        "--out", type=new_file, required=True, metavar="FILE", help="the sheet, a new .csv file"
    )
    sheet.add_argument("--rows", type=count, required=True, metavar="N", help="how many rows to draw")
    sheet.add_argument("--seed", type=int, default=0, help="seed of the draw (default: %(default)s)")
    sheet.set_defaults(run=run_sheet)


def _add_enter(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    enter = parts.add_parser(
        "enter",
        help="copy a person's grades from a sheet into a run",
        description="Copy the grades in a sheet into the run that it was drawn from, as qualities.",
    )
    enter.add_argument("data", type=Path, metavar="DATA", help="JSON lines of `confroute record`")
    enter.add_argument("sheet", type=Path, metavar="SHEET", help="the sheet, filled in")
    enter.add_argument(
        "--out", type=new_file, required=True, metavar="FILE", help="the same rows, with the grades"
    )
    enter.set_defaults(run=run_enter)


def _add_compare(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = parts.add_parser(
        "compare",
        help="compare the answers of two files, pair by pair",
        description="Compare the answers of two files, pair by pair, in both orders.",
    )
    compare.add_argument(
        "a", type=Path, metavar="A", help="recorded rows, or lines with id, prompt and response"
    )
    compare.add_argument("b", type=Path, metavar="B", help="the same; may be the same file")
    compare.add_argument("--out", type=new_file, metavar="FILE", help="write each verdict here, JSON lines")
    compare.add_argument(
        "--side-a",
        choices=("edge", "cloud"),
        default="edge",
        help="whose answer to take from recorded rows in A (default: %(default)s)",
    )
    compare.add_argument(
        "--side-b", choices=("edge", "cloud"), default="edge", help="the same in B (default: %(default)s)"
    )
    compare.add_argument(
        "--gold", type=Path, metavar="FILE", help="people's verdicts on some pairs: lines with id and winner"
    )
    add_judging(compare, required=True)
    compare.set_defaults(run=run_compare)


def _add_agreement(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    agreement = parts.add_parser(
        "agreement",
        help="measure how often verdicts agree with people's labels",
        description="Measure how often verdicts (recorded ones, or those of --judge) agree with people's labels, with intervals.",
    )
    agreement.add_argument("data", type=Path, metavar="DATA", help="pairs with people's labels, JSON lines")
    agreement.add_argument(
        "--verdicts",
        default="*",
        metavar="PATTERN",
        help="which recorded judges to use, such as '*|CoT' (default: all)",
    )
    agreement.add_argument(
        "--resamples",
        type=count,
        default=2000,
        metavar="N",
        help="resamples of the bootstrap (default: %(default)s)",
    )
    add_judging(agreement, required=False)
    agreement.set_defaults(run=run_agreement)


@contextmanager
def _judge(args: argparse.Namespace, cache: Path | None) -> Iterator[Judge]:
    """Make the judge that the arguments name, and close its cache afterwards."""
    from confroute.judge import Judge, ReplyCache

    with nullcontext() if cache is None else ReplyCache(cache) as replies:
        yield Judge(
            panel=panel_of(args), cache=replies, concurrency=args.concurrency, max_tokens=args.max_tokens
        )


def _privacy_rule(args: argparse.Namespace) -> KeepPrivate:
    from confroute.policy.rules import KeepPrivate

    return KeepPrivate(patterns=tuple(args.private or ()))


def run_grade(args: argparse.Namespace) -> int:
    """Grade recorded answers and write the rows; exit code 1 if some could not be graded."""
    from confroute.cli.progress import progress
    from confroute.judge import judge_usage
    from confroute.judge.files import singles_to_grade, with_grades
    from confroute.recording import read_rows, write_rows

    _refuse_other_kind(args.out)
    sides = None if args.side == "both" else (args.side,)
    answers = list(
        singles_to_grade(
            read_rows(args.data), sides, again=args.again, private=_privacy_rule(args), into=args.into
        )
    )[: args.limit]
    # A run that dies keeps in its cache what it has paid for.
    cache = args.judge_cache or Path(f"{args.out}.replies.sqlite")
    with _judge(args, cache) as judge, progress(len(answers), unit="answers") as tick:
        graded = judge.grade(answers, progress=lambda one: tick(one.score is not None))
    by_id = {one.id: one for one in graded}
    write_rows(args.out, (with_grades(row, by_id, into=args.into) for row in read_rows(args.data)))
    usage, scores = judge_usage(graded), [one.score for one in graded if one.score is not None]
    price = price_of(args.judge_price)
    prices: dict[str, Any] = {} if price is None else dict.fromkeys(usage.usage, price)
    summary: dict[str, JSON] = {
        "graded": len(scores),
        "errors": len(graded) - len(scores),
        "mean_score": round(sum(scores) / len(scores), 4) if scores else None,
        "calls": usage.calls,
        "cached": usage.cached,
        "usage": {name: used.to_dict() for name, used in usage.usage.items()},
        "cost_usd": usage.cost_usd(prices),
    }
    _print_summary(summary, as_json=args.json)
    if hint := one_sided(Counter(f"score {score:g}" for score in scores), "grades"):
        say(hint, err=True)
    return _exit_code([one.error for one in graded])


def _refuse_other_kind(out: Path) -> None:
    """Before anything is paid for: a file that holds no run is not replaced by one."""
    from confroute.recording import RecordError, read_rows

    if not out.exists():
        return
    try:
        for _ in read_rows(out):
            pass
    except RecordError as error:
        msg = f"--out {out} exists and is not a recorded run: {error}; name another file"
        raise PolicyError(msg) from error


def run_sheet(args: argparse.Namespace) -> int:
    """Draw rows and write a sheet of their answers."""
    from confroute.judge.sheet import drawn, write_sheet
    from confroute.recording import read_rows

    if args.out.exists():
        msg = f"--out {args.out} exists and may contain grades: name another file"
        raise PolicyError(msg)
    rows = drawn(read_rows(args.data), args.rows, seed=args.seed)
    write_sheet(args.out, rows)
    say(
        f"{len(rows)} rows: fill in edge_quality and cloud_quality in {args.out}, of every row, or the grades are a selection; then "
        f"`confroute judge enter {args.data} {args.out} --out graded.jsonl`"
    )
    return 0


def run_enter(args: argparse.Namespace) -> int:
    """Enter a sheet's grades; exit code 1 if lines of it are not filled in."""
    from confroute.judge.sheet import incomplete, read_sheet, with_people
    from confroute.recording import read_rows, write_rows

    _refuse_other_kind(args.out)
    grades = read_sheet(args.sheet)
    write_rows(args.out, with_people(read_rows(args.data), grades))
    left = incomplete(read_rows(args.out), grades)
    say(f"{len(grades) - left} rows graded by a person: {args.out}")
    if left:
        say(
            f"{left} of {len(grades)} rows that were drawn are not graded, or not both of their answers: a promise holds only if none is "
            "left out for its answers",
            err=True,
        )
    return FAILED if left else 0


def run_compare(args: argparse.Namespace) -> int:
    """Compare two sets of answers and print a summary; exit code 1 if some pairs got no verdict."""
    from confroute.cli.progress import progress
    from confroute.judge.files import read_pairs
    from confroute.judge.summary import summarise

    _refuse_no_verdicts(args.out)
    pairs = read_pairs(args.a, args.b, side_a=args.side_a, side_b=args.side_b, private=_privacy_rule(args))[
        : args.limit
    ]
    cache = args.judge_cache or (None if args.out is None else Path(f"{args.out}.replies.sqlite"))
    with _judge(args, cache) as judge, progress(len(pairs), unit="pairs") as tick:
        verdicts = judge.compare(pairs, progress=lambda one: tick(one.winner is not None))
    if args.out is not None:
        lines = (json.dumps(one.to_dict()) + "\n" for one in verdicts)
        write_whole(args.out, "".join(lines))
    price = price_of(args.judge_price)
    prices = {} if price is None else {model.name: price for model in judge.models}
    _print_summary(summarise(verdicts, gold=_gold(args.gold), prices=prices), as_json=args.json)
    if hint := one_sided(Counter(f"{one.winner} wins" for one in verdicts if one.winner), "verdicts"):
        say(hint, err=True)
    return _exit_code([one.error for one in verdicts])


def _refuse_no_verdicts(out: Path | None) -> None:
    """Before anything is paid for: a file of another kind is not replaced by verdicts."""
    if out is None or not out.exists():
        return
    for at, data in read.json_lines(out, PolicyError):
        if not isinstance(data, dict) or not {"id", "winner", "votes"} <= data.keys():
            msg = f"--out {out} exists, and its line {at} is not a verdict of `confroute judge compare`: name another file"
            raise PolicyError(msg)


def _gold(path: Path | None) -> Mapping[str, Winner]:
    if path is None:
        return {}
    from confroute.judge import Winner

    gold: dict[str, Winner] = {}
    for at, data in read.json_lines(path, PolicyError):
        with read.refusing(PolicyError, f"{path}, line {at}"):
            row = read.fields(data, "the line")
            found = row.get("winner")
            winner = next((one for one in get_args(Winner) if one == found), None)
            if winner is None:
                raise read.refused("winner", found, "a, b or tie")
            gold[str(row.get("id"))] = winner
    return gold


def run_agreement(args: argparse.Namespace) -> int:
    """Compare verdicts with human labels and print how often they agree."""
    from dataclasses import replace

    from confroute.judge.agreement import agreements, read_items

    items = read_items(args.data)
    if args.limit is not None and args.limit < len(items):
        # Files are sorted by subset, so the first items would all be of one.
        items = [items[step * len(items) // args.limit] for step in range(args.limit)]
    errors: list[str | None] = []
    if args.judge:
        items, errors = _ask_judges(args, items)
    else:
        items = [
            replace(
                item,
                verdicts={
                    name: verdict for name, verdict in item.verdicts.items() if fnmatch(name, args.verdicts)
                },
            )
            for item in items
        ]
    results = agreements(items, resamples=args.resamples)
    if not results:
        why = next((error for error in errors if error is not None), None)
        msg = f"{args.data} has no verdicts of {args.verdicts!r} in both orders: widen --verdicts, or name a --judge"
        raise PolicyError(
            msg if why is None else f"no pair got a verdict in both orders, the first for: {why}"
        )
    if args.json:
        by_judge = {
            judge: {name: one.to_dict() for name, one in parts.items()} for judge, parts in results.items()
        }
        say(json.dumps(by_judge, indent=2))
    else:
        _show_agreement(results)
    return _exit_code(errors)


def _show_agreement(results: Mapping[str, Mapping[str, Agreement]]) -> None:
    """Print a table with one row per judge and subset."""
    from rich.table import Table

    console = terminal.console(width=170)
    table = Table(
        "judge", "subset", "n", "errors", "one order", "inconsistent", "decided", "agreement", "ties 1/2"
    )
    for judge, parts in results.items():
        for subset, one in parts.items():
            agreement = "-" if one.agreement is None else f"{one.agreement:.3f}{_interval(one.agreement_ci)}"
            table.add_row(
                judge,
                subset,
                str(one.n),
                str(one.errors),
                f"{one.per_order:.3f}{_interval(one.per_order_ci)}",
                f"{one.inconsistent:.3f}",
                f"{one.decided:.3f}",
                agreement,
                f"{one.with_ties:.3f}",
            )
    console.print(table, markup=False)
    console.print("one order: mean agreement of single orders; agreement: of verdicts that both orders share")


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" ({ends[0]:.2f}-{ends[1]:.2f})"


def _ask_judges(args: argparse.Namespace, items: list[Item]) -> tuple[list[Item], list[str | None]]:
    from dataclasses import replace

    from confroute.cli.progress import progress
    from confroute.judge import Pair, judge_usage

    rule = _privacy_rule(args)
    pairs = [
        Pair(id=item.id, question=item.question, a=item.a, b=item.b, private=_is_private(rule, item))
        for item in items
    ]
    with _judge(args, args.judge_cache) as judge, progress(len(pairs), unit="pairs") as tick:
        verdicts = judge.compare(pairs, progress=lambda one: tick(one.winner is not None))
    _report_cost(args, judge_usage(verdicts))
    judged = [
        replace(item, verdicts={vote.judge: vote.orders for vote in one.votes})
        for item, one in zip(items, verdicts, strict=True)
    ]
    return judged, [one.error for one in verdicts]


def _report_cost(args: argparse.Namespace, usage: JudgeUsage) -> None:
    price = price_of(args.judge_price)
    usd = usage.cost_usd({} if price is None else dict.fromkeys(usage.usage, price))
    cost = "cost not known (--judge-price)" if usd is None else f"{usd:.4g} USD"
    # Standard output holds the agreement, for a program.
    say(f"{usage.calls} replies, {usage.cached} of them from the cache, {cost}", err=True)


def _is_private(rule: KeepPrivate, item: Item) -> bool:
    from confroute.types import Message, Request

    texts = tuple(Message(role="user", text=text) for text in (item.question, item.a, item.b))
    return rule(Request(messages=texts)) is not None


def _print_summary(summary: Mapping[str, JSON], *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(summary, indent=2))
        return
    for key, value in summary.items():
        if value is not None and value != {}:
            say(
                f"{key.replace('_', ' '):<14} {value if isinstance(value, (int, float, str)) else json.dumps(value)}"
            )


def _exit_code(errors: list[str | None]) -> int:
    failures = [error for error in errors if error is not None]
    if failures:
        say(f"{len(failures)} got no verdict, the first for: {failures[0]}", err=True)
    return FAILED if failures else 0
