"""Figures come as a picture and as data."""

import base64

import pytest

SETUP = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\n"


@pytest.fixture
async def chart(box, context):
    async def plot(code: str):
        execution = await box.code(code + "\nplt.show()", context=context, timeout=120)
        assert execution.error is None, execution.error
        [result] = execution.results
        assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n\x1a\n")
        assert result.extra == {}
        return result.chart

    return plot


async def test_bar_chart(chart):
    bars = await chart(
        SETUP + "ax.bar(['Ada', 'Bob'], [100, 200])\nax.set(title='Sales', xlabel='Author', ylabel='Books')"
    )
    assert (bars.type.value, bars.title, bars.x_label, bars.y_label) == ("bar", "Sales", "Author", "Books")
    assert (bars.x_unit, bars.y_unit) == (None, None)
    assert [(e.label, e.group, float(e.value)) for e in bars.elements] == [
        ("Ada", "Group 0", 100.0),
        ("Bob", "Group 0", 200.0),
    ]


async def test_line_chart(chart):
    line = await chart(
        SETUP + "ax.plot([1, 2, 3], [1, 4, 9], label='squares')\nax.set(title='Squares', xlabel='n (items)')"
    )
    assert (line.type.value, line.title, line.x_label, line.x_unit) == ("line", "Squares", "n (items)", "items")
    assert (line.x_scale.value, line.y_scale.value) == ("linear", "linear")
    [element] = line.elements
    assert element.label == "squares"
    assert [tuple(map(float, point)) for point in element.points] == [(1, 1), (2, 4), (3, 9)]
    assert line.y_tick_labels == [str(n) for n in range(11)]


async def test_logarithmic_scale(chart):
    line = await chart(SETUP + "ax.plot([1, 10], [1, 10])\nax.set_xscale('log')")
    assert (line.x_scale.value, line.y_scale.value) == ("log", "linear")


async def test_scatter_chart(chart):
    scatter = await chart(SETUP + "ax.scatter([1, 2], [3, 4], label='points')")
    assert (scatter.type.value, scatter.title) == ("scatter", None)
    [element] = scatter.elements
    assert [tuple(map(float, point)) for point in element.points] == [(1, 3), (2, 4)]


async def test_pie_chart(chart):
    pie = await chart(SETUP + "ax.pie([90, 10], labels=['yes', 'no'], autopct='%d%%')\nax.set_title('Vote')")
    assert (pie.type.value, pie.title) == ("pie", "Vote")
    assert [(e.label, e.angle, e.radius) for e in pie.elements] == [("yes", 324.0, 1.0), ("no", 36.0, 1.0)]


async def test_several_axes_are_a_superchart(chart):
    both = await chart(
        "import matplotlib.pyplot as plt\nfig, (a, b) = plt.subplots(1, 2)\n"
        "a.plot([1, 2], [1, 2])\nb.bar(['x'], [1])\nfig.suptitle('Both')"
    )
    assert (both.type.value, both.title) == ("superchart", "Both")
    assert [part.type.value for part in both.elements] == ["line", "bar"]


async def test_an_empty_figure_has_no_chart(chart):
    assert await chart(SETUP) is None


async def test_an_unknown_drawing_is_named_so(chart):
    assert (await chart(SETUP + "ax.imshow([[1, 2], [3, 4]])")).type.value == "unknown"


async def test_an_open_figure_is_shown_at_the_end_of_the_cell(box, context):
    execution = await box.code(SETUP + "ax.plot([1, 2])\n'value'", context=context)
    assert execution.text == "value"
    assert [bool(r.png) for r in execution.results].count(True) == 1
