"""Commands in the foreground: output, status, environment, directory, user, time limit."""

import asyncio
import os
import shutil

import pytest
from e2b import CommandExitException
from e2b.exceptions import AuthenticationException, InvalidArgumentException
from release import TIME_LIMIT_ERRORS, newest_only
from waiting import is_alive, until


async def test_output_and_status_of_a_command_come_back(box):
    result = await box.run("echo hello $((40 + 2)); echo problem >&2")
    assert (result.stdout, result.stderr, result.exit_code) == ("hello 42\n", "problem\n", 0)
    assert not result.error


async def test_a_failing_command_raises_with_its_output(box):
    with pytest.raises(CommandExitException) as failure:
        await box.run("echo before; echo why >&2; exit 3")
    error = failure.value
    assert (error.exit_code, error.stdout, error.stderr) == (3, "before\n", "why\n")
    assert error.error == "exit status 3"


async def test_a_missing_program_ends_with_127(box):
    with pytest.raises(CommandExitException) as failure:
        await box.run("no-such-program-here")
    assert failure.value.exit_code == 127
    assert "no-such-program-here" in failure.value.stderr


async def test_a_command_that_kills_itself_reports_the_signal(box):
    with pytest.raises(CommandExitException) as failure:
        await box.run("kill -SEGV $$")
    assert failure.value.exit_code == -1
    assert failure.value.error.startswith("signal: segmentation fault")


async def test_output_reaches_the_callbacks_while_the_command_runs(box, folder):
    stdout, stderr = [], []

    def on_stdout(text):
        stdout.append(text)
        if "ready" in text:
            (folder / "seen").touch()

    # The command cannot end before its first output has reached this side.
    command = f"echo ready; while [ ! -e {folder}/seen ]; do sleep 0.02; done; echo done; echo late >&2"
    result = await box.run(command, on_stdout=on_stdout, on_stderr=stderr.append)
    assert "".join(stdout) == result.stdout == "ready\ndone\n"
    assert "".join(stderr) == result.stderr == "late\n"
    assert len(stdout) >= 2


async def test_text_beyond_ascii_survives_in_both_directions(box):
    text = "žluťoučký kůň 🐎 \u2028 \t'\"\\ $HOME `id`"
    result = await box.run("printf %s \"$TEXT\"", envs={"TEXT": text})
    assert result.stdout == text


async def test_a_long_output_is_complete(box):
    result = await box.run("seq 1 200000")
    assert result.stdout == "".join(f"{n}\n" for n in range(1, 200001))


@newest_only
async def test_a_split_utf8_character_is_put_together(box, folder):
    # The first chunk of a read ends in the middle of a character.
    result = await box.run("printf 'a\\303'; sleep 0.2; printf '\\251b'")
    assert result.stdout == "aéb"


async def test_many_commands_run_at_the_same_time(box):
    results = await asyncio.gather(*(box.run(f"echo {n}; sleep 0.2; echo {n * n}") for n in range(10)))
    assert [r.stdout for r in results] == [f"{n}\n{n * n}\n" for n in range(10)]


async def test_variables_of_a_command_are_seen_by_it_alone(box):
    assert (await box.run("echo $ONLY_HERE", envs={"ONLY_HERE": "value"})).stdout == "value\n"
    assert (await box.run("echo [$ONLY_HERE]")).stdout == "[]\n"


async def test_variables_of_the_agent_are_seen_and_can_be_overridden(box):
    assert (await box.run("echo $ENVD_TEST_GLOBAL")).stdout == "from the agent\n"
    changed = await box.run("echo $ENVD_TEST_GLOBAL", envs={"ENVD_TEST_GLOBAL": "from the command"})
    assert changed.stdout == "from the command\n"


async def test_the_environment_names_the_user(box):
    result = await box.run("echo $HOME $USER $LOGNAME")
    assert result.stdout == "/home/user user user\n"


async def test_the_working_directory_is_home_or_the_one_asked_for(box, folder):
    assert (await box.run("pwd")).stdout == "/home/user\n"
    assert (await box.run("pwd", cwd="/usr")).stdout == "/usr\n"
    assert (await box.run("pwd", cwd=folder.name)).stdout == f"{folder}\n"
    assert (await box.run("pwd", cwd="~")).stdout == "/home/user\n"


async def test_a_missing_working_directory_is_refused(box):
    with pytest.raises(InvalidArgumentException) as failure:
        await box.run("pwd", cwd="/home/user/nope")
    assert "cwd '/home/user/nope' does not exist" in str(failure.value)


async def test_a_working_directory_closed_to_the_user_is_refused(box, folder):
    os.chown(folder, 0, 0)
    folder.chmod(0o700)
    with pytest.raises(InvalidArgumentException) as failure:
        await box.run("pwd", cwd=str(folder))
    assert "permission denied" in str(failure.value)


async def test_commands_run_as_the_user_asked_for(box):
    identity = "echo $(id -un):$(id -gn):$(id -u)"
    assert (await box.run(identity)).stdout == "user:user:1000\n"
    assert (await box.run(identity, user="user")).stdout == "user:user:1000\n"
    assert (await box.run(identity, user="root")).stdout == "root:root:0\n"


async def test_an_unknown_user_is_refused(box):
    with pytest.raises(AuthenticationException) as failure:
        await box.run("true", user="nobody-of-that-name")
    assert "invalid username: 'nobody-of-that-name'" in str(failure.value)


@pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is not installed on this machine")
async def test_sudo_works(box):
    assert (await box.run("sudo -n id -un")).stdout == "root\n"


async def test_a_command_beyond_its_time_limit_is_ended(box, folder):
    pidfile = folder / "pid"
    with pytest.raises(TIME_LIMIT_ERRORS):
        await box.run(f"echo $$ > {pidfile}; exec sleep 300", timeout=2)
    pid = int(pidfile.read_text())
    await until(lambda: not is_alive(pid), f"process {pid} gone after its time limit")


async def test_without_stdin_a_read_fails_at_once(box):
    with pytest.raises(CommandExitException) as failure:
        await box.run("read line", stdin=False)
    assert failure.value.exit_code == 1


async def test_a_nul_byte_in_a_variable_is_refused(box):
    with pytest.raises(InvalidArgumentException):
        await box.run("true", envs={"BAD": "a\0b"})
    assert (await box.run("echo still here")).stdout == "still here\n"
