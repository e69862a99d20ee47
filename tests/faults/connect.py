"""A small Connect client: JSON over HTTP/1.1, one connection for each stream, with ways to leave badly."""

import asyncio
import base64
import binascii
import dataclasses
import json
import os
import socket
import struct

# A failure limit, never a measure: nothing here takes a hundredth of it.
HANG_SECONDS = float(os.environ.get("HANG_SECONDS", 120))


class Refused(Exception):
    """A Connect error: what the agent answered."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self._length: int | None = None

    @classmethod
    async def open(cls, port: int, receive_buffer: int | None = None) -> "Connection":
        """A receive buffer makes a client that takes no more than about that much before it stalls, in bytes."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(HANG_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            return cls(*await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 18))
        except BaseException:
            sock.close()
            raise

    async def request(self, path: str, content_type: str, body: bytes, headers: dict[str, str]) -> int:
        """Sends a request; the status of the answer, whose body is to be read with `chunk`."""
        self.write_request(path, content_type, body, headers)
        await self.writer.drain()
        return await self.response()

    def write_request(self, path: str, content_type: str, body: bytes, headers: dict[str, str]) -> None:
        fields = {"Host": "localhost", "Content-Type": content_type, "Content-Length": str(len(body))} | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def response(self) -> int:
        async with asyncio.timeout(HANG_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        fields = {name.lower(): value for name, value in fields.items()}
        # Without a length the body is chunked.
        self._length = int(fields["content-length"]) if "content-length" in fields else None
        return int(status.split(" ")[1])

    async def chunk(self) -> bytes:
        """The next piece of the body that belongs to the last response; empty at its end."""
        async with asyncio.timeout(HANG_SECONDS):
            if self._length is not None:
                length, self._length = self._length, 0
                return await self.reader.readexactly(length)
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Leaves with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Stream:
    """The events of a Start or Connect call."""

    def __init__(self, connection: Connection):
        self.connection = connection
        self.ended = False
        self._buffer = bytearray()

    async def next(self) -> dict | None:
        """The next event, `None` after the last one; raises Refused and ConnectionError."""
        if self.ended:
            return None
        flags, length = struct.unpack(">BI", await self._read(5))
        payload = await self._read(length)
        if not flags & 2:
            return json.loads(payload)["event"]
        self.ended = True
        while await self.connection.chunk():
            pass
        error = json.loads(payload).get("error")
        if error:
            raise Refused(error.get("code", ""), error.get("message", ""))
        return None

    async def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                chunk = await self.connection.chunk()
            except (asyncio.IncompleteReadError, OSError) as error:
                raise ConnectionError(f"the stream was cut: {error!r}") from error
            if not chunk:
                raise ConnectionError("the stream ended without its last frame")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def leave(self) -> "Told":
        """Says that nothing follows and reads until the agent has closed: from then on it knows. Returns what came."""
        told = Told()
        self.connection.writer.write_eof()
        try:
            while (event := await self.next()) is not None:
                told.add(event)
        except (ConnectionError, Refused):
            pass
        self.connection.close()
        return told

    def close(self) -> None:
        self.connection.close()

    def reset(self) -> None:
        self.connection.reset()


@dataclasses.dataclass
class Told:
    """What a client has been told of a process."""

    stdout: bytearray = dataclasses.field(default_factory=bytearray)
    stderr: bytearray = dataclasses.field(default_factory=bytearray)
    pty: bytearray = dataclasses.field(default_factory=bytearray)
    end: dict | None = None

    def add(self, event: dict) -> None:
        if "data" in event:
            for name, text in event["data"].items():
                if name in ("stdout", "stderr", "pty"):
                    getattr(self, name).extend(binascii.a2b_base64(text))
        elif "end" in event:
            assert self.end is None, "two end events"
            self.end = event["end"]

    @property
    def status(self) -> str:
        assert self.end is not None, "no end event"
        exit_code, status = self.end.get("exitCode", 0), self.end["status"]
        # One truth, told three times.
        if self.end.get("exited", False):
            assert status == f"exit status {exit_code}", self.end
        else:
            assert exit_code == -1 and status.startswith("signal: "), self.end
        return status

    async def follow(self, stream: Stream) -> "Told":
        """Everything up to the end of the stream."""
        while (event := await stream.next()) is not None:
            self.add(event)
        stream.close()
        return self


class Client:
    """Calls the agent. Unary calls share one kept-alive connection; each stream has its own."""

    def __init__(self, port: int, user: str = ""):
        self.port = port
        self._headers = {"Connect-Protocol-Version": "1"}
        if user:
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
        self._kept: Connection | None = None
        self._turn = asyncio.Lock()

    async def call(self, method: str, message: dict, headers: dict[str, str] | None = None) -> dict:
        async with self._turn:
            if self._kept is None:
                self._kept = await Connection.open(self.port)
            try:
                return await self._call(self._kept, method, message, headers or {})
            except (OSError, EOFError, asyncio.CancelledError):
                self.close()
                raise

    async def _call(self, connection: Connection, method: str, message: dict, headers: dict[str, str]) -> dict:
        body = json.dumps(message).encode()
        path = f"/process.Process/{method}"
        status = await connection.request(path, "application/json", body, self._headers | headers)
        answer = b""
        while piece := await connection.chunk():
            answer += piece
        answer = json.loads(answer)
        if status != 200:
            raise Refused(answer["code"], answer.get("message", ""))
        return answer

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    async def stream(
        self, method: str, message: dict, headers: dict[str, str] | None = None, receive_buffer: int | None = None
    ) -> Stream:
        connection = await Connection.open(self.port, receive_buffer)
        try:
            await self.send(connection, method, message, headers or {})
            status = await connection.response()
        except BaseException:
            connection.close()
            raise
        assert status == 200, status
        return Stream(connection)

    async def send(self, connection: Connection, method: str, message: dict, headers: dict[str, str]) -> None:
        """Only sends the request of a stream."""
        payload = json.dumps(message).encode()
        body = struct.pack(">BI", 0, len(payload)) + payload
        path = f"/process.Process/{method}"
        connection.write_request(path, "application/connect+json", body, self._headers | headers)
        await connection.writer.drain()

    async def start(self, program: dict, headers: dict[str, str] | None = None) -> tuple[Stream, int]:
        """The stream behind its start event, and the pid."""
        return await self._started(await self.stream("Start", program, headers))

    async def connect(self, pid: int, headers: dict[str, str] | None = None) -> Stream:
        stream, told = await self._started(await self.stream("Connect", {"process": {"pid": pid}}, headers))
        assert told == pid, (told, pid)
        return stream

    async def _started(self, stream: Stream) -> tuple[Stream, int]:
        try:
            event = await stream.next()
        except BaseException:
            stream.close()
            raise
        assert event is not None and "start" in event, event
        return stream, event["start"]["pid"]

    async def run(self, program: dict, headers: dict[str, str] | None = None) -> Told:
        """Starts and follows to the end."""
        stream, _ = await self.start(program, headers)
        return await Told().follow(stream)

    async def signal(self, pid: int, number: int) -> None:
        await self.call("SendSignal", {"process": {"pid": pid}, "signal": number})

    async def write(self, pid: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        text = base64.b64encode(data).decode()
        await self.call("SendInput", {"process": {"pid": pid}, "input": {"stdin": text}}, headers)

    async def pids(self) -> list[int]:
        return [process["pid"] for process in (await self.call("List", {})).get("processes", [])]


def command(cmd: str, *args: str, stdin: bool = False, **more: object) -> dict:
    """A Start request; `more` are its other fields (tag, pty) and those of its process (envs, cwd)."""
    process = {"cmd": cmd, "args": list(args)}
    process |= {name: more.pop(name) for name in ("envs", "cwd") if name in more}
    return {"process": process, "stdin": stdin} | more


def sh(script: str, *args: str, stdin: bool = False, **more: object) -> dict:
    return command("/bin/sh", "-c", script, "sh", *args, stdin=stdin, **more)
