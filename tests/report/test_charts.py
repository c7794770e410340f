"""Charts are drawn to scale, and say in words what they show."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgstore.report.axes import ticks
from ecgstore.report.charts import Estimate, Line, forest, lines
from ecgstore.report.markdown import markdown
from ecgstore.report.page import Column, code, details, note, shell, table, tag

ENDS = st.floats(-1e3, 1e3, allow_nan=False)


@given(ENDS, st.floats(1e-3, 1e3))
def test_ticks_are_few_and_enclose_the_range(low: float, width: float) -> None:
    found = ticks(low, low + width)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= low + width - 1e-6 * step


def test_a_forest_plot_puts_figures_to_scale() -> None:
    rows = [Estimate("a<b", 0.6, 0.5, 0.8), Estimate("none", 0.7, float("nan"), float("nan"))]
    picture = forest(rows, x_label="AUROC", alt="told", line=0.65)
    whisker = re.search(r'class="whisker" d="M([\d.]+) [\d.]+L([\d.]+)', picture)
    squares = [float(x) + 4 for x in re.findall(r'class="estimate" x="([\d.]+)"', picture)]
    assert whisker is not None
    low, high = map(float, whisker.groups())
    assert (squares[0] - low) / (high - low) == pytest.approx(1 / 3, abs=0.01)
    assert len(squares) == 2
    assert picture.count("whisker") == 1
    assert "a&lt;b" in picture
    assert 'role="img" aria-label="told"' in picture


def test_a_line_breaks_where_there_is_no_figure_and_never_leaves_its_axes() -> None:
    x = np.linspace(0, 1, 6)
    y = np.array([0.1, 0.2, np.nan, 0.4, 9.0, 0.3])
    picture = lines([Line(x, y)], x_label="x", y_label="y", alt="a", y=(0, 1))
    assert picture.count('class="line s0"') == 3
    assert "nan" not in picture


def test_markdown_of_the_parts_of_a_page() -> None:
    columns = [Column("x"), Column("m", group="G"), Column("n", group="G")]
    page = tag(
        "main",
        tag("h2", "A *heading*"),
        tag("p", "less < more & ", code("a|b"), tag("b", " strong")),
        table("Said", columns, [[1, "p|q", 3]]),
        note("Mind.", "this"),
        details("More", shell("echo a", "echo ```")),
    )
    assert markdown(page).split("\n\n") == [
        r"## A \*heading\*",
        "less &lt; more &amp; `a|b`** strong**",
        "**Said**",
        "| x | m (G) | n (G) |\n| --- | --- | --- |\n| 1 | p\\|q | 3 |",
        "> **Mind.** this",
        "**More**",
        "````sh\necho a\necho ```\n````\n",
    ]
