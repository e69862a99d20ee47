"""Programs that do what programs should not do."""

import asyncio
import fcntl
import os
import resource
import signal
import tempfile

from agent import AgentCase, until
from connect import Refused, Told, command, sh

TOGETHER = 1000
# Pipes, process descriptors and the connection of each.
DESCRIPTORS_EACH = 8


class OddPrograms(AgentCase):
    async def test_a_program_that_closes_everything_keeps_its_status(self):
        told = await self.client.run(sh("exec 0<&- 1>&- 2>&-; sleep 0.3; exit 7"))
        self.assertEqual((bytes(told.stdout), told.status), (b"", "exit status 7"))
        told = await self.client.run(sh("echo before; exec 0<&- 1>&- 2>&-; kill -TERM $$; sleep 1000"))
        self.assertEqual((bytes(told.stdout), told.status), (b"before\n", "signal: terminated"))
        await self.done()

    async def test_a_daemon_that_holds_the_pipe_keeps_the_stream_until_it_ends_or_somebody_kills(self):
        daemon = "(setsid sh -c 'setsid sleep 1000 & echo $!; wait' &); exit 3"
        stream, pid = await self.client.start(sh(daemon))
        told = Told()
        while not told.stdout.endswith(b"\n"):
            told.add(await stream.next())
        # The process itself is gone, and reaped, and its stream stays.
        await until(lambda: self.agent.children() == {}, "the process to be reaped")
        self.assertEqual(await self.client.pids(), [pid])
        os.kill(int(told.stdout), signal.SIGKILL)
        await told.follow(stream)
        self.assertEqual(told.status, "exit status 3")

        stream, pid = await self.client.start(sh(daemon))
        told = Told()
        while not told.stdout.endswith(b"\n"):
            told.add(await stream.next())
        await until(lambda: self.agent.children() == {}, "the process to be reaped")
        await self.client.signal(pid, signal.SIGKILL)
        await told.follow(stream)
        self.assertEqual(told.status, "exit status 3")
        os.kill(int(told.stdout), signal.SIGKILL)
        await self.done()

    async def test_a_program_that_asks_to_be_traced_can_be_killed_and_burns_nothing(self):
        """PTRACE_TRACEME makes the agent the tracer, which never asked for it."""
        script = "import ctypes, os, signal; ctypes.CDLL(None).ptrace(0, 0, 0, 0); print('traced', flush=True); "
        script += "os.kill(os.getpid(), signal.SIGUSR1)"
        stream, pid = await self.client.start(command("/usr/bin/python3", "-c", script))
        told = Told()
        while told.stdout != b"traced\n":
            told.add(await stream.next())
        self.assertEqual((await self.client.run(sh("exit 2"))).status, "exit status 2")
        await self.client.signal(pid, signal.SIGKILL)
        await told.follow(stream)
        self.assertIn(told.status, ("signal: killed", "signal: user defined signal 1"))
        await self.done()

    async def test_a_stopped_program_ends_at_its_time_limit(self):
        with self.assertRaises(Refused) as raised:
            await self.client.run(sh("kill -STOP $$; echo never", tag="stopped"), {"Connect-Timeout-Ms": "1000"})
        self.assertEqual(raised.exception.code, "deadline_exceeded")
        told = await Told().follow(await self.client.stream("Connect", {"process": {"tag": "stopped"}}))
        self.assertEqual((bytes(told.stdout), told.status), (b"", "signal: killed"))
        await self.done()

    async def test_a_program_that_ignores_sigterm_loses_no_output_after_it(self):
        script = "trap '' TERM; echo ready; read go; head -c 300000 /dev/zero; exit 9"
        stream, pid = await self.client.start(sh(script, stdin=True))
        told = Told()
        while told.stdout != b"ready\n":
            told.add(await stream.next())
        for _ in range(50):
            await self.client.signal(pid, signal.SIGTERM)
        await self.client.write(pid, b"go\n")
        await told.follow(stream)
        self.assertEqual((len(told.stdout), told.status), (6 + 300_000, "exit status 9"))
        await self.done()

    async def test_arguments_and_environments_at_the_kernels_limits(self):
        """What execve(2) takes arrives whole; what it does not take is an error that says so."""
        arguments = ["x" * 100_000] * 11
        told = await self.client.run(sh('printf %s "$@" | wc -c', *arguments))
        self.assertEqual((int(told.stdout), told.status), (1_100_000, "exit status 0"))
        for too_long in (["x" * (1 << 20)], ["x" * 100_000] * 100):
            with self.assertRaises(Refused) as raised:
                await self.client.run(command("true", *too_long))
            self.assertEqual(raised.exception.code, "invalid_argument")
            self.assertIn("argument list too long", raised.exception.message)
        variables = {f"V{number}": "" for number in range(100_000)}
        told = await self.client.run(command("/usr/bin/env", envs=variables))
        found = [line for line in bytes(told.stdout).split(b"\n") if line.startswith(b"V") and line.endswith(b"=")]
        self.assertEqual((len(set(found)), told.status), (100_000, "exit status 0"))
        with self.assertRaises(Refused) as raised:
            await self.client.run(command("true", envs={f"V{number}": "x" * 50 for number in range(100_000)}))
        self.assertIn("argument list too long", raised.exception.message)
        self.assertEqual((await self.client.run(sh("exit 2"))).status, "exit status 2")
        await self.done()

    async def test_a_thousand_programs_write_at_once(self):
        """With a thousand tags, each found by its own; every byte arrives and every status is true."""
        self.raise_descriptor_limits()
        size = 100_000
        with tempfile.NamedTemporaryFile(dir="/tmp") as gate:
            os.chmod(gate.name, 0o666)
            fcntl.flock(gate, fcntl.LOCK_EX)
            script = f"echo; flock -s {gate.name} true; head -c {size} /dev/zero; exit $1"
            started = []
            for number in range(TOGETHER):
                started.append(await self.client.start(sh(script, str(number % 256), tag=f"tag-{number}")))
            for number in range(0, TOGETHER, 50):
                stream = await self.client.stream("Connect", {"process": {"tag": f"tag-{number}"}})
                self.assertEqual((await stream.next())["start"]["pid"], started[number][1])
                stream.close()
            self.assertEqual(len(await self.client.pids()), TOGETHER)
            threads = self.agent.threads()
            fcntl.flock(gate, fcntl.LOCK_UN)
            told = await asyncio.gather(*(Told().follow(stream) for stream, _ in started))
        for number, each in enumerate(told):
            self.assertEqual((len(each.stdout), each.status), (1 + size, f"exit status {number % 256}"))
        self.assertLess(threads, 16, "threads for each process")
        await self.done()

    async def test_terminals_that_nobody_reads_or_that_read_nothing_hold_up_nobody(self):
        stream, pid = await self.client.start(sh("stty raw -echo; echo ready; exec sleep 1000", pty={}))
        told = Told()
        while b"ready" not in told.pty:
            told.add(await stream.next())
        with self.assertRaises(Refused) as raised:
            message = {"process": {"pid": pid}, "input": {"pty": "QUFB" * 300_000}}
            await self.client.call("SendInput", message, {"Connect-Timeout-Ms": "300"})
        self.assertEqual(raised.exception.code, "deadline_exceeded")
        for number in range(20):
            told = await self.client.run(sh(f"stty size; exit {number}", pty={"size": {"cols": 91, "rows": 17}}))
            self.assertEqual((bytes(told.pty), told.status), (b"17 91\r\n", f"exit status {number}"))
        await self.client.signal(pid, signal.SIGKILL)
        self.assertEqual((await Told().follow(stream)).status, "signal: killed")
        await self.done()

    async def done(self) -> None:
        self.client.close()
        await self.assert_as_before()

    def raise_descriptor_limits(self) -> None:
        wanted = TOGETHER * DESCRIPTORS_EACH
        for pid in (0, self.agent.pid):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            if soft < wanted:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
