"""Metadata of files, kept as extended attributes. Older SDK releases do not have it."""

import os

from release import newest_only

pytestmark = newest_only


async def test_metadata_is_kept_listed_and_moved(box, folder):
    path = f"{folder}/tagged"
    info = await box(box.files.write, path, "x", metadata={"owner": "ada", "Stage": "two words"})
    expected = {"owner": "ada", "stage": "two words"}
    assert info.metadata == expected
    assert os.getxattr(path, "user.e2b.owner") == b"ada"
    assert (await box(box.files.get_info, path)).metadata == expected
    assert (await box(box.files.list, str(folder)))[0].metadata == expected
    assert (await box(box.files.rename, path, f"{folder}/moved")).metadata == expected


async def test_writing_again_replaces_all_metadata(box, folder):
    path = f"{folder}/tagged"
    await box(box.files.write, path, "x", metadata={"a": "1", "b": "2"})
    os.setxattr(path, "user.other", b"stays")
    await box(box.files.write, path, "y", metadata={"b": "3"})
    assert (await box(box.files.get_info, path)).metadata == {"b": "3"}
    assert (await box(box.files.write, path, "z")).metadata is None
    assert os.listxattr(path) == ["user.other"]


async def test_attributes_set_by_others_are_seen(box, folder):
    (folder / "plain").touch()
    os.setxattr(folder / "plain", "user.e2b.from", b"outside")
    assert (await box(box.files.get_info, f"{folder}/plain")).metadata == {"from": "outside"}

