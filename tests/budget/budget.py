#!/usr/bin/env python3
"""Idle memory, threads, wake-ups and the end of the release binary, and random bytes against both ports.

    budget.py BINARY

Runs an agent of its own without kernels on two free loopback ports. Prints every figure with its limit; the exit status
is 1 if a limit is broken or the agent does not survive. SEED repeats a run of the random part.
"""

import os
import pathlib
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

MAX_PSS_KB = 6 * 1024
MAX_THREADS = 8
MAX_WAKEUPS_PER_SECOND = 1.0
MAX_END_MS = 100
END_TRIES = 3
IDLE_SECONDS = 10
CONNECTIONS_PER_KIND = 60

failures = []


def figure(name: str, value: float, limit: float, unit: str) -> None:
    verdict = "ok" if value <= limit else "TOO HIGH"
    print(f"{name:28} {value:10.1f} {unit:10} limit {limit:g}  {verdict}", flush=True)
    if value > limit:
        failures.append(name)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def pss_kb(pid: int) -> int:
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise SystemExit("budget: no Pss in smaps_rollup")


def wakeups(pid: int) -> int:
    """Voluntary context switches of all threads: each is a sleep that something ended."""
    total = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def health(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(32).startswith(b"HTTP/1.1 ")
    except OSError:
        return False


def wait_until_answering(agent: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + 120
    while not health(port):
        if agent.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"budget: the agent does not answer on port {port} (status {agent.poll()})")
        time.sleep(0.01)


AGENT_PATHS = [
    "/process.Process/Start",
    "/process.Process/List",
    "/process.Process/StreamInput",
    "/process.Process/SendInput",
    "/filesystem.Filesystem/Stat",
    "/filesystem.Filesystem/WatchDir",
    "/files?path=/nope&username=nobody-of-that-name",
    "/init",
    "/",
]
CODE_PATHS = ["/execute", "/contexts", "/contexts/x/restart", "/health", "/"]
CONTENT_TYPES = [
    "application/json",
    "application/proto",
    "application/connect+json",
    "application/connect+proto",
    "application/grpc",
    "application/grpc-web+proto",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "text/plain",
]


def request(chance: random.Random, paths: list[str], body: bytes) -> bytes:
    # Random bodies may not mean anything to the agent: a valid Start would be a process, so no path gets a valid one.
    head = f"{chance.choice(['POST', 'POST', 'GET', 'PUT', 'X'])} {chance.choice(paths)} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {chance.choice(CONTENT_TYPES)}\r\nContent-Length: {len(body)}\r\n"
    if chance.random() < 0.3:
        head += f"Connect-Timeout-Ms: {chance.choice(['-1', '0', 'x', '99999999999999999999'])}\r\n"
    if chance.random() < 0.3:
        head += f"Content-Encoding: {chance.choice(['gzip', 'br', 'identity'])}\r\n"
    if chance.random() < 0.3:
        head += f"Authorization: {chance.choice(['Basic', 'Basic !!!', 'Basic OjpB', 'Bearer x'])}\r\n"
    return head.encode() + b"\r\n" + body


def random_bytes(chance: random.Random, paths: list[str]) -> bytes:
    return chance.randbytes(chance.randrange(1, 4096))


def request_with_random_body(chance: random.Random, paths: list[str]) -> bytes:
    return request(chance, paths, chance.randbytes(chance.randrange(0, 2048)))


def envelope(chance: random.Random, paths: list[str]) -> bytes:
    payload = chance.choice([b"{", b"[]", b"{}x", b'{"process":7}', b'{"a":' * 5000, chance.randbytes(64)])
    length = chance.choice([len(payload), 0, 1, 2**31, 2**32 - 1])
    return request(chance, paths, struct.pack(">BI", chance.randrange(256), length) + payload)


def json_text(chance: random.Random, paths: list[str]) -> bytes:
    texts = [b"null", b"7", b'"\\ud800"', b"[" * 20000, b'{"code":7}', b'{"path":"\\u0000"}', b'{"pid":-1}', b"\xff\xfe"]
    return request(chance, paths, chance.choice(texts))


def broken_head(chance: random.Random, paths: list[str]) -> bytes:
    return chance.choice(
        [
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /execute HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /execute HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            b"GET /files?path=%ff%00%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n" * 1000,
            b"CONNECT x HTTP/1.1\r\n\r\n",
        ]
    )


def http2(chance: random.Random, paths: list[str]) -> bytes:
    frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for _ in range(chance.randrange(1, 20)):
        payload = chance.randbytes(chance.randrange(0, 100))
        frames += struct.pack(">I", len(payload))[1:] + bytes([chance.randrange(12), chance.randrange(256)])
        frames += struct.pack(">I", chance.randrange(2**31)) + payload
    return frames


def fuzz(agent: subprocess.Popen, port: int, paths: list[str], chance: random.Random) -> int:
    sent = 0
    for kind in (random_bytes, request_with_random_body, envelope, json_text, broken_head, http2):
        for _ in range(CONNECTIONS_PER_KIND):
            data = kind(chance, paths)
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    connection.settimeout(0.05)
                    connection.sendall(data)
                    if chance.random() < 0.7:
                        connection.shutdown(socket.SHUT_WR)
                    connection.recv(65536)
            except OSError:
                pass  # A refusal is a fine answer to nonsense; only the agent's end is not.
            sent += 1
            if agent.poll() is not None:
                failures.append(f"{kind.__name__} on port {port}")
                print(f"the agent ended with status {agent.returncode} after {kind.__name__}: {data[:200]!r}", flush=True)
                return sent
        if not health(port):
            failures.append(f"/health on port {port} after {kind.__name__}")
    return sent


def end(agent: subprocess.Popen, port: int) -> float | None:
    """Ends the agent with SIGTERM while a client holds a connection open and returns the milliseconds that it took. The
    kernel says when it is gone."""
    idle = socket.create_connection(("127.0.0.1", port), timeout=5)
    idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    idle.recv(32)
    poll = select.poll()
    poll.register(os.pidfd_open(agent.pid), select.POLLIN)
    began = time.monotonic()
    agent.send_signal(signal.SIGTERM)
    ended = poll.poll(10_000)
    milliseconds = (time.monotonic() - began) * 1000
    if not ended:
        agent.kill()
        failures.append("no end after SIGTERM")
        return None
    if agent.wait() != 0:
        failures.append(f"exit status {agent.returncode} after SIGTERM")
    return milliseconds


def start(binary: str, empty: str, port: int, code_port: int) -> tuple[subprocess.Popen, bytearray]:
    """An agent without kernels, and its log as it comes: whoever reads a pipe late blocks the agent."""
    command = [binary, "--kernel-path", empty, "--listen", f"tcp://127.0.0.1:{port}"]
    command += ["--code-listen", f"tcp://127.0.0.1:{code_port}"]
    agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log = bytearray()
    threading.Thread(target=lambda: [log.extend(line) for line in agent.stderr], daemon=True).start()
    return agent, log


def main() -> int:
    binary = sys.argv[1]
    seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
    port, code_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="envd-budget-") as empty:
        agent, log = start(binary, empty, port, code_port)
        milliseconds = None
        try:
            wait_until_answering(agent, port)
            time.sleep(1)  # Start-up work and the connection above are not idleness.
            before = wakeups(agent.pid)
            time.sleep(IDLE_SECONDS)
            rate = (wakeups(agent.pid) - before) / IDLE_SECONDS
            figure("idle memory (PSS)", pss_kb(agent.pid), MAX_PSS_KB, "KiB")
            figure("threads", len(os.listdir(f"/proc/{agent.pid}/task")), MAX_THREADS, "")
            figure("wake-ups when idle", rate, MAX_WAKEUPS_PER_SECOND, "a second")

            print(f"random bytes with SEED={seed}", flush=True)
            chance = random.Random(seed)
            sent = fuzz(agent, port, AGENT_PATHS, chance)
            sent += fuzz(agent, code_port, CODE_PATHS, chance)
            if agent.poll() is None:
                print(f"the agent answers after {sent} broken connections; memory {pss_kb(agent.pid)} KiB", flush=True)
            if b"panicked" in log:
                failures.append("a panic in the log")
        finally:
            if agent.poll() is None:
                milliseconds = end(agent, port)
        # A machine that does something else for a moment is not the agent's doing: the best of three agents counts.
        for _ in range(END_TRIES - 1):
            if milliseconds is None or milliseconds <= MAX_END_MS:
                break
            print(f"SIGTERM to the end took {milliseconds:.1f} ms: trying again", flush=True)
            port, code_port = free_port(), free_port()
            agent, log = start(binary, empty, port, code_port)
            wait_until_answering(agent, port)
            again = end(agent, port)
            milliseconds = again if again is None else min(milliseconds, again)
        if milliseconds is not None:
            figure("SIGTERM to the end", milliseconds, MAX_END_MS, "ms")
    checks = 6
    print(f"{checks - min(len(failures), checks)} passed, {min(len(failures), checks)} failed", flush=True)
    if failures:
        print(f"budget: broken: {', '.join(failures)}\n{log.decode(errors='replace')[-2000:]}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
