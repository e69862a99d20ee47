#!/usr/bin/env python3
"""Starts the agent, waits until it answers, runs a command against it, stops the agent by its pid.

Exit status: the command's; 1 if the agent did not start, died meanwhile or did not end cleanly on SIGTERM.
The command sees E2B_DEBUG and E2B_API_KEY as the SDKs want them, ENVD_PID, ENVD_LOG and the variables given by --env.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

START_LIMIT_SECONDS = 180
STOP_LIMIT_SECONDS = 10


def answers(port: int, status: int) -> bool:
    """Whether GET /health on this port gives the status."""
    try:
        with socket.create_connection(("localhost", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 %d " % status)
    except OSError:
        return False


def write_kernelspec(folder: pathlib.Path, python: str) -> None:
    """A kernelspec that names its Python absolutely, as `python -m ipykernel install` would."""
    spec = folder / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "metadata": {"debugger": True},
                "kernel_protocol_version": "5.5",
            }
        )
    )


def tail(path: pathlib.Path, lines: int = 40) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=os.environ.get("ENVD_BINARY"), required="ENVD_BINARY" not in os.environ)
    parser.add_argument("--log", type=pathlib.Path, required=True)
    parser.add_argument("--user", default="user")
    parser.add_argument("--env", action="append", default=[], metavar="K=V")
    parser.add_argument("--no-kernel", action="store_true", help="an empty kernel path: no code cells")
    parser.add_argument("--agent-port", type=int, default=49983)
    parser.add_argument("--code-port", type=int, default=49999)
    parser.add_argument("--agent-arg", action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.command[:1] == ["--"]:
        arguments.command.pop(0)
    return arguments


def wait_until_ready(agent: subprocess.Popen, arguments: argparse.Namespace) -> str | None:
    """None when both ports answer, else what went wrong."""
    deadline = time.monotonic() + START_LIMIT_SECONDS
    waiting_for = {arguments.agent_port: 204}
    if not arguments.no_kernel:
        waiting_for[arguments.code_port] = 200
    for port, status in waiting_for.items():
        while not answers(port, status):
            if agent.poll() is not None:
                return f"the agent ended with status {agent.returncode} before port {port} answered"
            if time.monotonic() > deadline:
                return f"port {port} did not answer /health with {status} in {START_LIMIT_SECONDS} s"
            time.sleep(0.05)
    return None


def stop(agent: subprocess.Popen) -> str | None:
    """None after a clean end, else what went wrong."""
    if agent.poll() is not None:
        return f"the agent ended by itself with status {agent.returncode}"
    began = time.monotonic()
    agent.send_signal(signal.SIGTERM)
    try:
        status = agent.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        agent.kill()
        return f"the agent did not end within {STOP_LIMIT_SECONDS} s after SIGTERM"
    milliseconds = (time.monotonic() - began) * 1000
    print(f"with_agent: the agent ended {milliseconds:.0f} ms after SIGTERM with status {status}", flush=True)
    return None if status == 0 else f"the agent ended with status {status} after SIGTERM"


def main() -> int:
    arguments = parse()
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    kernels = pathlib.Path(tempfile.mkdtemp(prefix="envd-kernels-"))
    kernels.chmod(0o755)
    if not arguments.no_kernel:
        write_kernelspec(kernels, os.environ["ENVD_KERNEL_PYTHON"])

    # Default listeners: inside the sandbox the ports are free, and the defaults are what gets tested.
    command = [arguments.binary, "--user", arguments.user, "--kernel-path", str(kernels)]
    for variable in arguments.env:
        command += ["--env", variable]
    command += arguments.agent_arg
    with arguments.log.open("wb") as log:
        agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    problem = wait_until_ready(agent, arguments)
    status = 1
    if problem is None:
        environment = os.environ | {
            "E2B_DEBUG": "true",
            "E2B_API_KEY": "e2b_" + "0" * 40,
            "ENVD_PID": str(agent.pid),
            "ENVD_LOG": str(arguments.log),
        }
        status = subprocess.run(arguments.command, env=environment).returncode
    ending = stop(agent)
    problem = problem or ending
    if problem:
        print(f"with_agent: {problem}; the end of its log:\n{tail(arguments.log)}", file=sys.stderr, flush=True)
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
