"""The services over gRPC (HTTP/2 without TLS) with stubs that the official plugin generated."""

import pathlib
import sys

import grpc
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "target/stubs"))

import filesystem_pb2
import filesystem_pb2_grpc
import process_pb2
import process_pb2_grpc

LIMIT_SECONDS = 60
AS_USER = [("authorization", "Basic dXNlcjo=")]


@pytest.fixture(scope="module")
def channel():
    with grpc.insecure_channel("127.0.0.1:49983") as channel:
        grpc.channel_ready_future(channel).result(LIMIT_SECONDS)
        yield channel


@pytest.fixture
def process(channel):
    return process_pb2_grpc.ProcessStub(channel)


@pytest.fixture
def filesystem(channel):
    return filesystem_pb2_grpc.FilesystemStub(channel)


def start(process, *command, **fields):
    config = process_pb2.ProcessConfig(cmd=command[0], args=command[1:])
    return process.Start(process_pb2.StartRequest(process=config, **fields), timeout=LIMIT_SECONDS, metadata=AS_USER)


def selector(pid):
    return process_pb2.ProcessSelector(pid=pid)


def test_a_command_streams_start_data_and_end(process):
    events = [reply.event for reply in start(process, "/bin/sh", "-c", "echo out; echo err >&2; exit 7", stdin=False)]
    assert [events[0].WhichOneof("event"), events[-1].WhichOneof("event")] == ["start", "end"]
    assert events[0].start.pid > 0
    data = [event.data for event in events[1:-1]]
    assert b"".join(d.stdout for d in data) == b"out\n"
    assert b"".join(d.stderr for d in data) == b"err\n"
    end = events[-1].end
    assert (end.exit_code, end.exited, end.status, end.error) == (7, True, "exit status 7", "exit status 7")


def test_bytes_are_not_changed(process):
    events = [r.event for r in start(process, "/bin/sh", "-c", r"printf '\000\377\200x'", stdin=False)]
    assert b"".join(e.data.stdout for e in events if e.WhichOneof("event") == "data") == b"\x00\xff\x80x"


def test_input_signal_and_list_by_tag(process):
    stream = start(process, "/bin/cat", tag="grpc-cat", stdin=True)
    pid = next(stream).event.start.pid
    listed = process.List(process_pb2.ListRequest(), timeout=LIMIT_SECONDS).processes
    assert [(p.pid, p.tag, p.config.cmd) for p in listed if p.pid == pid] == [(pid, "grpc-cat", "/bin/cat")]

    by_tag = process_pb2.ProcessSelector(tag="grpc-cat")
    request = process_pb2.SendInputRequest(process=by_tag, input=process_pb2.ProcessInput(stdin=b"hello"))
    process.SendInput(request, timeout=LIMIT_SECONDS)
    assert next(stream).event.data.stdout == b"hello"

    signal = process_pb2.SendSignalRequest(process=by_tag, signal=process_pb2.SIGNAL_SIGTERM)
    process.SendSignal(signal, timeout=LIMIT_SECONDS)
    end = [reply.event for reply in stream][-1].end
    assert (end.exit_code, end.exited, end.status) == (-1, False, "signal: terminated")


def test_streamed_input_arrives_in_order(process):
    stream = start(process, "/bin/cat", stdin=True)
    pid = next(stream).event.start.pid

    def messages():
        first = process_pb2.StreamInputRequest.StartEvent(process=selector(pid))
        yield process_pb2.StreamInputRequest(start=first)
        for n in range(100):
            data = process_pb2.StreamInputRequest.DataEvent(input=process_pb2.ProcessInput(stdin=b"%d\n" % n))
            yield process_pb2.StreamInputRequest(data=data)
        yield process_pb2.StreamInputRequest(keepalive=process_pb2.StreamInputRequest.KeepAlive())

    process.StreamInput(messages(), timeout=LIMIT_SECONDS)
    process.CloseStdin(process_pb2.CloseStdinRequest(process=selector(pid)), timeout=LIMIT_SECONDS)
    output = b"".join(r.event.data.stdout for r in stream if r.event.WhichOneof("event") == "data")
    assert output == b"".join(b"%d\n" % n for n in range(100))


def test_a_second_client_gets_the_end_by_connect(process):
    stream = start(process, "/bin/sh", "-c", "read line; exit 3", stdin=True)
    pid = next(stream).event.start.pid
    second = process.Connect(process_pb2.ConnectRequest(process=selector(pid)), timeout=LIMIT_SECONDS)
    assert next(second).event.start.pid == pid
    go = process_pb2.SendInputRequest(process=selector(pid), input=process_pb2.ProcessInput(stdin=b"\n"))
    process.SendInput(go, timeout=LIMIT_SECONDS)
    assert [list(s)[-1].event.end.exit_code for s in (stream, second)] == [3, 3]


def test_a_terminal_has_a_size(process):
    size = process_pb2.PTY(size=process_pb2.PTY.Size(cols=100, rows=30))
    events = [r.event for r in start(process, "/bin/stty", "size", pty=size)]
    assert b"".join(e.data.pty for e in events if e.WhichOneof("event") == "data") == b"30 100\r\n"


def test_an_unknown_process_is_not_found(process):
    request = process_pb2.SendSignalRequest(process=selector(4_000_000), signal=process_pb2.SIGNAL_SIGKILL)
    with pytest.raises(grpc.RpcError) as failure:
        process.SendSignal(request, timeout=LIMIT_SECONDS)
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND
    assert failure.value.details() == "process with pid 4000000 not found"


def test_an_unknown_method_is_unimplemented(channel):
    call = channel.unary_unary("/process.Process/NoSuchMethod")
    with pytest.raises(grpc.RpcError) as failure:
        call(b"", timeout=LIMIT_SECONDS)
    assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_ends_the_stream_and_the_process(process):
    config = process_pb2.ProcessConfig(cmd="/bin/sleep", args=["300"])
    stream = process.Start(process_pb2.StartRequest(process=config, stdin=False), timeout=1, metadata=AS_USER)
    with pytest.raises(grpc.RpcError) as failure:
        list(stream)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_files_are_made_looked_up_moved_and_removed(filesystem, folder):
    def call(method, request):
        return method(request, timeout=LIMIT_SECONDS, metadata=AS_USER)

    made = call(filesystem.MakeDir, filesystem_pb2.MakeDirRequest(path=f"{folder}/a")).entry
    assert (made.name, made.type, made.owner) == ("a", filesystem_pb2.FILE_TYPE_DIRECTORY, "user")
    with pytest.raises(grpc.RpcError) as failure:
        call(filesystem.MakeDir, filesystem_pb2.MakeDirRequest(path=f"{folder}/a"))
    assert failure.value.code() == grpc.StatusCode.ALREADY_EXISTS

    (folder / "a/f").write_text("12345")
    move = filesystem_pb2.MoveRequest(source=f"{folder}/a/f", destination=f"{folder}/g")
    assert call(filesystem.Move, move).entry.path == f"{folder}/g"
    stat = call(filesystem.Stat, filesystem_pb2.StatRequest(path=f"{folder}/g")).entry
    assert (stat.size, stat.permissions, stat.type) == (5, "-rw-r--r--", filesystem_pb2.FILE_TYPE_FILE)
    entries = call(filesystem.ListDir, filesystem_pb2.ListDirRequest(path=str(folder), depth=2)).entries
    assert [e.name for e in entries] == ["a", "g"]
    call(filesystem.Remove, filesystem_pb2.RemoveRequest(path=f"{folder}/g"))
    assert not (folder / "g").exists()
    with pytest.raises(grpc.RpcError) as failure:
        call(filesystem.Stat, filesystem_pb2.StatRequest(path=f"{folder}/g"))
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_streams_events_after_its_start(filesystem, folder):
    request = filesystem_pb2.WatchDirRequest(path=str(folder))
    stream = filesystem.WatchDir(request, timeout=LIMIT_SECONDS, metadata=AS_USER)
    assert next(stream).WhichOneof("event") == "start"
    (folder / "new").touch()
    event = next(stream).filesystem
    assert (event.name, event.type) == ("new", filesystem_pb2.EVENT_TYPE_CREATE)
    stream.cancel()
