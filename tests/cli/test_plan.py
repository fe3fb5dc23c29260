"""`confroute plan`: a table and JSON."""

import json

from confroute.cli import main

PLAN = ["plan", "--max-loss", "0.2", "--edge-quality", "0.7", "0.8"]


def test_a_line_for_each_guess(capsys):
    """In the table and in JSON the same numbers; a better edge needs fewer rows."""
    assert main([*PLAN, "--json"]) == 0
    worse, better = json.loads(capsys.readouterr().out)
    assert (worse["edge_quality"], better["edge_quality"]) == (0.7, 0.8)
    assert 30 <= better["rows"] <= worse["rows"] <= worse["rows_close"] <= worse["rows_to_record"]
    assert better["best_share"] <= worse["best_share"]
    assert main(PLAN) == 0
    shown = capsys.readouterr().out
    assert f"{worse['rows']}" in shown
    assert "80% of simulated runs" in shown


def test_numbers_out_of_range_are_refused(capsys):
    """Before anything is simulated."""
    assert main(["plan", "--max-loss", "0.2", "--edge-quality", "70"]) == 1
    assert "edge_quality 70" in capsys.readouterr().err
    assert main(["plan", "--max-loss", "2"]) == 1
    assert "alpha is 2" in capsys.readouterr().err
