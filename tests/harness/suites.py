#!/usr/bin/env python3
"""Runs test suites one after the other and adds up what their own runners counted.

    suites.py [SUITE…]      cargo, faults, kernel, python-newest, python-older, js-newest, js-older; all by default

The SDK suites and `faults` run against ENVD_BINARY (the release binary by default) as root in a sandbox of namespaces.
Without root they cannot run, which is printed and counted as skipped. The sums go to target/test-results/SUITE.json.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "target/test-results"
BINARY = os.environ.get("ENVD_BINARY", str(ROOT / "target/x86_64-unknown-linux-musl/release/envd"))
INSIDE = pathlib.Path("/mnt/envd")
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider", "-q", "-ra", "--color=no"]
SUITES = ["cargo", "faults", "kernel", "python-newest", "python-older", "js-newest", "js-older"]
# Variables of the agent that the SDK tests look for in commands and cells.
GLOBAL_VARIABLE = "ENVD_TEST_GLOBAL=from the agent"

CARGO_LINE = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.M)
NODE_LINE = re.compile(r"^(?:#|ℹ) (pass|fail|cancelled|skipped|todo) (\d+)$", re.M)
UNITTEST_LINE = re.compile(r"^Ran (\d+) tests? in [^\n]*\n+(?:OK|FAILED)(?: \(([^)\n]*)\))?$", re.M)
PYTEST_LINE = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)\b")


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""
    seconds: float = 0.0


def stream(command: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs a command, shows its output as it comes and returns it with the exit status."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return process.wait(), "".join(lines)


def count_cargo(output: str) -> Outcome:
    rows = [tuple(map(int, row)) for row in CARGO_LINE.findall(output)]
    return Outcome(*(sum(column) for column in zip(*rows))) if rows else Outcome()


def count_node(output: str) -> Outcome:
    # The last occurrence of each: a test may print such a line itself.
    counts = {name: int(number) for name, number in NODE_LINE.findall(output)}
    return Outcome(
        counts.get("pass", 0),
        counts.get("fail", 0) + counts.get("cancelled", 0),
        counts.get("skipped", 0) + counts.get("todo", 0),
    )


def count_pytest(output: str) -> Outcome:
    closing = next((line for line in reversed(output.splitlines()) if PYTEST_LINE.search(line)), "")
    counts = {name.rstrip("s"): int(number) for number, name in PYTEST_LINE.findall(closing)}
    return Outcome(
        counts.get("passed", 0),
        counts.get("failed", 0) + counts.get("error", 0) + counts.get("xpassed", 0),
        counts.get("skipped", 0) + counts.get("xfailed", 0),
    )


def count_unittest(output: str) -> Outcome:
    closing = UNITTEST_LINE.findall(output)
    if not closing:
        return Outcome()
    ran, notes = closing[-1]
    counts = {name: int(number) for name, number in re.findall(r"([a-z ]+)=(\d+)", notes)}
    counts = {name.strip(): number for name, number in counts.items()}
    # An error while a test is cleaned up is counted on top of the test itself.
    failed = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpected successes"))
    skipped = counts.get("skipped", 0) + counts.get("expected failures", 0)
    return Outcome(max(int(ran) - failed - skipped, 0), failed, skipped)


def binary_inside() -> str | None:
    """Where the sandbox sees the binary; None if there is none."""
    binary = pathlib.Path(BINARY).resolve()
    if not binary.exists():
        print(f"suites: {binary} is missing: make build", flush=True)
        return None
    return str(INSIDE / binary.relative_to(ROOT) if binary.is_relative_to(ROOT) else binary)


def sandboxed(suite: str, command: list[str]) -> tuple[int, str]:
    prepared, output = stream(["tests/harness/prepare", "kernel", *preparations(suite)])
    if prepared != 0:
        return prepared, output
    inside = binary_inside()
    if inside is None:
        return 1, ""
    return stream(
        ["tests/harness/sandbox", "/usr/bin/env", "python3", "tests/harness/with_agent.py"]
        + ["--binary", inside, "--log", f"target/test-results/{suite}.agent.log", "--env", GLOBAL_VARIABLE]
        + ["--", *command]
    )


def preparations(suite: str) -> list[str]:
    own = suite if suite.startswith("js-") else suite.removeprefix("python-")
    return [own, "stubs"] if suite.endswith("newest") else [own]


def run(suite: str) -> Outcome:
    if suite == "cargo":
        # With the feature, the bridge's tests include a real ipykernel.
        status, output = stream(["tests/harness/prepare", "kernel"])
        if status == 0:
            python = {"ENVD_TEST_PYTHON": str(ROOT / "target/python/kernel/bin/python")}
            features = ["--features", "kernel-bridge/real-kernels"]
            command = ["cargo", "test", "--workspace", *features, "--no-fail-fast"]
            if os.geteuid() != 0:
                command += ["--", "--skip", "as_root"]
                print("NOT RUN: tests whose names end in as_root: they need root")
            status, output = stream(command, python)
        outcome = count_cargo(output)
    elif suite == "kernel":
        status, output = stream(["tests/harness/prepare", "kernel-test"])
        if status == 0:
            status, output = stream(["target/python/kernel-test/bin/python", *PYTEST, "tests/python"])
        outcome = count_pytest(output)
    elif os.geteuid() != 0:
        outcome = Outcome(skipped=1, note="NOT RUN: needs root (namespaces, an account); run it as root or in a container")
        status = 0
    elif suite == "faults":
        # Each test starts agents of its own.
        inside = binary_inside()
        command = ["tests/harness/sandbox", "/usr/bin/env", "python3", "-m", "unittest", "discover", "-v"]
        command += ["-s", "tests/faults", "-t", "tests/faults"]
        status, output = (1, "") if inside is None else stream(command, {"ENVD_BINARY": inside})
        outcome = count_unittest(output)
    elif suite.startswith("python-"):
        release = suite.removeprefix("python-")
        files = ["tests/sdk/python"] + ([] if release == "newest" else ["--ignore=tests/sdk/python/test_grpc.py"])
        status, output = sandboxed(suite, [f"target/python/{release}/bin/python", *PYTEST, *files])
        outcome = count_pytest(output)
    else:
        release = suite.removeprefix("js-")
        files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/sdk/js").glob("*.test.mjs"))
        if release == "older":
            files = [file for file in files if "connect-node" not in file]
        # One file after the other: they share one agent. Forced exit: the SDKs leave timers behind that hold Node up.
        command = ["env", f"ENVD_SDK_DIR=target/js/{release}", "node", "--test", "--test-concurrency=1"]
        status, output = sandboxed(suite, [*command, "--test-force-exit", "--test-reporter=spec", *files])
        outcome = count_node(output)
    if status != 0 and outcome.failed == 0:
        outcome.failed = 1
        outcome.note = f"exit status {status} without a failed test: see above"
    if status == 0 and outcome.passed == 0 and outcome.skipped == 0:
        outcome.failed, outcome.note = 1, "no test ran"
    return outcome


def main() -> int:
    suites = sys.argv[1:] or SUITES
    unknown = set(suites) - set(SUITES)
    if unknown:
        print(f"suites: unknown: {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    outcomes = {}
    for suite in suites:
        print(f"\n=== {suite}", flush=True)
        began = time.monotonic()
        outcome = run(suite)
        outcome.seconds = time.monotonic() - began
        outcomes[suite] = outcome
        (RESULTS / f"{suite}.json").write_text(json.dumps(dataclasses.asdict(outcome)))
    print("\n=== totals")
    for suite, o in outcomes.items():
        print(f"{suite:14} {o.passed:4} passed {o.failed:3} failed {o.skipped:3} skipped {o.seconds:6.0f} s  {o.note}")
    total = [sum(getattr(o, name) for o in outcomes.values()) for name in ("passed", "failed", "skipped")]
    print("{} passed, {} failed, {} skipped".format(*total), flush=True)
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
