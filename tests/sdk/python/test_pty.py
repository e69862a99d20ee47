"""Terminals: create, input, resize, kill, reconnect."""

import asyncio
import inspect

import pytest
from e2b import CommandExitException
from e2b.sandbox.commands.command_handle import PtySize
from waiting import is_alive

LIMIT_SECONDS = 30


class Screen:
    """What a terminal has printed, gathered by a task of its own."""

    def __init__(self):
        self.text = ""
        self._changed = asyncio.Condition()
        self._loop = asyncio.get_running_loop()

    async def add(self, data: bytes):
        async with self._changed:
            self.text += data.decode(errors="replace")
            self._changed.notify_all()

    def add_from_thread(self, data: bytes):
        asyncio.run_coroutine_threadsafe(self.add(data), self._loop).result()

    async def shows(self, text: str):
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: text in self.text), LIMIT_SECONDS)
            except TimeoutError:
                pytest.fail(f"the terminal never showed {text!r}, but {self.text!r}")


async def create(box, screen: Screen, **kwargs):
    """A terminal of 80 x 24 and the task that waits for its end."""
    size = PtySize(rows=24, cols=80)
    if box.asynchronous:
        handle = await box(box.pty.create, size, on_data=screen.add, **kwargs)
    else:
        handle = await box(box.pty.create, size, **kwargs)
    return handle, watch(box, handle, screen)


async def kill(box, handle, ended: asyncio.Task):
    """Ends the terminal, which whoever waits for it is told."""
    await box(handle.kill)
    with pytest.raises(CommandExitException):
        await ended


def watch(box, handle, screen: Screen) -> asyncio.Task:
    if box.asynchronous:
        return asyncio.create_task(handle.wait())
    return asyncio.create_task(asyncio.to_thread(handle.wait, on_pty=screen.add_from_thread))


async def connect(box, pid: int, screen: Screen):
    if box.asynchronous:
        assert "on_data" in inspect.signature(box.pty.connect).parameters
        handle = await box(box.pty.connect, pid, on_data=screen.add)
    else:
        handle = await box(box.pty.connect, pid)
    return handle, watch(box, handle, screen)


async def type_line(box, pid: int, line: str):
    await box(box.pty.send_stdin, pid, line.encode() + b"\n")


async def test_a_shell_takes_input_and_ends_with_its_status(box):
    screen = Screen()
    handle, ended = await create(box, screen, envs={"GREETING": "hi"}, cwd="/usr")
    # The arithmetic keeps the echo of the typed line apart from the answer.
    await type_line(box, handle.pid, "echo $GREETING-$((20 + 22))-$PWD-$TERM")
    await screen.shows("hi-42-/usr-xterm-256color")
    await type_line(box, handle.pid, "exit 5")
    with pytest.raises(CommandExitException) as failure:
        await ended
    assert failure.value.exit_code == 5


async def test_a_clean_exit_has_status_0(box):
    screen = Screen()
    handle, ended = await create(box, screen)
    await type_line(box, handle.pid, "exit")
    assert (await ended).exit_code == 0


async def test_the_terminal_is_a_terminal_of_the_user(box):
    screen = Screen()
    handle, ended = await create(box, screen)
    await type_line(box, handle.pid, "test -t 0 && test -t 1 && test -t 2 && echo tty:$(id -un):$((1 + 1))")
    await screen.shows("tty:user:2")
    await kill(box, handle, ended)


async def test_the_size_is_set_before_the_shell_and_can_be_changed(box):
    screen = Screen()
    handle, ended = await create(box, screen)
    await type_line(box, handle.pid, "echo first:$(stty size)")
    await screen.shows("first:24 80")
    await box(box.pty.resize, handle.pid, PtySize(rows=50, cols=132))
    await type_line(box, handle.pid, "echo second:$(stty size)")
    await screen.shows("second:50 132")
    await kill(box, handle, ended)


async def test_ctrl_c_interrupts_the_program_in_front(box):
    screen = Screen()
    handle, ended = await create(box, screen)
    # The program itself says that it runs: between two commands of a line the shell may swallow the signal.
    await type_line(box, handle.pid, "sh -c 'echo go:$((1 + 1)); exec sleep 300'")
    await screen.shows("go:2")
    await box(box.pty.send_stdin, handle.pid, b"\x03")
    await type_line(box, handle.pid, "echo back:$((2 + 2))")
    await screen.shows("back:4")
    await kill(box, handle, ended)


async def test_killing_a_terminal_ends_it_once(box):
    screen = Screen()
    handle, ended = await create(box, screen)
    assert handle.pid in [p.pid for p in await box(box.commands.list)]
    assert await box(box.pty.kill, handle.pid) is True
    with pytest.raises(CommandExitException) as failure:
        await ended
    assert failure.value.exit_code == -1
    assert not is_alive(handle.pid)
    assert await box(box.pty.kill, handle.pid) is False


def read_until(handle, text: str) -> str:
    """Takes output of a synchronous handle until it shows the text; the handle stays free for disconnect()."""
    seen = ""
    for _, _, data in handle:
        seen += (data or b"").decode(errors="replace")
        if text in seen:
            return seen
    pytest.fail(f"the terminal ended before it showed {text!r}: {seen!r}")


async def test_a_shell_outlives_its_client_and_keeps_its_state(box):
    first, second = Screen(), Screen()
    size = PtySize(rows=24, cols=80)
    handle = await box(box.pty.create, size, **({"on_data": first.add} if box.asynchronous else {}))
    await type_line(box, handle.pid, "remembered=$((6 * 7)); echo set:$remembered")
    if box.asynchronous:
        await first.shows("set:42")
    else:
        await asyncio.to_thread(read_until, handle, "set:42")
    await box(handle.disconnect)
    assert is_alive(handle.pid)

    again, ended_again = await connect(box, handle.pid, second)
    assert again.pid == handle.pid
    await type_line(box, handle.pid, "echo still:$remembered")
    await second.shows("still:42")
    await type_line(box, handle.pid, "exit 0")
    assert (await ended_again).exit_code == 0


async def test_resizing_an_unknown_terminal_is_not_found(box):
    with pytest.raises(Exception, match="process with pid 4000000 not found"):
        await box(box.pty.resize, 4_000_000, PtySize(rows=1, cols=1))
