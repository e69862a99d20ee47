"""Waiting for something to become true, with a failure limit instead of a fixed sleep."""

import asyncio
import time

LIMIT_SECONDS = 60


async def until(condition, what: str):
    """Polls until the condition gives something true and returns it."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {what}"
        await asyncio.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    """Whether the process exists, as /proc tells; a zombie counts as alive: nobody has reaped it."""
    try:
        with open(f"/proc/{pid}/stat"):
            return True
    except FileNotFoundError:
        return False
