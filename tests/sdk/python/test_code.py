"""Code cells: state, output, results, errors, callbacks, variables."""

import asyncio
import base64
import datetime

import pytest


async def test_state_is_kept_from_cell_to_cell(box):
    assert (await box.code("x = 41")).text is None
    assert (await box.code("x + 1")).text == "42"


async def test_the_default_context_is_python(box):
    await box.code("shared_with_default = 7")
    assert (await box.code("shared_with_default", language="python")).text == "7"


async def test_prints_are_events_in_order(box, context):
    execution = await box.code("import sys\nprint('one'); print('two', file=sys.stderr)", context=context)
    assert (execution.logs.stdout, execution.logs.stderr) == (["one\n"], ["two\n"])
    assert (execution.results, execution.error) == ([], None)


async def test_callbacks_see_what_the_execution_returns(box, context):
    stdout, stderr, results, errors = [], [], [], []
    execution = await box.code(
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\n'value'",
        context=context,
        on_stdout=stdout.append,
        on_stderr=stderr.append,
        on_result=results.append,
        on_error=errors.append,
    )
    assert [(m.line, m.error) for m in stdout] == [("out\n", False)]
    assert [(m.line, m.error) for m in stderr] == [("err\n", True)]
    assert [r.text for r in results] == ["value"] == [execution.text]
    assert errors == []
    datetime.datetime.fromisoformat(stdout[0].timestamp)


async def test_output_arrives_while_the_cell_runs(box, context, folder):
    seen = folder / "seen"

    def on_stdout(message):
        if "ready" in message.line:
            seen.touch()

    code = f"""
import os, time
print("ready", flush=True)
while not os.path.exists("{seen}"):
    time.sleep(0.02)
"finished"
"""
    assert (await box.code(code, context=context, on_stdout=on_stdout, timeout=60)).text == "finished"


async def test_an_exception_is_an_error_with_its_traceback(box, context):
    errors = []
    execution = await box.code("print('before')\n1 / 0", context=context, on_error=errors.append)
    assert (execution.error.name, execution.error.value) == ("ZeroDivisionError", "division by zero")
    assert "ZeroDivisionError" in execution.error.traceback
    assert "1 / 0" in execution.error.traceback
    assert "\x1b" not in execution.error.traceback
    assert execution.logs.stdout == ["before\n"]
    assert [e.name for e in errors] == ["ZeroDivisionError"]
    assert (await box.code("1 + 1", context=context)).text == "2"


async def test_a_syntax_error_and_an_unknown_name(box, context):
    assert (await box.code("this isn't python", context=context)).error.name == "SyntaxError"
    error = (await box.code("undefined_name", context=context)).error
    assert (error.name, error.value) == ("NameError", "name 'undefined_name' is not defined")


async def test_leaving_by_sys_exit_keeps_the_kernel(box, context):
    await box.code("kept = 1", context=context)
    error = (await box.code("import sys; sys.exit(3)", context=context)).error
    assert (error.name, error.value) == ("SystemExit", "3")
    assert (await box.code("kept", context=context)).text == "1"


async def test_a_kernel_that_dies_is_replaced(box, context):
    await box.code("lost = 1", context=context)
    error = (await box.code("import os; os._exit(1)", context=context, timeout=60)).error
    assert error is not None
    assert (await box.code("'lost' in globals()", context=context, timeout=60)).text == "False"


async def test_executions_are_counted(box, context):
    first = await box.code("1", context=context)
    second = await box.code("2", context=context)
    assert (first.execution_count, second.execution_count) == (1, 2)


async def test_strings_lose_their_quotes_and_others_keep_their_text(box, context):
    assert (await box.code("'abc'", context=context)).text == "abc"
    assert (await box.code("(1, 'a')", context=context)).text == "(1, 'a')"
    assert (await box.code("None", context=context)).text is None


async def test_lists_and_dicts_come_as_json_too(box, context):
    result = (await box.code("{'a': [1, 2, None]}", context=context)).results[0]
    assert (result.text, result.json) == ("{'a': [1, 2, None]}", {"a": [1, 2, None]})


async def test_text_beyond_ascii_survives(box, context):
    # Line separators that a client must not take for the end of an event.
    printed, shown = "kůň 🐎 \u2028\u0085\u000b end", "kůň 🐎"
    execution = await box.code(f"print({printed!r})\n{shown!r}", context=context)
    assert ("".join(execution.logs.stdout), execution.text) == (printed + "\n", shown)


async def test_a_raw_display_has_only_its_own_formats(box, context):
    code = """
class Formula:
    def _repr_latex_(self):
        return r"$\\frac{1}{2}$"

from IPython.display import display
display({"text/latex": Formula()._repr_latex_()}, raw=True)
"""
    result = (await box.code(code, context=context)).results[0]
    assert (list(result.formats()), result.latex, result.is_main_result) == (["latex"], r"$\frac{1}{2}$", False)


async def test_html_and_markdown_results(box, context):
    code = "from IPython.display import HTML, Markdown, display\ndisplay(Markdown('**b**'))\nHTML('<b>x</b>')"
    markdown, html = (await box.code(code, context=context)).results
    assert (markdown.markdown, markdown.is_main_result) == ("**b**", False)
    assert (html.html, html.is_main_result) == ("<b>x</b>", True)


async def test_a_data_frame_carries_its_data(box, context):
    code = "import pandas as pd\npd.DataFrame({'a': [1, 2, 3], 'b': ['x', 'y', 'z']})"
    result = (await box.code(code, context=context)).results[0]
    assert result.data == {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    assert "<table" in result.html


async def test_an_image_is_shown(box, context):
    code = "from PIL import Image\nImage.new('RGB', (4, 4), 'red')"
    result = (await box.code(code, context=context)).results[0]
    assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n\x1a\n")


async def test_indented_code_and_magic_commands_work(box, context):
    assert (await box.code("    y = 2\n    y * 2", context=context)).text == "4"
    assert "".join((await box.code("!pwd", context=context)).logs.stdout).strip() == "/home/user"


async def test_top_level_await_works(box, context):
    assert (await box.code("import asyncio\nawait asyncio.sleep(0, 'awaited')", context=context)).text == "awaited"


async def test_cells_run_as_the_user_at_home(box, context):
    execution = await box.code("import os, getpass; (os.getuid(), os.getcwd(), os.environ['HOME'])", context=context)
    assert execution.text == "(1000, '/home/user', '/home/user')"


async def test_variables_have_three_scopes(box, context):
    read = "import os; os.environ.get('ENVD_TEST_GLOBAL')"
    assert (await box.code(read, context=context)).text == "from the agent"
    changed = await box.code(read, context=context, envs={"ENVD_TEST_GLOBAL": "from the cell"})
    assert changed.text == "from the cell"
    assert (await box.code(read, context=context)).text == "from the agent"

    only = "import os; os.environ.get('ONLY_ONCE', 'absent')"
    assert (await box.code(only, context=context, envs={"ONLY_ONCE": "once"})).text == "once"
    assert (await box.code(only, context=context)).text == "absent"


async def test_variables_of_a_cell_are_data(box, context):
    value = "it's \"quoted\"\n\\back $HOME `id` ů"
    execution = await box.code("import os; print(os.environ['VALUE'], end='')", context=context, envs={"VALUE": value})
    assert "".join(execution.logs.stdout) == value


async def test_variables_of_a_failed_cell_do_not_stay(box, context):
    await box.code("1 / 0", context=context, envs={"FAILED": "1"})
    assert (await box.code("import os; 'FAILED' in os.environ", context=context)).text == "False"


async def test_cells_of_one_context_run_one_after_the_other(box, context):
    await box.code("order = []", context=context)
    cells = [f"order.append({n}); len(order)" for n in range(5)]
    texts = [e.text for e in await asyncio.gather(*(box.code(cell, context=context) for cell in cells))]
    assert sorted(texts) == ["1", "2", "3", "4", "5"]


async def test_empty_code_ends_at_once(box, context):
    for code in ("", "# only a comment"):
        execution = await box.code(code, context=context)
        assert (execution.results, execution.error, execution.logs.stdout) == ([], None, [])


async def test_reading_input_is_an_error(box, context):
    error = (await box.code("input()", context=context)).error
    assert error.name == "StdinNotImplementedError"


@pytest.mark.parametrize("size", [1_000_000])
async def test_a_long_print_is_complete(box, context, size):
    execution = await box.code(f"print('x' * {size})", context=context)
    assert "".join(execution.logs.stdout) == "x" * size + "\n"
