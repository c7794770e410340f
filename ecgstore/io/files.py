"""Open files that nobody vouches for: regular files only, never more than a stated size."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from ecgstore.io.assemble import refuse

if TYPE_CHECKING:
    from pathlib import Path

    from ecgstore.errors import ReadError

__all__ = ["HEAD_BYTES", "MAX_BYTES", "file_bytes", "file_head", "file_sha256", "file_size"]

HEAD_BYTES = 4096
"""Bytes that readers see of a file to tell whether it is theirs."""

MAX_BYTES = 2**30
"""Size of a file beyond which it is refused by readers that take it into memory whole."""


def file_size(path: Path, *, of: Path | None = None) -> int:
    """Return the size in bytes of a regular file.

    Args:
        path: The file.
        of: The file to blame, where that one only names `path`.

    Raises:
        ReadError: It is missing, or a folder, pipe or device.
    """
    blamed = of or path
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refuse(blamed, "missing file", f"{_shown(path, of)} is not there") from error
    except (OSError, ValueError) as error:  # such as a name that is too long, or with a zero byte
        what = "it" if blamed == path else _shown(path, of)
        raise refuse(blamed, "unreadable", f"{what} cannot be opened") from error
    if not stat.S_ISREG(status.st_mode):
        what = "it" if blamed == path else _shown(path, of)
        raise refuse(blamed, "not a file", f"{what} is not a regular file")
    return status.st_size


def file_bytes(path: Path, *, limit: int = MAX_BYTES, of: Path | None = None) -> bytes:
    """Return what a regular file holds.

    Args:
        path: The file.
        limit: Bytes beyond which it is refused.
        of: The file to blame, where that one only names `path`.

    Raises:
        ReadError: It is missing, no regular file, larger than `limit`, or cannot be read.
    """
    size = file_size(path, of=of)
    if size > limit:
        raise refuse(of or path, "too large", f"its {size} bytes are more than any ECG has")
    try:
        with path.open("rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise _unreadable(of or path, error) from error


def file_head(path: Path, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a regular file.

    Raises:
        ReadError: It is missing, no regular file, or cannot be read.
    """
    file_size(path)
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(size)
    except OSError as error:
        raise _unreadable(path, error) from error


def file_sha256(path: Path) -> str:
    """Return the digest of a regular file of any size.

    Raises:
        ReadError: It is missing, no regular file, or cannot be read.
    """
    file_size(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _shown(path: Path, of: Path | None) -> str:
    """Return a name for messages: one that stands in a file only if it is the file's own."""
    alike = of is None or path.stem == of.stem
    return repr(path.name[:60]) if alike else "a file that it names"


def _unreadable(path: Path, error: OSError) -> ReadError:
    why = os.strerror(error.errno) if error.errno else "input/output error"
    return refuse(path, "unreadable", f"it cannot be read ({why})")
