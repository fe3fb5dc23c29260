"""The threshold slider: real widgets where they are installed, a table where not."""

import importlib.util
from dataclasses import replace

import ipywidgets
import pytest

from confroute.errors import CalibrationError
from confroute.views.slider import StaticSlider, threshold_slider


def test_moving_the_slider_shows_what_the_threshold_does(front, read):
    """Share and quality of the point that was moved to, from both ends."""
    slider, shown = threshold_slider(front).children
    assert isinstance(slider, ipywidgets.SelectionSlider)
    for at in (0, len(front.points) - 1):
        slider.value = at
        words = " ".join(read(shown.value).words)
        point = front.points[at]
        assert f"{point.cloud_share:.1%} of 400 recorded calls" in words
        assert f"quality {point.quality:.3f}" in words
        assert "chosen" in words


def test_the_slider_begins_at_the_knee(front):
    """The threshold from which on quality costs more."""
    slider, _ = threshold_slider(front).children
    assert front.points[slider.value] == front.knee


def test_a_threshold_no_better_than_the_edge_is_warned_of(front):
    """Beside the numbers."""
    from confroute.views.slider import chosen_html

    worst = replace(front.points[-1], quality=front.edge.quality)
    assert "no better than the edge alone" in chosen_html(front, worst)


def test_the_widget_looks_as_stored(front, same_as_stored):
    """The page below the slider."""
    _, shown = threshold_slider(front).children
    same_as_stored("slider", shown.value)


def test_without_ipywidgets_there_is_a_table_that_says_how_to_get_the_slider(front, monkeypatch):
    """Eleven thresholds, first and last among them."""
    monkeypatch.setattr("confroute.views.slider.find_spec", lambda name: None)
    shown = threshold_slider(front)
    assert isinstance(shown, StaticSlider)
    html = shown._repr_html_()
    assert "confroute[notebook]" in html
    for end in (front.points[0], front.points[-1]):
        assert f"<td>{end.threshold:.4g}</td>" in html
    assert importlib.util.find_spec("ipywidgets") is not None


def test_a_front_without_thresholds_is_refused(front):
    """There is nothing to move."""
    with pytest.raises(CalibrationError, match="no thresholds"):
        threshold_slider(replace(front, points=()))
