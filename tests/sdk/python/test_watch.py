"""Watching directories: by polling with the synchronous client, by a stream with the asynchronous one."""

import pytest
from e2b import FilesystemEventType, NotFoundException, SandboxException
from release import IS_NEWEST, newest_only
from waiting import until

CREATE, WRITE, REMOVE = FilesystemEventType.CREATE, FilesystemEventType.WRITE, FilesystemEventType.REMOVE
RENAME, CHMOD = FilesystemEventType.RENAME, FilesystemEventType.CHMOD


class Watch:
    """Events of one directory from either kind of client, in order."""

    def __init__(self, box):
        self.box = box
        self.events = []
        self.exits = []

    async def start(self, path, **kwargs):
        if self.box.asynchronous:
            self.handle = await self.box.files.watch_dir(
                str(path), on_event=self.events.append, on_exit=self.exits.append, **kwargs
            )
        else:
            self.handle = await self.box(self.box.files.watch_dir, str(path), **kwargs)
        return self

    async def sees(self, *expected):
        """Waits until the (name, type) pairs have come, in this order, maybe with others between them."""

        def found():
            if not self.box.asynchronous:
                self.events += self.handle.get_new_events()
            remaining = list(expected)
            for event in self.events:
                if remaining and (event.name, event.type) == remaining[0]:
                    remaining.pop(0)
            return not remaining

        await until(found, f"events {expected}, seen {[(e.name, e.type.value) for e in self.events]}")
        return self.events

    async def stop(self):
        await self.box(self.handle.stop)


@pytest.fixture
async def watch(box):
    return Watch(box)


async def test_a_new_file_gives_create_chmod_write_and_nothing_else(box, folder, watch):
    await watch.start(folder)
    await box(box.files.write, f"{folder}/new.txt", "x")
    events = await watch.sees(("new.txt", CREATE), ("new.txt", CHMOD), ("new.txt", WRITE))
    await box(box.files.remove, f"{folder}/new.txt")
    await watch.sees(("new.txt", REMOVE))
    assert [(e.name, e.type) for e in events[:4]] == [
        ("new.txt", kind) for kind in (CREATE, CHMOD, WRITE, REMOVE)
    ]
    await watch.stop()


@pytest.mark.parametrize("box", ["sync"], indirect=True)  # Polling belongs to the synchronous client.
async def test_a_poll_right_after_the_upload_has_its_three_events(box, folder, watch):
    await watch.start(folder)
    await box(box.files.write, f"{folder}/now.txt", "x")
    events = await box(watch.handle.get_new_events)
    assert [(e.name, e.type) for e in events] == [("now.txt", kind) for kind in (CREATE, CHMOD, WRITE)]
    assert await box(watch.handle.get_new_events) == []
    await watch.stop()


async def test_overwriting_is_a_write(box, folder, watch):
    (folder / "old.txt").write_text("old")
    await watch.start(folder)
    await box(box.files.write, f"{folder}/old.txt", "new")
    events = await watch.sees(("old.txt", WRITE))
    assert CREATE not in [e.type for e in events]
    await watch.stop()


async def test_a_rename_is_seen_under_both_names(box, folder, watch):
    (folder / "a").touch()
    await watch.start(folder)
    await box(box.files.rename, f"{folder}/a", f"{folder}/b")
    events = await watch.sees(("a", RENAME), ("b", CREATE))
    assert [(e.name, e.type) for e in events] == [("a", RENAME), ("b", CREATE)]
    await watch.stop()


async def test_changes_by_commands_are_seen_too(box, folder, watch):
    (folder / "f").touch()
    await watch.start(folder)
    await box.run(f"chmod 600 {folder}/f && echo x >> {folder}/f && rm {folder}/f", user="root")
    await watch.sees(("f", CHMOD), ("f", WRITE), ("f", REMOVE))
    await watch.stop()


async def test_a_plain_watch_does_not_look_into_subdirectories(box, folder, watch):
    (folder / "sub").mkdir()
    await watch.start(folder)
    await box(box.files.write, f"{folder}/sub/hidden", "x")
    await box(box.files.write, f"{folder}/mark", "x")
    events = await watch.sees(("mark", WRITE))
    assert {e.name for e in events} == {"mark"}
    await watch.stop()


async def test_a_recursive_watch_follows_old_and_new_subdirectories(box, folder, watch):
    (folder / "old").mkdir()
    await watch.start(folder, recursive=True)
    await box(box.files.write, f"{folder}/old/one", "x")
    await watch.sees(("old/one", CREATE), ("old/one", WRITE))
    await box(box.files.make_dir, f"{folder}/new")
    await watch.sees(("new", CREATE))
    await box(box.files.write, f"{folder}/new/two", "x")
    await watch.sees(("new/two", WRITE))
    await watch.stop()


@newest_only
async def test_an_event_can_carry_the_entry(box, folder, watch):
    await watch.start(folder, include_entry=True)
    await box(box.files.write, f"{folder}/entry", "12345")
    written = next(e for e in await watch.sees(("entry", WRITE)) if e.type == WRITE)
    assert (written.entry.path, written.entry.owner) == (f"{folder}/entry", "user")
    await box(box.files.remove, f"{folder}/entry")
    removed = next(e for e in await watch.sees(("entry", REMOVE)) if e.type == REMOVE)
    assert removed.entry is None
    await watch.stop()


async def test_a_stopped_watch_is_gone(box, folder, watch):
    await watch.start(folder)
    (folder / "seen").touch()
    await watch.sees(("seen", CREATE))
    await watch.stop()
    if box.asynchronous and IS_NEWEST:
        assert await until(lambda: watch.exits, "on_exit after stop") == [None]
    elif box.asynchronous:
        assert watch.exits == []
    else:
        with pytest.raises(SandboxException):
            await box(watch.handle.get_new_events)


async def test_watching_what_is_not_there_or_not_a_directory_fails(box, folder, watch):
    with pytest.raises(NotFoundException):
        await watch.start(folder / "missing")
    (folder / "file").touch()
    with pytest.raises(SandboxException):
        await watch.start(folder / "file")
