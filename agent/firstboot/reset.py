"""Factory reset: remove key, data, settings and token, so that the board waits for a provisioning file again.

The file that asked for it goes last: a reset that a power cut has ended begins again at the next boot.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.firstboot.announce import clear
from agent.firstboot.apply import remove_applied
from agent.firstboot.disk import PATCHED_BYTES_MAX, destroy_tokens, remove_file, write_file
from agent.firstboot.form import read_form
from agent.firstboot.places import Places
from agent.firstboot.programs import Programs
from agent.provisioning.settings import FILE
from agent.provisioning.tokens import find_tokens
from flchain.base.errors import ConfigError
from flchain_edge.keys.private_files import sync_folder

UNITS = ("flchain-agent.service", "flchain-enroll.service")


def reset(places: Places, programs: Programs) -> Iterator[str]:
    """Reset the board, and yield what was removed. Raise OSError.

    A provisioning file with a token that was not taken yet is a new one, for the time after the reset: it stays. One
    without would bring back the old settings: it goes.
    """
    if places.find_reset_file() is None:
        write_file(places.reset_asked, b"")
    programs.run("systemctl", "stop", *UNITS)
    yield from _destroy_taken(places)
    for folder in (places.agent, places.state):
        yield from _empty(folder, but=places.reset_asked)
    for path in (*places.token_credentials, places.passphrase_credential, places.report):
        if path.is_file():
            destroy_tokens(path)
            remove_file(path)
            yield str(path)
    yield from remove_applied(places)
    clear(places)
    for folder in places.boot_folders:
        path = folder / FILE
        if path.is_file() and not _has_token(path) and remove_file(path):
            yield str(path)
    while (asked := places.find_reset_file()) is not None:
        shutil.rmtree(asked) if asked.is_dir() else asked.unlink()
        sync_folder(asked.parent)
        if asked != places.reset_asked:
            yield str(asked)


def _destroy_taken(places: Places) -> Iterator[str]:
    """Destroy the token that this board has taken, used or not, in each file that holds no other.

    What was taken is the list's end, so a power cut leaves it to be compared with.
    """
    taken = find_tokens(places.token.read_bytes()) if places.token.is_file() else frozenset()
    for path in places.list_token_files():
        if find_tokens(_read_start(path)) <= taken and destroy_tokens(path):
            yield f"the token in {path}"


def _read_start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(PATCHED_BYTES_MAX)


def _empty(folder: Path, but: Path) -> Iterator[str]:
    """Remove all that is in a folder, `but` one file; follow no link out of it."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path == but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        yield str(path)


def _has_token(path: Path) -> bool:
    """Return whether the file has a token to use. A file with problems is somebody's new one, and is kept, too."""
    try:
        return bool(read_form(path.read_bytes(), FILE, path.parent).form.token)
    except ConfigError:
        return True
