"""A slider over thresholds, and what each would have done on recorded calls."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from confroute.errors import CalibrationError
from confroute.fitting.front import ParetoFront
from confroute.fitting.point import Point
from confroute.views.front import front_parts
from confroute.views.html import fragment, table

_ROWS = 11


def threshold_slider(front: ParetoFront) -> Any:
    """Make a slider over the thresholds of a front, beside the quality and the cost of each.

    Parameters
    ----------
    front : ParetoFront
        Of `confroute.fitting.fit(...).front` or `front_of`.

    Returns
    -------
    ipywidgets.VBox or StaticSlider
        The widget where `ipywidgets` is installed (`pip install 'confroute[notebook]'`), else a table of eleven thresholds that names
        the package. A notebook shows either.

    Raises
    ------
    CalibrationError
        A front without thresholds.
    """
    if not front.points:
        msg = "this front has no thresholds to move between: record calls whose signal can be measured"
        raise CalibrationError(msg)
    return StaticSlider(front=front) if find_spec("ipywidgets") is None else _widget(front)


def _widget(front: ParetoFront) -> Any:
    import ipywidgets

    shown = ipywidgets.HTML()
    slider = ipywidgets.SelectionSlider(
        options=[(f"{point.threshold:.4g}", at) for at, point in enumerate(front.points)],
        value=front.points.index(_nearest(front)),
        description="threshold",
        continuous_update=True,
        layout=ipywidgets.Layout(width="40em"),
    )

    def move(change: dict[str, Any]) -> None:
        shown.value = chosen_html(front, front.points[change["new"]])

    move({"new": slider.value})
    slider.observe(move, names="value")
    return ipywidgets.VBox([slider, shown])


def _nearest(front: ParetoFront) -> Point:
    """The threshold to begin at: the knee, where quality is known."""
    knee = None if front.cloud.quality is None else front.knee
    return knee if knee in front.points else front.points[len(front.points) // 2]


def chosen_html(front: ParetoFront, chosen: Point) -> str:
    """Draw a front with one of its thresholds marked, and describe that threshold."""
    words = f"<p>Threshold <b>{chosen.threshold:.4g}</b>: {chosen.cloud_share:.1%} of {front.n} recorded calls go to the cloud"
    words += "" if chosen.quality is None else f", quality {chosen.quality:.3f}"
    warning = None if front.cloud.quality is None else front.warning(chosen)
    end = "" if warning is None else f"<p><b>{warning}</b></p>"
    return fragment([f"{words}.</p>{end}", *front_parts(front, chosen=chosen)], label="one threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSlider:
    """A table in the slider's place, where `ipywidgets` is not installed."""

    front: ParetoFront

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        points = self.front.points
        at = sorted({round(place * (len(points) - 1) / (_ROWS - 1)) for place in range(_ROWS)})
        rows = [
            (f"{p.threshold:.4g}", p.cloud_share, p.quality, p.usd_per_1k) for p in (points[i] for i in at)
        ]
        parts = [
            *front_parts(self.front),
            table(("threshold", "cloud share", "quality", "USD for 1000"), rows),
            "<p class='q'>pip install 'confroute[notebook]' makes a slider of this</p>",
        ]
        return fragment(parts, label=f"thresholds on {self.front.n} calls")
