from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from appliance.ops.unpacked import LEAST_AGE_S, MARK, leftovers


def unpacked(folder: Path, name: str, *, age_s: float = 2 * LEAST_AGE_S) -> Path:
    made = folder / name
    made.mkdir()
    (made / MARK).touch()
    then = time.time() - age_s
    os.utime(made, (then, then))
    return made


def test_a_folder_that_nobody_uses_was_left_behind(tmp_path: Path) -> None:
    own, left = unpacked(tmp_path, "_MEI1"), unpacked(tmp_path, "_MEI2")

    assert leftovers(own, time.time()) == [left]


def test_a_folder_in_use_is_left_alone_until_it_is_not(tmp_path: Path) -> None:
    own, used = unpacked(tmp_path, "_MEI1"), unpacked(tmp_path, "_MEI2")
    held = os.open(used / MARK, os.O_WRONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert leftovers(own, time.time()) == []

    os.close(held)
    assert leftovers(own, time.time()) == [used]


def test_a_folder_that_may_be_unpacked_just_now_is_left_alone(tmp_path: Path) -> None:
    own = unpacked(tmp_path, "_MEI1")
    unpacked(tmp_path, "_MEI2", age_s=LEAST_AGE_S / 2)

    assert leftovers(own, time.time()) == []


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    own = unpacked(tmp_path, "_MEI1")
    (tmp_path / "_MEI2").mkdir()  # another program that PyInstaller has made
    (tmp_path / "_MEI3").write_text("")
    unpacked(tmp_path, "other")

    assert leftovers(own, time.time() + 3600) == []
