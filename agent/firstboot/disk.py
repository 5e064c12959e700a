"""The writes of provisioning. After a power cut at any of them each file is the old or the new one, never half."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from agent.provisioning.tokens import find_patches
from flchain_edge.keys.private_files import replace_private, sync_folder

PATCHED_BYTES_MAX = 1024 * 1024
"""A larger file is searched for tokens no further than this."""
Owner = tuple[int, int]


def is_full(error: OSError) -> bool:
    """Return whether there is no room left, rather than something broken."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_file(path: Path, data: bytes, mode: int = 0o600, owner: Owner | None = None) -> bool:
    """Write a file unless it is there with the same bytes; return whether anything was written. Raise OSError."""
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return False
    _make_folders(path.parent)
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a power cut
        leftover.unlink()
    replace_private(path, data, mode, owner)
    return True


def _make_folders(folder: Path) -> None:
    """Make the folders that are missing, open to all as a system's are, whatever this process's mask is."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def write_link(path: Path, target: str) -> bool:
    """Make a symbolic link; return whether anything has changed. Raise OSError."""
    if path.is_symlink() and os.readlink(path) == target:
        return False
    temporary = path.with_name(f".{path.name}.flchain")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    sync_folder(path.parent)
    return True


def copy_file(source: Path, path: Path, owner: Owner) -> bool:
    """Copy a file that may be large; the same size and time as the source's mean that it was copied before."""
    before = source.stat()
    if path.is_file() and (path.stat().st_size, int(path.stat().st_mtime)) == (before.st_size, int(before.st_mtime)):
        return False
    temporary = path.with_name(f".{path.name}.flchain")
    temporary.unlink(missing_ok=True)  # of a copy that a power cut has ended
    try:
        with source.open("rb") as reader, os.fdopen(_create(temporary), "wb") as writer:
            shutil.copyfileobj(reader, writer, 1024 * 1024)
            writer.flush()
            os.fsync(writer.fileno())
        os.chown(temporary, *owner, follow_symlinks=False)
        os.utime(temporary, (before.st_mtime, before.st_mtime))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return True


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def remove_file(path: Path) -> bool:
    """Remove a file or a link; return whether there was one. Raise OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def destroy_tokens(path: Path) -> bool:
    """Overwrite all tokens in a file where it lies, each step on the disk before the next. Return whether it had any.

    The same sectors are written again: a new file would leave the old one's bytes for anybody to find on the card.
    Raise OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, PATCHED_BYTES_MAX, 0)
        steps = tuple(find_patches(content))
        for step in steps:
            for patch in step:
                os.pwrite(descriptor, patch.data, patch.offset)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return bool(steps)
