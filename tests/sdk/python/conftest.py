"""The published Python SDKs in debug mode against the agent on this machine.

Every test that takes `box` runs twice: with the synchronous and with the asynchronous client.
"""

import asyncio
import inspect
import itertools
import os
import pathlib
import shutil

import pytest
from e2b_code_interpreter import AsyncSandbox, Sandbox

HOME = pathlib.Path("/home/user")
_numbers = itertools.count(1)


class Box:
    """One client. `await box(box.files.read, "x")` calls either kind of method."""

    def __init__(self, sandbox, asynchronous: bool):
        self.sandbox = sandbox
        self.asynchronous = asynchronous
        self.commands, self.files, self.pty = sandbox.commands, sandbox.files, sandbox.pty

    async def __call__(self, method, *args, **kwargs):
        if inspect.iscoroutinefunction(method):
            return await method(*args, **kwargs)
        return await asyncio.to_thread(method, *args, **kwargs)

    async def run(self, command: str, **kwargs):
        """A command in the foreground or, with background=True, its handle."""
        return await self(self.commands.run, command, **kwargs)

    async def code(self, code: str, **kwargs):
        """A cell."""
        return await self(self.sandbox.run_code, code, **kwargs)


@pytest.fixture(params=["sync", "async"])
async def box(request) -> Box:
    # `debug` explicitly: older releases take it from the argument only when they create a sandbox.
    if request.param == "sync":
        return Box(await asyncio.to_thread(Sandbox.create, debug=True), asynchronous=False)
    return Box(await AsyncSandbox.create(debug=True), asynchronous=True)


@pytest.fixture
def folder():
    """A new directory in the user's home, owned by the user; the tests run on the agent's machine as root."""
    path = HOME / f"test-{next(_numbers)}"
    path.mkdir()
    os.chown(path, 1000, 1000)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def context(box):
    """A code context of the test's own, so that tests do not share state."""
    context = await box(box.sandbox.create_code_context, cwd="/home/user")
    yield context
    await box(box.sandbox.remove_code_context, context)


@pytest.fixture(autouse=True, scope="session")
def agent_survives():
    """No test may end the agent."""
    pid = int(os.environ["ENVD_PID"])
    yield
    os.kill(pid, 0)
