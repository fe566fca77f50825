"""The charts as Vega-Lite specifications without data: the page fills in the lines that the reader chooses.

Names of models and taps are only ever values of `tap`, `tip` and the like, never names of fields or expressions.
Colours are CSS variables, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: Stands above the frame, where no number is.
CROSS = "M-.5,-.5L.5,.5M.5,-.5L-.5,.5"

Spec = dict[str, Any]


def specifications() -> dict[str, Spec]:
    """Return {name: specification} of every chart on the page, validated by Altair against Vega-Lite's schema."""
    return {"depth": _depth(), "training": _training(), "polar": _polar(), "bars": _bars()}


def _finished(chart: Any, description: str) -> Spec:
    import altair as alt

    chart.config = alt.Config(
        background="transparent",
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor="var(--muted)",
            titleColor="var(--muted)",
            gridColor="var(--line)",
            domainColor="var(--line)",
            tickColor="var(--line)",
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            titlePadding=8,
        ),
    )
    chart.autosize = alt.AutoSizeParams(type="fit", contains="padding")
    spec: Spec = chart.properties(description=description).to_dict()
    return spec


def _dash() -> Any:
    """Return how reference levels are told apart: dots for the floor, dashes for the null."""
    import altair as alt

    scale = alt.Scale(domain=["floor", "null"], range=[[1, 3], [6, 4]])
    return alt.StrokeDash("dash:N", scale=scale, legend=None)


def _lines(x: Any, *, description: str) -> Spec:
    """Lines with a band, their floor and null, and a mark where there is no number; over taps or over steps."""
    import altair as alt

    points, levels = alt.NamedData(name="points"), alt.NamedData(name="levels")
    active = alt.param(name="active", value=None)
    colour = alt.Color("colour:N", scale=None)
    bright = "active === null || active === datum.series"
    y = alt.Y("value:Q", scale=alt.Scale(zero=False, nice=True), title=None, axis=alt.Axis(tickCount=6, domain=False))

    def faded(shown: float, faint: float) -> Any:
        return alt.condition(bright, alt.value(shown), alt.value(faint))

    def only(test: str, size: float) -> Any:
        # a filter would leave empty data, whose scale has no ends
        return alt.condition(test, alt.value(size), alt.value(0))

    band = (
        alt.Chart(points)
        .mark_area(interpolate="linear")
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", detail="series:N", fill=colour, opacity=faded(0.16, 0.03))
    )
    reference = (
        alt.Chart(levels)
        .mark_line(strokeWidth=1.25)
        .encode(
            x=x,
            y=alt.Y("level:Q"),
            detail=["series:N", "what:N"],
            stroke=colour,
            strokeDash=_dash(),
            opacity=faded(0.8, 0.12),
        )
    )
    # one tap makes no line
    alone = (
        alt.Chart(levels)
        .mark_point(shape="stroke", strokeWidth=1.25)
        .encode(
            x=x,
            y=alt.Y("level:Q"),
            stroke=colour,
            strokeDash=_dash(),
            size=only("datum.alone", 700),
            opacity=faded(0.8, 0.12),
        )
    )
    line = (
        alt.Chart(points)
        .mark_line(strokeWidth=2, strokeJoin="round")
        .encode(x=x, y=y, detail="series:N", stroke=colour, opacity=faded(1, 0.15))
    )
    dots = (
        alt.Chart(points)
        .mark_point(filled=True, size=46, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=alt.Tooltip("tip:N"), opacity=faded(1, 0.15))
    )
    nothing = (
        alt.Chart(points)
        .mark_point(shape=CROSS, strokeWidth=2)
        .encode(
            x=x,
            y=alt.value(-4),
            color=colour,
            tooltip=alt.Tooltip("tip:N"),
            size=only("!isValid(datum.value)", 90),
            opacity=faded(0.9, 0.15),
        )
    )
    chart = alt.layer(band, reference, alone, line, dots, nothing).add_params(active)
    return _finished(chart.properties(width="container", height=300), description)


def _depth() -> Spec:
    import altair as alt

    x = alt.X(
        "tap:N",
        sort=None,
        scale=alt.Scale(type="point", padding=0.4),
        axis=alt.Axis(title=None, labelLimit=130, labelOverlap="greedy", grid=False, ticks=False, labelPadding=6),
    )
    return _lines(x, description="Deviation by depth: one line a model over its taps, with interval, floor and null.")


def _training() -> Spec:
    import altair as alt

    x = alt.X("step:Q", axis=alt.Axis(title="training step", grid=False, tickCount=6, format="~s"))
    return _lines(x, description="Deviation over training steps, with interval, floor and null.")


def _polar() -> Spec:
    import altair as alt

    frame, levels = alt.NamedData(name="frame"), alt.NamedData(name="levels")
    points, labels = alt.NamedData(name="points"), alt.NamedData(name="labels")
    x, y = alt.X("x:Q", axis=None), alt.Y("y:Q", axis=None)
    order, path = alt.Order("order:Q"), "path:N"
    grid = (
        alt.Chart(frame)
        .mark_line(strokeWidth=1)
        .encode(x=x, y=y, order=order, detail=path, stroke=alt.value("var(--line)"))
    )
    circles = (
        alt.Chart(levels)
        .mark_line(strokeWidth=1.25)
        .encode(
            x=x,
            y=y,
            order=order,
            detail=path,
            stroke=alt.value("var(--muted)"),
            strokeDash=_dash(),
        )
    )
    colour = alt.Color("colour:N", scale=None)
    shape = (
        alt.Chart(points)
        .mark_line(strokeWidth=2, strokeJoin="round")
        .encode(x=x, y=y, order=order, detail=path, stroke=colour)
    )
    dots = (
        alt.Chart(points)
        .mark_point(filled=True, size=50, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=alt.Tooltip("tip:N"))
    )
    said = alt.Chart(labels).mark_text(fontSize=10.5).encode(x=x, y=y, text="text:N", color=alt.value("var(--muted)"))
    chart = alt.layer(grid, circles, shape, dots, said).properties(width=250, height=250)
    return _finished(chart, "Deviation by angle: the further out, the less equivariant.")


def _bars() -> Spec:
    import altair as alt

    points, rules, ticks = (alt.NamedData(name=name) for name in ("points", "rules", "ticks"))
    axis = alt.Axis(title=None, labelLimit=110, labelAngle=-40, labelOverlap="greedy", ticks=False)
    x = alt.X("name:N", sort=None, axis=axis)
    y = alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5, domain=False))
    bars = (
        alt.Chart(points)
        .mark_bar(cornerRadiusEnd=2, width={"band": 0.72})
        .encode(x=x, y=y, color=alt.Color("colour:N", scale=None), tooltip=alt.Tooltip("tip:N"))
    )
    level = {"y": alt.Y("level:Q"), "stroke": alt.value("var(--muted)"), "strokeDash": _dash()}
    # one level for all elements, or one for each
    across = alt.Chart(rules).mark_rule(strokeWidth=1.25).encode(**level)
    start, end = alt.X("name:N", sort=None, axis=axis, bandPosition=0), alt.X2("name", bandPosition=1)
    own = alt.Chart(ticks).mark_rule(strokeWidth=1.25).encode(x=start, x2=end, **level)
    chart = alt.layer(bars, across, own).properties(width="container", height=230)
    return _finished(chart, "Deviation by group element.")
