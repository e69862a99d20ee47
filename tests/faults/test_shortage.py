"""An agent that runs out of descriptors, processes or memory says so, goes on, and recovers."""

import asyncio
import gzip
import os
import resource
import signal
import subprocess
import time

from agent import Agent, AgentCase, answers, until
from connect import Connection, Refused, Told, command, sh

DESCRIPTORS = 64
PROCESSES = 20
# An account of its own: the limit counts all processes of a user, also those of other sandboxes on this machine.
ACCOUNT, ACCOUNT_ID = "faults", 48_213


def add_account() -> None:
    """In the sandbox's private copies."""
    for path, line in (
        ("/etc/passwd", f"{ACCOUNT}:x:{ACCOUNT_ID}:{ACCOUNT_ID}::/tmp:/bin/sh\n"),
        ("/etc/group", f"{ACCOUNT}:x:{ACCOUNT_ID}:\n"),
    ):
        with open(path, "r+", encoding="utf-8") as file:
            if line not in file.read():
                file.write(line)


def end_account() -> None:
    """Ends every process of the account; the namespace bounds what kill(2) reaches."""
    if (child := os.fork()) == 0:
        try:
            os.setresuid(ACCOUNT_ID, ACCOUNT_ID, ACCOUNT_ID)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


class Descriptors(AgentCase):
    async def fill(self) -> list[int]:
        """Starts programs that nobody listens to until there is no descriptor left for another."""
        pids = []
        while len(pids) < DESCRIPTORS:
            try:
                stream, pid = await self.client.start(command("sleep", "1000"))
            except Refused as refused:
                self.assertEqual(refused.code, "internal", refused)
                self.assertIn("too many open files", refused.message.lower())
                return pids
            except ConnectionError:
                continue
            pids.append(pid)
            await stream.leave()
        self.fail("no limit was reached")

    async def test_starts_fail_with_the_cause_and_succeed_again(self):
        # Kept from before the shortage.
        self.assertEqual(await self.client.pids(), [])
        self.agent.limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
        for _ in range(3):
            pids = await self.fill()
            self.assertGreater(len(pids), 5)
            self.assertEqual(sorted(await self.client.pids()), sorted(pids))
            # A terminal needs descriptors too.
            with self.assertRaises(Refused) as raised:
                while True:
                    stream, pid = await self.client.start(command("sleep", "1000", pty={}))
                    pids.append(pid)
                    await stream.leave()
            self.assertEqual(raised.exception.code, "internal")
            await self.end(pids)
            told = await self.client.run(sh("head -c 500000 /dev/zero; exit 3"))
            self.assertEqual((len(told.stdout), told.status), (500_000, "exit status 3"))
        self.client.close()
        await self.assert_as_before()

    async def end(self, pids: list[int]) -> None:
        for pid in pids:
            await self.client.signal(pid, signal.SIGKILL)
        for pid in pids:
            told = await Told().follow(await self.client.connect(pid))
            self.assertEqual(told.status, "signal: killed")

    async def test_connections_that_cannot_be_accepted_wait_and_burn_nothing(self):
        self.assertEqual(await self.client.pids(), [])
        pids = [(await self.client.start(command("sleep", "1000")))[1]]
        self.agent.limit(resource.RLIMIT_NOFILE, self.agent.descriptors() + 3)
        crowd = [await Connection.open(self.agent.port) for _ in range(50)]
        for connection in crowd:
            connection.writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await until(lambda: "cannot accept connections for now" in self.agent.log(), "a line in the log")
        begun, cpu = time.monotonic(), self.agent.cpu_seconds()
        # Who has a connection is served all the while.
        for _ in range(20):
            self.assertEqual(await self.client.pids(), pids)
            await asyncio.sleep(0.1)
        share = (self.agent.cpu_seconds() - cpu) / (time.monotonic() - begun)
        self.assertLess(share, 0.5, "the agent spins")
        # As places become free, everybody in the queue is served.
        for connection in crowd:
            self.assertEqual(await connection.response(), 204)
            connection.close()
        self.agent.limit(resource.RLIMIT_NOFILE, 1000)
        await self.kill_all(pids)
        self.client.close()
        await until(lambda: answers(self.agent.port), "an answer on /health")
        await self.assert_as_before()


class Processes(AgentCase):
    async def asyncSetUp(self) -> None:
        add_account()
        self.addCleanup(end_account)
        await super().asyncSetUp()
        self.account = self.agent.client(ACCOUNT)
        self.addCleanup(self.account.close)

    async def test_starts_fail_with_the_cause_and_succeed_again(self):
        self.agent.limit(resource.RLIMIT_NPROC, PROCESSES)
        for _ in range(3):
            streams = []
            with self.assertRaises(Refused) as raised:
                # The kernel compares before it counts, so that it lets some more than the limit pass.
                while len(streams) < PROCESSES + 5:
                    streams.append(await self.account.start(command("sleep", "1000")))
            self.assertEqual(raised.exception.code, "internal")
            self.assertIn("resource temporarily unavailable", raised.exception.message.lower())
            self.assertGreaterEqual(len(streams), PROCESSES)
            # A user that is not at its limit is not concerned.
            self.assertEqual((await self.client.run(command("true"))).status, "exit status 0")
            for stream, pid in streams:
                await self.account.signal(pid, signal.SIGKILL)
                self.assertEqual((await Told().follow(stream)).status, "signal: killed")
            self.assertEqual((await self.account.run(sh("exit 4"))).status, "exit status 4")
        self.account.close()
        self.client.close()
        await self.assert_as_before()

    async def test_a_fork_bomb_hurts_only_its_own_user(self):
        self.agent.limit(resource.RLIMIT_NPROC, 100)
        stream, pid = await self.account.start(sh("bomb() { bomb | bomb & }; bomb; wait; exec sleep 1000"))
        for _ in range(10):
            told = await self.client.run(sh("head -c 300000 /dev/zero; exit 6"))
            self.assertEqual((len(told.stdout), told.status), (300_000, "exit status 6"))
        self.assertIn(pid, await self.client.pids())
        # Children of the bomb hold the pipes: only all of them together let the stream end.
        finished = asyncio.create_task(Told().follow(stream))
        while not finished.done():
            await asyncio.to_thread(end_account)
            await asyncio.wait([finished], timeout=0.05)
        self.assertEqual(finished.result().status, "signal: killed")
        self.account.close()
        self.client.close()
        await self.assert_as_before()


class Memory(AgentCase):
    """The limit is one of addresses, so that every allocation beyond it fails at once."""

    async def serves(self) -> None:
        told = await self.client.run(sh("head -c 500000 /dev/zero; exit 3"))
        self.assertEqual((len(told.stdout), told.status), (500_000, "exit status 3"))

    async def test_output_of_many_processes_fits_into_what_is_promised(self):
        """Forty endless programs whose clients have left: 64 MiB for their logs and what goes with them."""
        self.agent.limit(resource.RLIMIT_AS, self.agent.address_space_bytes() + (160 << 20))
        pids = []
        for _ in range(40):
            stream, pid = await self.client.start(command("yes"))
            pids.append(pid)
            await stream.leave()
        begun = self.agent.bytes_read()
        await until(lambda: self.agent.bytes_read() > begun + (512 << 20), "half a gigabyte of output")
        await self.serves()
        await self.kill_all(pids)
        self.client.close()
        await self.assert_as_before()

    async def test_without_memory_for_another_thread_calls_fail_and_succeed_again(self):
        self.agent.limit(resource.RLIMIT_AS, self.agent.address_space_bytes() + (1 << 20))
        failed = 0
        for _ in range(100):
            try:
                await self.client.run(command("true"))
            except Refused as refused:
                self.assertEqual(refused.code, "internal")
                failed += 1
        self.assertTrue(self.agent.alive())
        print(f"{failed} of 100 starts failed without memory", flush=True)
        self.agent.limit(resource.RLIMIT_AS, self.agent.address_space_bytes() + (1 << 30))
        await self.serves()
        self.client.close()
        await self.assert_as_before()

    async def test_a_request_beyond_memory_is_answered_or_the_log_says_what_was_missing(self):
        """Rust ends a program whose allocator fails. If that is how it goes, whoever looks must see why."""
        small = Agent()
        self.addCleanup(small.end)
        await until(lambda: answers(small.port), "an answer on /health")
        small.limit(resource.RLIMIT_AS, small.address_space_bytes() + (64 << 20))
        plain = b'{"process":{"pid":1},"input":{"stdin":"' + b"QUFB" * (20 << 20) + b'"}}'
        packed = gzip.compress(plain, 6)
        for body, headers in ((plain, {}), (packed, {"Content-Encoding": "gzip"})):
            connection = await Connection.open(small.port)
            try:
                await connection.request("/process.Process/SendInput", "application/json", body, headers)
            except (OSError, EOFError):
                pass
            connection.close()
            try:
                await asyncio.to_thread(small.child.wait, 1)
            except subprocess.TimeoutExpired:
                continue
            break
        if small.alive():
            small.limit(resource.RLIMIT_AS, small.address_space_bytes() + (1 << 30))
            client = small.client()
            self.assertEqual((await client.run(sh("exit 3"))).status, "exit status 3")
            client.close()
        else:
            print(f"the agent ended with {small.child.returncode}: {small.log()[-100:]}", flush=True)
            self.assertEqual(small.child.returncode, -signal.SIGABRT)
            self.assertRegex(small.log(), r"memory allocation of \d+ bytes failed")

    async def test_what_an_ended_process_was_started_with_does_not_pile_up(self):
        """Each start comes with a megabyte of arguments. None of them runs any more."""
        before = self.agent.pss_kib()
        arguments = ["x" * 100_000] * 10
        for _ in range(200):
            self.assertEqual((await self.client.run(command("true", *arguments))).status, "exit status 0")
        self.assertEqual(await self.client.pids(), [])
        growth = self.agent.pss_kib() - before
        print(f"PSS grew by {growth} KiB", flush=True)
        self.assertLess(growth, 64 * 1024)
        self.client.close()
        await self.assert_as_before()
