"""Annotation files are found beside a header, also those that come later."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE_BEAT = ((1 << 10) | 100).to_bytes(2, "little") + bytes(2)


def test_annotations_that_come_later_are_read(
    tmp_path: Path, write_wfdb: Callable[..., Path]
) -> None:
    folder = tmp_path / "records"
    header = write_wfdb(folder, "a", np.arange(24).reshape(12, 2))
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))  # a folder that nobody changes any more
    assert read(header).annotations == ()
    header.with_suffix(".atr").write_bytes(ONE_BEAT)
    (found,) = read(header).annotations
    assert found.sample.tolist() == [100]
    os.utime(folder, (hour_ago + 60, hour_ago + 60))
    header.with_suffix(".qrs").write_bytes(ONE_BEAT)
    assert [one.annotator for one in read(header).annotations] == ["atr", "qrs"]


def test_a_folder_that_cannot_be_listed_is_asked_for_each_file(
    tmp_path: Path, write_wfdb: Callable[..., Path]
) -> None:
    folder = tmp_path / "closed"
    header = write_wfdb(folder, "a", np.arange(24).reshape(12, 2))
    header.with_suffix(".atr").write_bytes(ONE_BEAT)
    os.utime(folder, (0, 0))
    folder.chmod(0o311)
    try:
        assert [one.annotator for one in read(header).annotations] == ["atr"]
    finally:
        folder.chmod(0o755)
