#!/usr/bin/env python3
"""Cell: `1+1` through the code port against a bare ZeroMQ client on the same kernel, interleaved.

Runs beside an agent on the default ports (see tests/harness/with_agent.py). Both clients are Python, ours over a raw
socket; the floor signs and sends its own messages and waits for the reply and for `idle`, as the agent does.
"""

import datetime
import hashlib
import hmac
import json
import pathlib
import socket
import statistics
import time
import uuid

import zmq

ROUNDS, WARM_UP = 200, 20


def connection_file() -> dict:
    """The connection of the first kernel that the agent has started, from the kernel's own arguments."""
    for path in sorted(pathlib.Path("/proc").glob("[0-9]*/cmdline"), key=lambda p: int(p.parent.name)):
        try:
            arguments = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if any("ipykernel" in a for a in arguments) and "-f" in arguments:
            return json.loads(pathlib.Path(arguments[arguments.index("-f") + 1]).read_text())
    raise SystemExit("cell: the agent has started no kernel")


class Bare:
    """The least that runs a cell: one DEALER, one SUB."""

    def __init__(self, connection: dict):
        self.key = connection["key"].encode()
        self.session = uuid.uuid4().hex
        context = zmq.Context()
        self.shell, self.iopub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        self.iopub.setsockopt(zmq.SUBSCRIBE, b"")
        for channel, name in ((self.shell, "shell"), (self.iopub, "iopub")):
            channel.setsockopt(zmq.RCVTIMEO, 20_000)
            separator = "-" if connection["transport"] == "ipc" else ":"
            channel.connect(f"{connection['transport']}://{connection['ip']}{separator}{connection[f'{name}_port']}")
        time.sleep(0.3)  # A subscription has no acknowledgement; the warm-up rounds would hang without it.

    def run(self, code: str) -> None:
        identity = uuid.uuid4().hex
        date = datetime.datetime.now(datetime.timezone.utc).isoformat()
        header = {"msg_id": identity, "session": self.session, "username": "bench", "date": date}
        header |= {"msg_type": "execute_request", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        signature = hmac.new(self.key, b"".join(parts), hashlib.sha256).hexdigest().encode()
        self.shell.send_multipart([b"<IDS|MSG>", signature, *parts])
        while True:
            frames = self.iopub.recv_multipart()
            message = frames[frames.index(b"<IDS|MSG>") + 2 :]
            if json.loads(message[1]).get("msg_id") != identity:
                continue
            if json.loads(message[0])["msg_type"] == "status" and json.loads(message[3])["execution_state"] == "idle":
                break
        self.shell.recv_multipart()


class CodePort:
    """POST /execute on one kept-alive connection."""

    def __init__(self):
        self.connection = socket.create_connection(("localhost", 49999), timeout=20)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self, code: str) -> None:
        body = json.dumps({"code": code}).encode()
        head = "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            piece = self.connection.recv(65536)
            assert piece, answer
            answer += piece
        assert b'"text": "2"' in answer, answer


def timed(client) -> float:
    began = time.perf_counter()
    client.run("1+1")
    return (time.perf_counter() - began) * 1000


def main() -> None:
    port, bare = CodePort(), Bare(connection_file())
    samples = [(timed(port), timed(bare)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
    ours, floor = (statistics.median(column) for column in zip(*samples))
    print(
        f"{'cell: 1+1 through the code port':46} {ours * 1000:7.0f} µs    "
        f"bare ZeroMQ client, same kernel: {floor * 1000:.0f} µs, ratio {ours / floor:.2f}"
    )


if __name__ == "__main__":
    main()
