"""Clients that stop, hang up halfway, reset or never finish their request: the others notice nothing."""

import asyncio
import os
import resource
import signal
import struct
import subprocess
import sys
import textwrap

from agent import AgentCase, until
from connect import Connection, Refused, Told, command, sh

TOTAL = 16 << 20
SLOW_CLIENTS = 500

# Reads a stream until its connection ends, and prints how much came.
READER = textwrap.dedent(
    """
    import socket, sys
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    connection.sendall(sys.stdin.buffer.read())
    total, last = 0, b""
    print("sent", flush=True)
    while True:
        piece = connection.recv(65536)
        total += len(piece)
        last = (last + piece)[-4096:]
        if not piece or last.endswith(b"\\r\\n0\\r\\n\\r\\n"):
            break
    print(total, "end" if b'"exit status 0"' in last else last[-300:], flush=True)
    """
)


class BadClients(AgentCase):
    async def others_are_served(self) -> None:
        """Everything that another client may want, now."""
        client = self.agent.client()
        told = await client.run(sh("head -c 1000000 /dev/zero; exit 5"))
        self.assertEqual((len(told.stdout), told.status), (1_000_000, "exit status 5"))
        stream, pid = await client.start(command("cat", stdin=True))
        await client.write(pid, b"echoed")
        await client.call("CloseStdin", {"process": {"pid": pid}})
        told = await Told().follow(stream)
        self.assertEqual((bytes(told.stdout), told.status), (b"echoed", "exit status 0"))
        client.close()

    def request(self, method: str, payload: bytes, length: int | None = None) -> bytes:
        """A request for a stream, as bytes; the length is what the head promises."""
        body = struct.pack(">BI", 0, len(payload) if length is None else length) + payload
        head = f"POST /process.Process/{method} HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Type: application/connect+json\r\n"
        return head.encode() + f"Content-Length: {5 + (length or len(payload))}\r\n\r\n".encode() + body

    async def test_a_stopped_client_holds_up_only_itself_and_misses_nothing(self):
        body = b'{"process":{"cmd":"head","args":["-c","%d","/dev/zero"]},"stdin":false,"tag":"stopped"}' % TOTAL
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(self.agent.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.addCleanup(reader.kill)
        reader.stdin.write(self.request("Start", body))
        reader.stdin.close()
        self.assertEqual(await asyncio.to_thread(reader.stdout.readline), b"sent\n")
        reader.send_signal(signal.SIGSTOP)
        await self.others_are_served()
        reader.send_signal(signal.SIGCONT)
        line = await asyncio.to_thread(reader.stdout.readline)
        self.assertEqual(await asyncio.to_thread(reader.wait), 0)
        reader.stdout.close()
        count, verdict = line.decode().split(" ", 1)
        self.assertEqual(verdict, "end\n")
        # As base64.
        self.assertGreater(int(count), TOTAL * 4 // 3)
        await self.assert_as_before()

    async def test_resets_in_the_middle_of_a_frame_leave_nothing_behind(self):
        whole = self.request("Start", b'{"process":{"cmd":"true"},"stdin":false}')
        for cut in range(1, len(whole), 3):
            connection = await Connection.open(self.agent.port)
            connection.writer.write(whole[:cut])
            await connection.writer.drain()
            connection.reset()
        await self.others_are_served()
        # And in the middle of what the agent sends.
        for _ in range(20):
            stream, pid = await self.client.start(sh("head -c 3000000 /dev/zero; exit 9"))
            self.assertIn("data", await stream.next())
            stream.reset()
            told = await Told().follow(await self.client.connect(pid))
            self.assertEqual(told.status, "exit status 9")
        self.client.close()
        await self.assert_as_before()

    async def test_half_closed_connections_leave_nothing_behind(self):
        """Half a request, a whole one, and nothing at all, each followed by an end of file."""
        whole = self.request("Start", b'{"process":{"cmd":"true"},"stdin":false}')
        for request in (whole[:40], whole[:-1], whole, b"") * 10:
            connection = await Connection.open(self.agent.port)
            connection.writer.write(request)
            connection.writer.write_eof()
            async with asyncio.timeout(120):
                await connection.reader.read()
            connection.close()
        await self.others_are_served()
        await self.assert_as_before()

    async def test_five_hundred_slow_clients_leave_room_for_others(self):
        self.raise_descriptor_limits()
        whole = self.request("Start", b'{"process":{"cmd":"true"},"stdin":false}')
        slow = []
        for number in range(SLOW_CLIENTS):
            connection = await Connection.open(self.agent.port)
            connection.writer.write(whole[: number % len(whole)])
            slow.append(connection)
        for _ in range(3):
            await self.others_are_served()
            for number, connection in enumerate(slow):
                sent = number % len(whole)
                connection.writer.write(whole[sent : sent + 1] if sent + 1 < len(whole) else b"")
        await until(lambda: self.agent.descriptors() > SLOW_CLIENTS, "all slow clients to be accepted")
        await self.others_are_served()
        self.assertLess(self.agent.pss_kib(), 64 * 1024)
        for connection in slow:
            connection.close()
        await self.assert_as_before()

    async def test_a_frame_that_announces_a_gigabyte_is_refused_at_once(self):
        for length in (1 << 30, (1 << 32) - 1):
            connection = await Connection.open(self.agent.port)
            connection.writer.write(self.request("Start", b"{}", length))
            self.assertEqual(await connection.response(), 200)
            frame = await connection.chunk()
            self.assertEqual(frame[0], 2)
            self.assertIn(b'"code":"resource_exhausted"', frame)
            connection.close()
        self.assertLess(self.agent.pss_kib(), 32 * 1024)
        await self.others_are_served()
        await self.assert_as_before()

    async def test_clients_that_leave_while_their_input_waits_let_others_write(self):
        """Forty clients offer a program more than its pipe takes, and leave. The next one still gets through."""
        subprocess.run(["mkfifo", "-m", "666", "/tmp/go"], check=True)
        self.addCleanup(os.unlink, "/tmp/go")
        stream, pid = await self.client.start(sh("read go < /tmp/go; cat | wc -c", stdin=True))
        self.client.close()
        message = b'{"process":{"pid":%d},"input":{"stdin":"%s"}}' % (pid, b"QUFB" * 100_000)
        head = b"POST /process.Process/SendInput HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        request = head + b"Content-Length: %d\r\n\r\n" % len(message) + message
        for _ in range(40):
            connection = await Connection.open(self.agent.port)
            connection.writer.write(request)
            await connection.writer.drain()
            connection.reset()
        await self.others_are_served()
        # More than a pipe takes also after it has grown.
        with self.assertRaises(Refused) as raised:
            await self.client.write(pid, b"x" * 1_000_000, {"Connect-Timeout-Ms": "200"})
        self.assertEqual(raised.exception.code, "deadline_exceeded")
        await self.client.call("CloseStdin", {"process": {"pid": pid}})
        await asyncio.to_thread(subprocess.run, ["sh", "-c", "echo go > /tmp/go"], check=True)
        told = await Told().follow(stream)
        self.assertEqual(told.status, "exit status 0")
        # What the pipe took at once, from the clients that left or from the last one.
        self.assertGreaterEqual(int(told.stdout), 65536)
        self.client.close()
        await self.assert_as_before()

    def raise_descriptor_limits(self) -> None:
        wanted = SLOW_CLIENTS * 2
        for pid in (0, self.agent.pid):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            if soft < wanted:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
