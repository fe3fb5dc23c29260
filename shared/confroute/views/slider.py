"""A threshold to move over recorded calls, and what it would have done."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from confroute.errors import CalibrationError
from confroute.views.front import front_parts
from confroute.views.html import fragment, table

if TYPE_CHECKING:
    from confroute.fitting.front import ParetoFront
    from confroute.fitting.point import Point

_ROWS = 11


def threshold_slider(front: ParetoFront) -> Any:
    """A slider over the thresholds of a front, beside what each gives and takes.

    Parameters
    ----------
    front : ParetoFront
        Of `confroute.fitting.fit(...).front` or `front_of`.

    Returns
    -------
    ipywidgets.VBox or StaticSlider
        The widget where `ipywidgets` is installed (`pip install 'confroute[notebook]'`), else a table of eleven
        thresholds, which says so. A notebook shows either.

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

    def moved(change: dict[str, Any]) -> None:
        shown.value = chosen_html(front, front.points[change["new"]])

    moved({"new": slider.value})
    slider.observe(moved, names="value")
    return ipywidgets.VBox([slider, shown])


def _nearest(front: ParetoFront) -> Point:
    """Where to begin: the knee, where quality is known."""
    knee = None if front.cloud.quality is None else front.knee
    return knee if knee in front.points else front.points[len(front.points) // 2]


def chosen_html(front: ParetoFront, chosen: Point) -> str:
    """A front with one of its thresholds marked, in words too."""
    said = f"<p>{chosen.cloud_share:.1%} of {front.n} recorded calls go to the cloud"
    said += "" if chosen.quality is None else f", quality {chosen.quality:.3f}"
    warning = None if front.cloud.quality is None else front.warning(chosen)
    end = "" if warning is None else f"<p><b>{warning}</b></p>"
    return fragment([f"{said}.</p>{end}", *front_parts(front, chosen=chosen)], label="one threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSlider:
    """What stands for the slider without `ipywidgets`."""

    front: ParetoFront

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        points = self.front.points
        at = sorted({round(place * (len(points) - 1) / (_ROWS - 1)) for place in range(_ROWS)})
        rows = [
            (f"{p.threshold:.4g}", p.cloud_share, p.quality, p.usd_per_1k) for p in (points[i] for i in at)
        ]
        parts = [
            table(("threshold", "cloud share", "quality", "USD for 1000"), rows),
            *front_parts(self.front),
            "<p class='q'>pip install 'confroute[notebook]' makes a slider of this</p>",
        ]
        return fragment(parts, label=f"thresholds on {self.front.n} calls")
