"""Commands in the background: list, stdin, connect, disconnect, kill."""

import hashlib

import pytest
from e2b import CommandExitException, NotFoundException
from release import newest_only
from waiting import is_alive, until

UNKNOWN_PID = 4_000_000


async def ended_by_signal(box, handle) -> CommandExitException:
    with pytest.raises(CommandExitException) as failure:
        await box(handle.wait)
    return failure.value


async def test_a_background_command_is_listed_until_it_is_killed(box):
    command = "echo started; exec sleep 300"
    handle = await box.run(command, background=True, envs={"MARK": "1"}, cwd="/usr")
    entry = next(p for p in await box(box.commands.list) if p.pid == handle.pid)
    assert (entry.cmd, entry.args) == ("/bin/bash", ["-l", "-c", command])
    assert (entry.envs, entry.cwd, entry.tag or None) == ({"MARK": "1"}, "/usr", None)
    assert is_alive(handle.pid)

    assert await box(handle.kill) is True
    error = await ended_by_signal(box, handle)
    assert (error.exit_code, error.error) == (-1, "signal: killed")
    assert not is_alive(handle.pid)
    assert handle.pid not in [p.pid for p in await box(box.commands.list)]


async def test_killing_by_pid_says_whether_there_was_anything(box):
    handle = await box.run("exec sleep 300", background=True)
    assert await box(box.commands.kill, handle.pid) is True
    await ended_by_signal(box, handle)
    assert await box(box.commands.kill, handle.pid) is False
    assert await box(box.commands.kill, UNKNOWN_PID) is False


async def test_a_background_command_can_be_waited_for(box):
    handle = await box.run("echo one; echo two >&2; exit 0", background=True)
    result = await box(handle.wait)
    assert (result.stdout, result.stderr, result.exit_code) == ("one\n", "two\n", 0)


async def test_stdin_reaches_the_command(box):
    handle = await box.run('read line; echo "got: $line"', background=True, stdin=True)
    await box(box.commands.send_stdin, handle.pid, "héllo\n")
    assert (await box(handle.wait)).stdout == "got: héllo\n"


async def test_stdin_arrives_in_order_and_complete(box):
    handle = await box.run("head -c 200000 | sha256sum", background=True, stdin=True)
    data = "".join(f"{n:09}\n" for n in range(20000))
    for start in range(0, len(data), 20000):
        await box(box.commands.send_stdin, handle.pid, data[start : start + 20000])
    assert (await box(handle.wait)).stdout == f"{hashlib.sha256(data.encode()).hexdigest()}  -\n"


@newest_only
async def test_closing_stdin_is_an_end_of_file(box):
    handle = await box.run("cat; echo over", background=True, stdin=True)
    await box(box.commands.send_stdin, handle.pid, "text\n")
    await box(box.commands.close_stdin, handle.pid)
    result = await box(handle.wait)
    assert (result.stdout, result.exit_code) == ("text\nover\n", 0)


async def test_stdin_to_an_unknown_process_is_not_found(box):
    with pytest.raises(NotFoundException):
        await box(box.commands.send_stdin, UNKNOWN_PID, "x")


async def test_a_second_client_connects_after_the_first_has_left(box, folder):
    command = f"echo $$ > {folder}/pid; while [ ! -e {folder}/go ]; do sleep 0.02; done; echo after; exit 4"
    handle = await box.run(command, background=True)
    await until(lambda: (folder / "pid").exists(), "the command to start")
    await box(handle.disconnect)
    assert is_alive(handle.pid)

    second = await box(box.commands.connect, handle.pid)
    assert second.pid == handle.pid == int((folder / "pid").read_text())
    (folder / "go").touch()
    with pytest.raises(CommandExitException) as failure:
        await box(second.wait)
    assert (failure.value.stdout, failure.value.exit_code) == ("after\n", 4)


async def test_two_clients_see_the_same_output(box, folder):
    command = f"while [ ! -e {folder}/go ]; do sleep 0.02; done; seq 1 1000"
    first = await box.run(command, background=True)
    second = await box(box.commands.connect, first.pid)
    (folder / "go").touch()
    expected = "".join(f"{n}\n" for n in range(1, 1001))
    assert (await box(second.wait)).stdout == expected
    assert (await box(first.wait)).stdout == expected


async def test_connecting_to_an_unknown_process_is_not_found(box):
    with pytest.raises(NotFoundException):
        handle = await box(box.commands.connect, UNKNOWN_PID)
        await box(handle.wait)


async def test_a_child_of_the_command_keeps_the_stream_open(box):
    handle = await box.run("(sleep 0.5; echo child) & echo parent", background=True)
    assert (await box(handle.wait)).stdout == "parent\nchild\n"
