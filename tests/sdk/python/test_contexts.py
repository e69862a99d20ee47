"""Contexts: create, list, restart, remove, and time limits of cells."""

import asyncio

import pytest
from e2b import InvalidArgumentException, NotFoundException, TimeoutException
from e2b.exceptions import SandboxException


async def listed(box):
    return {c.id: c for c in await box(box.sandbox.list_code_contexts)}


async def test_a_new_context_is_listed_last_with_its_settings(box):
    context = await box(box.sandbox.create_code_context)
    assert (context.language, context.cwd) == ("python", "/home/user")
    last = (await box(box.sandbox.list_code_contexts))[-1]
    assert (last.id, last.language, last.cwd) == (context.id, "python", "/home/user")
    await box(box.sandbox.remove_code_context, context)


async def test_the_default_context_is_always_listed_first(box):
    first = (await box(box.sandbox.list_code_contexts))[0]
    assert (first.language, first.cwd) == ("python", "/home/user")


async def test_a_context_starts_in_its_directory(box, folder):
    context = await box(box.sandbox.create_code_context, cwd=str(folder), language="python")
    assert context.cwd == str(folder)
    assert (await box.code("import os; os.getcwd()", context=context)).text == str(folder)
    await box(box.sandbox.remove_code_context, context)


async def test_contexts_do_not_share_state(box, context):
    await box.code("x = 'default'")
    error = (await box.code("x", context=context)).error
    assert (error.name, error.value) == ("NameError", "name 'x' is not defined")


async def test_contexts_run_at_the_same_time(box, context, folder):
    # The first cell ends only after the second one has run in the other context.
    waiting = f"import os, time\nwhile not os.path.exists('{folder}/go'): time.sleep(0.02)\n'first'"
    first = asyncio.create_task(box.code(waiting, timeout=60))
    second = await box.code(f"open('{folder}/go', 'w').close()\n'second'", context=context, timeout=60)
    assert (second.text, (await first).text) == ("second", "first")


async def test_a_restarted_context_has_forgotten_and_keeps_id_and_directory(box, folder):
    context = await box(box.sandbox.create_code_context, cwd=str(folder))
    await box.code("x = 1", context=context)
    await box(box.sandbox.restart_code_context, context)
    error = (await box.code("x", context=context)).error
    assert (error.name, error.value) == ("NameError", "name 'x' is not defined")
    assert (await listed(box))[context.id].cwd == str(folder)
    assert (await box.code("import os; os.getcwd()", context=context)).text == str(folder)
    await box(box.sandbox.remove_code_context, context)


async def test_a_removed_context_is_gone(box):
    context = await box(box.sandbox.create_code_context)
    await box(box.sandbox.remove_code_context, context)
    assert context.id not in await listed(box)
    with pytest.raises(NotFoundException) as failure:
        await box.code("1", context=context)
    assert f"Context {context.id} not found" in str(failure.value)


async def test_a_context_can_be_named_by_its_id(box):
    context = await box(box.sandbox.create_code_context)
    await box(box.sandbox.restart_code_context, context.id)
    await box(box.sandbox.remove_code_context, context.id)
    assert context.id not in await listed(box)


async def test_an_unknown_context_is_not_found(box):
    for call in (box.sandbox.restart_code_context, box.sandbox.remove_code_context):
        with pytest.raises(NotFoundException):
            await box(call, "no-such-context")


async def test_an_unknown_language_is_refused(box):
    with pytest.raises(SandboxException):
        await box(box.sandbox.create_code_context, language="cobol")
    assert (await box.code("1 + 1")).text == "2"


async def test_language_and_context_exclude_each_other(box, context):
    with pytest.raises(InvalidArgumentException):
        await box.code("1", language="python", context=context)


async def test_a_removal_ends_the_running_cell(box, folder):
    context = await box(box.sandbox.create_code_context)
    cell = f"import time\nopen('{folder}/running', 'w').close()\ntime.sleep(300)"
    running = asyncio.create_task(box.code(cell, context=context, timeout=60))
    while not (folder / "running").exists():
        await asyncio.sleep(0.02)
    await box(box.sandbox.remove_code_context, context)
    assert (await running).error is not None


@pytest.mark.parametrize(
    "busy",
    [
        "import time; time.sleep(300)",
        "while True: pass",
        "import subprocess; subprocess.run(['sleep', '300'])",
    ],
    ids=["asleep", "computing", "in a child process"],
)
async def test_a_cell_beyond_its_time_limit_is_interrupted_and_the_next_one_works(box, context, busy):
    await box.code("kept = 'still here'", context=context)
    with pytest.raises(TimeoutException):
        await box.code(busy, context=context, timeout=2)
    # At once, with no pause for the interrupt to take effect.
    assert (await box.code("kept", context=context, timeout=60)).text == "still here"


async def test_a_cell_can_be_interrupted_again_and_again(box, context):
    for n in range(3):
        with pytest.raises(TimeoutException):
            await box.code("import time; time.sleep(300)", context=context, timeout=1)
        assert (await box.code(f"{n} + 1", context=context, timeout=60)).text == str(n + 1)
