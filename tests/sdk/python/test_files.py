"""Files: write, read, list, look up, make, move, remove."""

import datetime
import io
import os
import pathlib

import pytest
from e2b import FileType, NotFoundException, SandboxException
from e2b.exceptions import AuthenticationException, InvalidArgumentException
from release import IS_NEWEST, newest_only

BINARY = bytes(range(256)) * 1000


async def test_text_written_is_text_read(box, folder):
    path = f"{folder}/hello.txt"
    info = await box(box.files.write, path, "héllo\nworld\n")
    assert (info.name, info.path, FileType(info.type)) == ("hello.txt", path, FileType.FILE)
    assert await box(box.files.read, path) == "héllo\nworld\n"
    assert pathlib.Path(path).read_text() == "héllo\nworld\n"
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1000, 0o644)


async def test_bytes_written_are_bytes_read(box, folder):
    path = f"{folder}/data.bin"
    await box(box.files.write, path, BINARY)
    assert bytes(await box(box.files.read, path, format="bytes")) == BINARY
    assert pathlib.Path(path).read_bytes() == BINARY


async def test_a_file_object_is_written(box, folder):
    path = f"{folder}/object.bin"
    await box(box.files.write, path, io.BytesIO(BINARY))
    assert pathlib.Path(path).read_bytes() == BINARY


async def test_a_large_file_is_read_as_a_stream(box, folder):
    content = os.urandom(5_000_000)
    (folder / "large").write_bytes(content)
    stream = await box(box.files.read, f"{folder}/large", format="stream")
    if box.asynchronous:
        chunks = [bytes(chunk) async for chunk in stream]
    else:
        chunks = [bytes(chunk) for chunk in stream]
    assert b"".join(chunks) == content
    assert len(chunks) > 1 or not IS_NEWEST


async def test_an_empty_file_can_be_written_and_read(box, folder):
    path = f"{folder}/empty"
    await box(box.files.write, path, "")
    assert await box(box.files.read, path) == ""
    assert bytes(await box(box.files.read, path, format="bytes")) == b""
    assert os.path.getsize(path) == 0


@newest_only
async def test_gzip_in_both_directions(box, folder):
    path = f"{folder}/packed.txt"
    text = "0123456789" * 10_000
    await box(box.files.write, path, text, gzip=True)
    assert pathlib.Path(path).read_text() == text
    assert await box(box.files.read, path, gzip=True) == text


async def test_writing_replaces_a_file_and_keeps_its_mode(box, folder):
    path = folder / "script"
    path.write_text("a long old content")
    path.chmod(0o755)
    await box(box.files.write, str(path), "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o755


async def test_missing_parents_are_made_for_the_user(box, folder):
    await box(box.files.write, f"{folder}/a/b/c.txt", "deep")
    assert (folder / "a/b/c.txt").read_text() == "deep"
    for made in ("a", "a/b"):
        status = (folder / made).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1000, 0o755)


async def test_several_files_are_written_in_one_call(box, folder):
    files = [{"path": f"{folder}/many/{n}.txt", "data": f"file {n}"} for n in range(5)]
    infos = await box(box.files.write_files, files)
    assert [(i.name, i.path) for i in infos] == [(f"{n}.txt", f"{folder}/many/{n}.txt") for n in range(5)]
    assert [(folder / f"many/{n}.txt").read_text() for n in range(5)] == [f"file {n}" for n in range(5)]


async def test_relative_paths_start_at_the_users_home(box, folder):
    info = await box(box.files.write, f"{folder.name}/relative.txt", "x")
    assert info.path == f"{folder}/relative.txt"
    assert await box(box.files.read, f"~/{folder.name}/relative.txt") == "x"
    assert (await box(box.files.get_info, f"{folder.name}/relative.txt")).path == f"{folder}/relative.txt"


async def test_files_of_another_user_belong_to_that_user(box, folder):
    path = folder / "roots"
    await box(box.files.write, str(path), "x", user="root")
    assert path.stat().st_uid == 0
    info = await box(box.files.get_info, "~", user="root")
    assert info.path == "/root"


async def test_reading_what_is_not_there_is_not_found(box, folder):
    with pytest.raises(NotFoundException) as failure:
        await box(box.files.read, f"{folder}/nothing")
    assert f"path '{folder}/nothing' does not exist" in str(failure.value)


async def test_reading_a_directory_is_an_invalid_argument(box, folder):
    with pytest.raises(InvalidArgumentException) as failure:
        await box(box.files.read, str(folder))
    assert f"path '{folder}' is a directory" in str(failure.value)


async def test_writing_to_a_directory_is_an_invalid_argument(box, folder):
    with pytest.raises(InvalidArgumentException) as failure:
        await box(box.files.write, str(folder), "x")
    assert f"path is a directory: {folder}" in str(failure.value)


async def test_an_unknown_user_is_refused(box, folder):
    with pytest.raises(AuthenticationException):
        await box(box.files.read, f"{folder}/x", user="nobody-of-that-name")


async def test_a_listing_has_depth_and_order(box, folder):
    for name in ("b.txt", "a/one.txt", "a/sub/two.txt", "c/three.txt"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(name)

    async def names(**kwargs):
        return [entry.path.removeprefix(f"{folder}/") for entry in await box(box.files.list, str(folder), **kwargs)]

    assert await names() == ["a", "b.txt", "c"]
    assert await names(depth=2) == ["a", "a/one.txt", "a/sub", "b.txt", "c", "c/three.txt"]
    assert await names(depth=3) == ["a", "a/one.txt", "a/sub", "a/sub/two.txt", "b.txt", "c", "c/three.txt"]


async def test_a_listing_tells_what_each_entry_is(box, folder):
    (folder / "dir").mkdir(mode=0o755)
    (folder / "file").write_text("12345")
    (folder / "file").chmod(0o640)
    (folder / "link").symlink_to("file")
    os.chown(folder / "file", 1000, 1000)
    directory, file, link = await box(box.files.list, str(folder))
    assert (directory.name, directory.type, directory.permissions) == ("dir", FileType.DIR, "drwxr-xr-x")
    assert (file.name, file.type, file.size, file.mode) == ("file", FileType.FILE, 5, 0o640)
    assert (file.permissions, file.owner, file.group, file.symlink_target) == ("-rw-r-----", "user", "user", None)
    assert (link.name, link.permissions, link.symlink_target) == ("link", "Lrwxrwxrwx", f"{folder}/file")


async def test_listing_what_is_not_a_directory_fails(box, folder):
    (folder / "file").touch()
    with pytest.raises(InvalidArgumentException):
        await box(box.files.list, f"{folder}/file")
    with pytest.raises(NotFoundException):
        await box(box.files.list, f"{folder}/nothing")


async def test_an_empty_directory_lists_as_empty(box, folder):
    assert await box(box.files.list, str(folder)) == []


async def test_the_details_of_a_file(box, folder):
    path = f"{folder}/details"
    await box(box.files.write, path, "content")
    info = await box(box.files.get_info, path)
    assert (info.name, info.path, info.type, info.size) == ("details", path, FileType.FILE, 7)
    assert (info.mode, info.permissions, info.owner, info.group) == (0o644, "-rw-r--r--", "user", "user")
    expected = datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.timezone.utc)
    assert abs(info.modified_time.replace(tzinfo=datetime.timezone.utc) - expected) < datetime.timedelta(milliseconds=1)


async def test_existence(box, folder):
    (folder / "here").touch()
    assert await box(box.files.exists, f"{folder}/here") is True
    assert await box(box.files.exists, str(folder)) is True
    assert await box(box.files.exists, f"{folder}/missing") is False
    with pytest.raises(NotFoundException):
        await box(box.files.get_info, f"{folder}/missing")


async def test_a_directory_is_made_once(box, folder):
    assert await box(box.files.make_dir, f"{folder}/x/y/z") is True
    assert (folder / "x/y/z").is_dir()
    assert (folder / "x").stat().st_uid == 1000
    assert await box(box.files.make_dir, f"{folder}/x/y/z") is False
    (folder / "file").touch()
    with pytest.raises(SandboxException):
        await box(box.files.make_dir, f"{folder}/file")


async def test_renaming_moves_file_and_directory(box, folder):
    (folder / "old").write_text("kept")
    info = await box(box.files.rename, f"{folder}/old", f"{folder}/new/place")
    assert (info.name, info.path) == ("place", f"{folder}/new/place")
    assert (folder / "new/place").read_text() == "kept"
    assert not (folder / "old").exists()
    await box(box.files.rename, f"{folder}/new", f"{folder}/newer")
    assert (folder / "newer/place").read_text() == "kept"
    with pytest.raises(NotFoundException):
        await box(box.files.rename, f"{folder}/old", f"{folder}/elsewhere")


async def test_removing_takes_files_and_trees_and_tolerates_absence(box, folder):
    (folder / "tree/deep").mkdir(parents=True)
    (folder / "tree/deep/file").touch()
    (folder / "kept").mkdir()
    (folder / "tree/link").symlink_to(folder / "kept")
    await box(box.files.remove, f"{folder}/tree")
    assert not (folder / "tree").exists()
    assert (folder / "kept").is_dir()
    await box(box.files.remove, f"{folder}/tree")
