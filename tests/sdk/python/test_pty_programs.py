"""Real programs in a terminal, as the user `user`: sudo, screen, script, vi, and a shell's job control."""

import asyncio
import contextlib
import os
import shutil

import pytest
from test_pty import Screen, create, kill, type_line

# What `.ci/run` installs for this file: the program and the Debian package that has it.
PACKAGES = {"sudo": "sudo", "screen": "screen", "script": "bsdutils", "vi": "vim-tiny", "bash": "bash"}


@pytest.fixture(autouse=True)
def programs():
    missing = sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None)
    assert not missing, f"these tests need more programs: apt-get install {' '.join(missing)}"


@contextlib.asynccontextmanager
async def terminal(box, **kwargs):
    """A shell whose prompt has no escape sequences, and its screen."""
    screen = Screen()
    handle, ended = await create(box, screen, **kwargs)
    await type_line(box, handle.pid, "PS1='prompt> '; stty -echo; echo ready:$((1 + 1))")
    await screen.shows("ready:2")
    screen.text = ""
    try:
        yield handle, screen
    finally:
        await kill(box, handle, ended)


async def keys(box, handle, text: str):
    await box(box.pty.send_stdin, handle.pid, text.encode())


async def test_sudo_runs_in_the_terminal(box):
    async with terminal(box) as (handle, screen):
        await type_line(box, handle.pid, "sudo sh -c 'test -t 0 && echo root:$(id -u):$(tty)'; echo own:$(tty)")
        await screen.shows("own:/dev/pts/")
        await screen.shows("root:0:/dev/pts/")


async def test_script_makes_a_terminal_in_the_terminal(box, folder):
    async with terminal(box, cwd=str(folder)) as (handle, screen):
        await type_line(box, handle.pid, "script -q -c 'test -t 0 && tty; echo inside:$((20 + 3))' log; echo done:$?")
        await screen.shows("inside:23")
        await screen.shows("done:0")
        await type_line(box, handle.pid, "grep -c inside:23 log | sed s/^/logged:/")
        await screen.shows("logged:1")


async def test_screen_opens_the_terminal_by_name_detaches_and_comes_back(box, folder):
    async with terminal(box, cwd=str(folder), envs={"SCREENDIR": str(folder / "screens")}) as (handle, screen):
        await type_line(box, handle.pid, "mkdir -m 700 screens; echo startup_message off > rc; screen -c rc -S first")
        # A shell of its own, with its own prompt.
        await screen.shows("$ ")
        await type_line(box, handle.pid, "kept=$((40 + 2)); echo window:$kept:$TERM")
        await screen.shows("window:42:screen")
        screen.text = ""
        await keys(box, handle, "\x01d")
        await screen.shows("detached from")
        await screen.shows("prompt> ")
        screen.text = ""
        await type_line(box, handle.pid, "screen -c rc -r first")
        # It draws what was there.
        await screen.shows("window:42:screen")
        await type_line(box, handle.pid, "echo again:$((kept + 1))")
        await screen.shows("again:43")
        await type_line(box, handle.pid, "exit")
        await screen.shows("screen is terminating")


async def test_vi_edits_a_file(box, folder):
    async with terminal(box, cwd=str(folder)) as (handle, screen):
        await type_line(box, handle.pid, "vi -u NONE -N -n -c 'set showmode' text")
        await screen.shows('"text" [New')
        await keys(box, handle, "i")
        await screen.shows("-- INSERT --")
        await keys(box, handle, "first line\rsecond line\x1b")
        screen.text = ""
        await keys(box, handle, ":wq\r")
        # A program that puts the terminal back as it was may throw away what was typed too early.
        await screen.shows("prompt> ")
        await type_line(box, handle.pid, "echo closed:$?")
        await screen.shows("closed:0")
        assert (folder / "text").read_text() == "first line\nsecond line\n"
        assert os.stat(folder / "text").st_uid == 1000


async def test_the_shell_has_job_control(box):
    # The program itself says that it is in front: the shell hands the terminal over before it continues a job.
    job = (
        "python3 -c 'import os, signal, time; "
        'signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"cont:%d" % (2 + 2))); '
        'os.write(1, b"go:%d" % (1 + 1)); [time.sleep(0.05) for _ in iter(int, 1)]\''
    )
    async with terminal(box) as (handle, screen):
        await type_line(box, handle.pid, job)
        await screen.shows("go:2")
        await keys(box, handle, "\x1a")
        await screen.shows("Stopped")
        await type_line(box, handle.pid, "bg")
        await screen.shows("cont:4")
        await type_line(box, handle.pid, "echo running:$(jobs -r | wc -l); kill %1; wait; echo left:$(jobs -r | wc -l)")
        await screen.shows("left:0")
        assert "running:1" in screen.text
        screen.text = ""
        await type_line(box, handle.pid, job)
        await screen.shows("go:2")
        await keys(box, handle, "\x1a")
        await screen.shows("Stopped")
        await type_line(box, handle.pid, "fg")
        await screen.shows("cont:4")
        await keys(box, handle, "\x03")
        await type_line(box, handle.pid, "echo status:$?")
        await screen.shows("status:130")
        assert "no job control" not in screen.text


async def test_a_terminal_reopens_itself_by_name(box):
    async with terminal(box) as (handle, screen):
        await type_line(box, handle.pid, "stat -c 'owner:%U:%G:%a' $(tty); echo name:$((3 + 4)) > $(tty)")
        await screen.shows("owner:user:tty:620")
        await screen.shows("name:7")
        await type_line(box, handle.pid, "echo direct:$((4 + 4)) > /dev/tty")
        await screen.shows("direct:8")


async def test_megabytes_are_typed_while_everything_comes_back(box):
    lines = "".join(f"{number:07} of a line that goes in and out\n" for number in range(30_000))
    async with terminal(box) as (handle, screen):
        await type_line(box, handle.pid, "stty raw; echo raw:$((5 + 5)); exec cat")
        await screen.shows("raw:10\n")
        screen.text = ""
        await asyncio.wait_for(box(box.pty.send_stdin, handle.pid, lines.encode()), 60)
        await screen.shows(lines[-60:])
        assert screen.text == lines
