"""What the agent does for the published Python SDK, one stop after the other. A wrong answer ends the tour."""

import base64
import time

from e2b import CommandExitException, FilesystemEventType
from e2b.sandbox.commands.command_handle import PtySize
from e2b_code_interpreter import Sandbox


def stop(title: str) -> None:
    print(f"\n• {title}", flush=True)


def show(what: str, value: object) -> None:
    print(f"    {what}: {value}", flush=True)


def expect(what: str, value: object, expected: object) -> None:
    show(what, repr(value))
    if value != expected:
        raise SystemExit(f"demo: {what}: expected {expected!r}")


def commands(sandbox: Sandbox) -> None:
    stop("A command, its output streamed line by line while it runs")
    began, arrivals = time.monotonic(), []

    def on_stdout(text: str) -> None:
        arrivals.append(time.monotonic() - began)
        show(f"after {arrivals[-1]:.2f} s", text.rstrip())

    result = sandbox.commands.run("for n in 1 2 3; do echo line $n; sleep 0.3; done", on_stdout=on_stdout)
    expect("the whole output", result.stdout, "line 1\nline 2\nline 3\n")
    if len(arrivals) < 2:
        raise SystemExit("demo: the lines came all at once")

    stop("A command that fails")
    try:
        sandbox.commands.run("echo 'no such luck' >&2; exit 3")
    except CommandExitException as error:
        expect("status and error output", (error.exit_code, error.stderr), (3, "no such luck\n"))
    else:
        raise SystemExit("demo: the command did not fail")

    stop("A background process: listed, fed, killed")
    handle = sandbox.commands.run('read name; echo "hello $name"; sleep 300', background=True, stdin=True)
    expect("listed", handle.pid in [p.pid for p in sandbox.commands.list()], True)
    sandbox.commands.send_stdin(handle.pid, "demo\n")
    for stdout, _, _ in handle:
        if stdout:
            expect("it read and answered", stdout, "hello demo\n")
            break
    expect("killed", handle.kill(), True)
    try:
        handle.wait()
    except CommandExitException as error:
        expect("its end", error.error, "signal: killed")
    expect("killed again", sandbox.commands.kill(handle.pid), False)


def environment(sandbox: Sandbox) -> None:
    stop("Environment variables in three scopes: the agent's (--env), a command's, a cell's")
    read = "echo $SCOPE"
    expect("in a command", sandbox.commands.run(read).stdout, "global\n")
    expect("in a command with its own", sandbox.commands.run(read, envs={"SCOPE": "command"}).stdout, "command\n")
    cell = "import os; os.environ['SCOPE']"
    expect("in a cell", sandbox.run_code(cell).text, "global")
    expect("in a cell with its own", sandbox.run_code(cell, envs={"SCOPE": "cell"}).text, "cell")
    expect("in the next cell", sandbox.run_code(cell).text, "global")


def files(sandbox: Sandbox) -> None:
    stop("Files, and a watch that sees what happens to them")
    sandbox.files.make_dir("demo")
    watch = sandbox.files.watch_dir("demo", recursive=True)
    written = sandbox.files.write("demo/notes.txt", "first line\n")
    show("written", written.path)
    expect("read back", sandbox.files.read("demo/notes.txt"), "first line\n")
    sandbox.files.rename("demo/notes.txt", "demo/renamed.txt")
    expect("listed", [entry.name for entry in sandbox.files.list("demo")], ["renamed.txt"])
    events = []
    deadline = time.monotonic() + 60
    while len(events) < 5 and time.monotonic() < deadline:
        events += [(event.name, event.type) for event in watch.get_new_events()]
    kinds = FilesystemEventType
    expected = [("notes.txt", kinds.CREATE), ("notes.txt", kinds.CHMOD), ("notes.txt", kinds.WRITE)]
    expected += [("notes.txt", kinds.RENAME), ("renamed.txt", kinds.CREATE)]
    expect("the watch saw", [f"{n} {k.value}" for n, k in events], [f"{n} {k.value}" for n, k in expected])
    watch.stop()
    sandbox.files.remove("demo")
    expect("still there after removal", sandbox.files.exists("demo"), False)


def terminal(sandbox: Sandbox) -> None:
    stop("A terminal: a shell with a size, which is changed while it runs")
    handle = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.send_stdin(handle.pid, b"stty size; tty >/dev/null && echo terminal:$((20 + 22))\n")
    screen, resized = "", False
    for _, _, data in handle:
        screen += (data or b"").decode(errors="replace")
        if "terminal:42" in screen and not resized:
            resized = True
            sandbox.pty.resize(handle.pid, PtySize(rows=50, cols=132))
            sandbox.pty.send_stdin(handle.pid, b"stty size; exit\n")
    expect("its first size", "24 80" in screen, True)
    expect("its second size", "50 132" in screen, True)


def cells(sandbox: Sandbox) -> None:
    stop("Code cells that keep their state")
    sandbox.run_code("x = 41")
    expect("x + 1", sandbox.run_code("x + 1").text, "42")

    stop("A cell with output, streamed, and a rich result")
    code = "import pandas as pd\nprint('making a table')\npd.DataFrame({'a': [1, 2]})"
    execution = sandbox.run_code(code, on_stdout=lambda message: show("printed", message.line.rstrip()))
    expect("the table as data", execution.results[0].data, {"a": [1, 2]})

    stop("A chart: a picture for people and data for programs")
    code = "import matplotlib.pyplot as plt\nplt.bar(['Ada', 'Bob'], [100, 200])\nplt.title('Sales')\nplt.show()"
    [result] = sandbox.run_code(code, timeout=120).results
    show("picture", f"PNG, {len(base64.b64decode(result.png))} bytes")
    expect("type and title", (result.chart.type.value, result.chart.title), ("bar", "Sales"))
    expect("bars", [(e.label, float(e.value)) for e in result.chart.elements], [("Ada", 100.0), ("Bob", 200.0)])

    stop("An error, and a cell that runs too long")
    error = sandbox.run_code("1 / 0").error
    expect("error", (error.name, error.value), ("ZeroDivisionError", "division by zero"))
    try:
        sandbox.run_code("import time; time.sleep(300)", timeout=1)
    except Exception as error:
        expect("time limit", type(error).__name__, "TimeoutException")
    expect("right after, state intact", sandbox.run_code("x + 1").text, "42")


def main() -> None:
    print("A tour of the agent with the published Python SDK")
    sandbox = Sandbox.create(debug=True)
    commands(sandbox)
    environment(sandbox)
    files(sandbox)
    terminal(sandbox)
    cells(sandbox)


if __name__ == "__main__":
    main()
