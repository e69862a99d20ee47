#!/usr/bin/env python3
"""Cell: `1+1` through the code port against a bare ZeroMQ client on the same kernel, interleaved.

Runs beside an agent on the default ports (see tests/harness/with_agent.py). Both clients are Python with raw sockets;
the floor signs and sends its own messages and waits for the reply and for `idle`, as the agent does.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import pathlib
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
        for socket, name in ((self.shell, "shell"), (self.iopub, "iopub")):
            socket.setsockopt(zmq.RCVTIMEO, 20_000)
            separator = "-" if connection["transport"] == "ipc" else ":"
            socket.connect(f"{connection['transport']}://{connection['ip']}{separator}{connection[f'{name}_port']}")
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
        self.connection = http.client.HTTPConnection("localhost", 49999, timeout=20)

    def run(self, code: str) -> None:
        self.connection.request("POST", "/execute", json.dumps({"code": code}), {"Content-Type": "application/json"})
        body = self.connection.getresponse().read()
        assert b'"text": "2"' in body, body


def timed(client) -> float:
    began = time.perf_counter()
    client.run("1+1")
    return (time.perf_counter() - began) * 1000


def main() -> None:
    port, bare = CodePort(), Bare(connection_file())
    samples = [(timed(port), timed(bare)) for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
    ours, floor = (statistics.median(column) for column in zip(*samples))
    print(
        f"{'cell: 1+1 through the code port':45} {ours * 1000:9.0f} µs | "
        f"bare ZeroMQ client, same kernel: {floor * 1000:.0f} µs | ratio {ours / floor:.2f}"
    )


if __name__ == "__main__":
    main()
