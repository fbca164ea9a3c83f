"""A scratch folder that the host can see: noticed when it is overfull, and removed whatever lies in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grader.sandbox.scratch import is_overfull, remove

pytestmark = pytest.mark.skipif(os.name == "nt", reason="student code is confined on Linux alone")
DEEPER_THAN_A_PATH_MAY_BE = 1000


def deepen(folder: Path) -> None:
    """Make a folder in a folder, and so on; only a process that goes along can."""
    before = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(DEEPER_THAN_A_PATH_MAY_BE):
            os.mkdir("deeper")
            os.chdir("deeper")
    finally:
        os.chdir(before)


def test_bytes_and_names_are_counted_below_folders_too(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(100_000))
    assert not is_overfull(str(tmp_path), 200_000, 3)
    assert is_overfull(str(tmp_path), 90_000, 3)
    assert is_overfull(str(tmp_path), 200_000, 2)


def test_a_hole_takes_no_room(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert not is_overfull(str(tmp_path), 1 << 20, 10)


def test_what_no_path_can_name_is_too_much_and_is_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    deepen(scratch)
    (scratch / "shut").mkdir(mode=0)
    (scratch / "file").touch()
    assert is_overfull(str(scratch), 1 << 30, 10 * DEEPER_THAN_A_PATH_MAY_BE)
    remove(str(scratch))
    assert not scratch.exists()


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    (tmp_path / "scratch" / "inside").mkdir(parents=True)
    (tmp_path / "scratch" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "scratch" / "inside" / "link").symlink_to(tmp_path / "kept")
    remove(str(tmp_path / "scratch"))
    assert not (tmp_path / "scratch").exists()
    assert (tmp_path / "kept" / "file").read_text() == "kept"
