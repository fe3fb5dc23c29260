"""Nothing that stands in a file, a name or an error commands the terminal it is printed on."""

import argparse
import json
import logging
import random
import subprocess
import sys

import pytest

from confroute.cli import COMMANDS, main
from confroute.cli.terminal import Parser, console, say
from confroute.decision import Decision
from confroute.display import plain

# A title, a cleared screen, a C1 introducer, a line that is written over, one that is turned round, and half a pair.
EVIL = "\x1b]0;pwn\x07\x1b[2J\x9b2J\rover\u202eback\x7f\b"
OBEYED = (
    {chr(n) for n in range(32)} - {"\n", "\t"} | {chr(n) for n in range(0x7F, 0xA0)} | {"\u202e", "\ud800"}
)


def rows(name):
    """A graded run whose names are this one."""
    draw = random.Random(0)
    for n in range(60):
        doubt = draw.random()
        side = {
            "model": name,
            "text": "5",
            "usage": {"input_tokens": 5, "output_tokens": 1},
            "latency_s": 0.1,
        }
        yield {
            "id": f"{name}{n}",
            "dataset": f"{name}{n % 2}",
            "prompt": "What is 2 + 3?",
            "edge": {**side, "logprobs": [-doubt], "quality": float(draw.random() > doubt), "cost_usd": 0.0},
            "cloud": {**side, "quality": 1.0, "cost_usd": 0.002},
            "signals": {name: doubt, "token_logprob.mean": doubt},
        }


@pytest.fixture
def run(tmp_path):
    """The file of such a run."""
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(EVIL)))
    return path


def printed(capsys):
    """What a command printed, which holds nothing that a terminal obeys."""
    out, err = capsys.readouterr()
    assert not OBEYED & {*out, *err}
    return out + err


@pytest.mark.parametrize(
    "command",
    [
        ["signals", "RUN"],
        ["signals", "RUN", "--json"],
        ["signals", "RUN", "--dataset", EVIL],
        ["fit", "RUN", "--out", "OUT", "--cloud-share", "0.3"],
        ["fit", "RUN", "--out", "OUT", "--cloud-share", "0.3", "--signal", EVIL],
        ["fit", "RUN", "--out", "OUT", "--cloud-share", "0.3", "--signal", EVIL, "--replay-only"],
        ["record", "RUN", "--out", "OUT", "--edge", f"x:{EVIL}"],
        ["record", "RUN", "--out", "OUT", "--edge", f"os:{EVIL}"],
        ["apply", EVIL, "RUN"],
        ["report", EVIL],
        ["pull", EVIL],
        ["reset", EVIL, EVIL],
        ["judge", "grade", "RUN", "--out", "OUT", "--judge", EVIL],
        ["fit", "RUN", EVIL, "--out", "OUT", "--cloud-share", "0.3"],
        ["signals", "RUN", f"--{EVIL}"],
        [EVIL],
    ],
    ids=lambda command: " ".join(command).replace(EVIL, "EVIL")[:50],
)
def test_names_are_printed_as_text(command, run, tmp_path, capsys):
    """Those of models, datasets, signals, files and arguments, on both streams; the rest of the name is there."""
    places = {"RUN": str(run), "OUT": str(tmp_path / "p.json")}
    main([places.get(part, part) for part in command])
    assert "pwn" in printed(capsys)


@pytest.mark.parametrize(
    "line", [{"id": EVIL, "edge": {"text": 5}}, {"id": "a", "edge": {EVIL: 1}, EVIL: {}}, EVIL]
)
def test_errors_are_printed_as_text(line, tmp_path, capsys):
    """With what stands in the file."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(line) + "\n")
    for command in (["signals", str(path)], ["report", str(path)], ["apply", str(path), str(path)]):
        # A row with fields that nobody knows is one that the report shows.
        assert main(command) == (command[0] != "report" or "edge" not in line or EVIL not in line)
        assert printed(capsys)
    path.write_text(f'{{"{EVIL.encode().decode("ascii", "replace")}": 1, "x": [NaN]')
    assert main(["signals", str(path)]) == 1
    assert printed(capsys)


def test_the_log_is_printed_as_text(monkeypatch, capsys):
    """Where no handler is set up, Python's own prints warnings on standard error while a command runs."""

    def warns(_args):
        logging.getLogger("confroute.test_terminal").warning("edge %s failed", EVIL)
        return 0

    monkeypatch.setattr(COMMANDS[0], "run", warns)
    logger = logging.getLogger("confroute.test_terminal")
    monkeypatch.setattr(logger, "propagate", False)
    before = logging.lastResort.formatter
    assert main(["demo"]) == 0
    assert "edge \\u001b]0;pwn" in printed(capsys)
    assert logging.lastResort.formatter is before


def test_tables_and_bars_print_names_as_text(capsys):
    """As text with a style and without."""
    from rich.table import Table

    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    shown = console(width=80)
    shown.print(table)
    shown.print(EVIL, markup=False)
    shown.print(f"[bold]{EVIL}[/bold]")
    assert "\\u001b" in printed(capsys)


def test_a_parser_repeats_arguments_as_text(capsys):
    """Its subcommands are of its own kind."""
    parser = Parser(prog="p")
    inner = parser.add_subparsers().add_parser("run")
    assert isinstance(inner, Parser)
    assert isinstance(inner, argparse.ArgumentParser)
    with pytest.raises(SystemExit):
        parser.parse_args(["run", EVIL])
    assert "\\u001b" in printed(capsys)


def test_what_is_printed_is_still_what_it_was(capsys):
    """Lines, tabs and letters of every script stay, and JSON stays JSON."""
    say("é 漢字 🙂\ta\nb", 5)
    assert capsys.readouterr().out == "é 漢字 🙂\ta\nb\n5\n"
    say(json.dumps({EVIL: EVIL}))
    assert json.loads(printed(capsys)) == {EVIL: EVIL}
    assert plain("half \ud800 of a pair") == "half \\ud800 of a pair"


def test_a_decision_prints_as_text():
    """In a console of Python's, where names of models and tags stand in its reason."""
    shown = repr(Decision(route=EVIL, stage="rule", reason=f"tag {EVIL}"))
    assert not OBEYED & {*shown}
    assert shown.count("pwn") == 2


def test_a_path_that_is_no_text_ends_no_command(tmp_path):
    """A name of bytes that are no UTF-8, as Linux has them."""
    command = [sys.executable, "-m", "confroute", "report", b"no\xff\x1b[2Jsuch"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert b"no\\udcff\\u001b[2Jsuch: no such file" in done.stderr
