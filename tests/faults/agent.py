"""The agent under test: the release binary, seen from outside through /proc."""

import asyncio
import os
import pathlib
import resource
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from connect import HANG_SECONDS, Client

# The path of the binary as the sandbox sees it; tests/harness/suites.py sets it.
BINARY = os.environ["ENVD_BINARY"]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Agent:
    """One agent on a free loopback port, without kernels."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="envd-faults-")
        self.log_path = pathlib.Path(self.folder.name) / "log"
        self.port = free_port()
        kernels = pathlib.Path(self.folder.name) / "kernels"
        kernels.mkdir()
        command = [BINARY, "--user", "user", "--kernel-path", str(kernels), "--workdir", "/tmp", "--log", "info"]
        command += ["--listen", f"tcp://127.0.0.1:{self.port}", "--code-listen", f"tcp://127.0.0.1:{free_port()}"]
        with self.log_path.open("wb") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.pid = self.child.pid
        self.proc = pathlib.Path(f"/proc/{self.pid}")

    def client(self, user: str = "") -> Client:
        return Client(self.port, user)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def alive(self) -> bool:
        return self.child.poll() is None

    def limit(self, which: int, number: int) -> None:
        """Sets a limit of the running agent, which its new children inherit. It can be taken back."""
        _, hard = resource.prlimit(self.pid, which)
        resource.prlimit(self.pid, which, (number, hard))

    def descriptors(self) -> int:
        return len(os.listdir(self.proc / "fd"))

    def threads(self) -> int:
        return len(os.listdir(self.proc / "task"))

    def pss_kib(self) -> int:
        for line in (self.proc / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise AssertionError("no Pss in smaps_rollup")

    def address_space_bytes(self) -> int:
        return int((self.proc / "statm").read_text().split()[0]) * resource.getpagesize()

    def bytes_read(self) -> int:
        """What all its read(2) calls have returned."""
        return int((self.proc / "io").read_text().split("rchar: ")[1].split()[0])

    def cpu_seconds(self) -> float:
        user, system = (self.proc / "stat").read_text().rsplit(") ", 1)[1].split()[11:13]
        return (int(user) + int(system)) / TICKS_PER_SECOND

    def children(self) -> dict[int, str]:
        """Its children with their state, as in proc(5)."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, parent = (entry / "stat").read_text().rsplit(") ", 1)[1].split()[:2]
                except OSError:
                    continue  # It has ended meanwhile.
                if int(parent) == self.pid:
                    found[int(entry.name)] = state
        return found

    def holdings(self) -> dict[str, object]:
        """What has to be as before once nobody is connected and nothing runs."""
        return {"descriptors": self.descriptors(), "threads": self.threads(), "children": self.children()}

    def stop(self) -> None:
        """Ends it the polite way; raises if it has not lived until now or ends otherwise than well."""
        try:
            status = self.child.poll()
            if status is None:
                self.child.send_signal(signal.SIGTERM)
                status = self.child.wait(HANG_SECONDS)
            else:
                status = f"{status} by itself"
            log = self.log()
            assert status == 0, f"the agent ended with status {status}; its log ends with {log[-3000:]}"
            assert "panicked" not in log, log[-3000:]
        finally:
            self.end()

    def end(self) -> None:
        """Ends it whatever its state. Idempotent."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.folder.cleanup()


class AgentCase(unittest.IsolatedAsyncioTestCase):
    """A test with an agent of its own, which has to live to the end and to leave nothing behind."""

    async def asyncSetUp(self) -> None:
        # unittest switches it on; it makes each step of a coroutine several times as dear.
        asyncio.get_running_loop().set_debug(False)
        self.agent = Agent()
        self.addCleanup(self.agent.stop)
        self.client = self.agent.client()
        self.addCleanup(self.client.close)
        await until(lambda: answers(self.agent.port) or not self.agent.alive(), "an answer on /health")
        # The agent closes the connections that asked.
        await asyncio.sleep(0.1)
        self.before = self.agent.holdings()

    async def assert_as_before(self) -> None:
        """Nothing is left of what was done since the start: no table entry, descriptor, thread, child or zombie."""
        client = self.agent.client()
        try:
            # A client that was cut off in the middle of a start still gets its process.
            await until_async(lambda: is_empty(client), "an empty list")
        finally:
            client.close()
        try:
            await until(self.holds_no_more_than_before, "the state of the start")
        except TimeoutError:
            self.assertEqual(self.agent.holdings(), self.before)

    def holds_no_more_than_before(self) -> bool:
        now = self.agent.holdings()
        return now["children"] == {} and all(now[name] <= self.before[name] for name in ("descriptors", "threads"))

    async def kill_all(self, pids: list[int]) -> None:
        """SIGKILL through the agent, and the end of each."""
        for pid in pids:
            stream = await self.client.connect(pid)
            await self.client.signal(pid, signal.SIGKILL)
            while await stream.next() is not None:
                pass
            stream.close()


async def is_empty(client: Client) -> bool:
    return not await client.pids()


async def until(holds, what: str) -> None:
    """Waits for something that the kernel tells nobody about."""
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {HANG_SECONDS} s for {what}")
        await asyncio.sleep(0.02)


async def until_async(holds, what: str) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {HANG_SECONDS} s for {what}")
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(32).startswith(b"HTTP/1.1 204")
    except OSError:
        return False
