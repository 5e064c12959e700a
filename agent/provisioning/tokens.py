"""Find enrolment tokens in a file's bytes, and what takes their place: text of the same length, for use in place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PREFIX, SPENT = b"flchain1/", b"destroyed"
assert len(PREFIX) == len(SPENT), "a destroyed token is as long as a token: the file is overwritten where it lies"
FILLER = b"#"
_TOKEN = re.compile(re.escape(PREFIX) + rb"[A-Za-z0-9._:%\[\]/#-]{40,400}")
"""Also what a power cut has left of one: its form does not count, and neither does the line it is on."""


@dataclass(frozen=True)
class Patch:
    """Bytes to write at an offset of the file."""

    offset: int
    data: bytes


def find_patches(content: bytes) -> Iterator[tuple[Patch, ...]]:
    """Yield the steps that destroy all tokens, each to be on the disk before the next.

    The prefix goes last. A power cut tears a step between two sectors; what is left is found again by its prefix.
    """
    found = [(match.start(), len(match[0]) - len(PREFIX)) for match in _TOKEN.finditer(content)]
    if found:
        yield tuple(Patch(start + len(PREFIX), FILLER * count) for start, count in found)
        yield tuple(Patch(start, SPENT) for start, _ in found)


def find_tokens(content: bytes) -> frozenset[bytes]:
    """Return the tokens that are whole: without those that a power cut has left half destroyed."""
    return frozenset(match[0] for match in _TOKEN.finditer(content) if FILLER not in match[0])


def blank_tokens(content: bytes) -> bytes:
    """Return the content as it is when its tokens have been destroyed.

    >>> blank_tokens(b'token = "flchain1/registrar.lan:8443/0123456789abcdef0123456789"')
    b'token = "destroyed#############################################"'
    """
    blanked = bytearray(content)
    for step in find_patches(content):
        for patch in step:
            blanked[patch.offset : patch.offset + len(patch.data)] = patch.data
    return bytes(blanked)


def is_spent(token: str) -> bool:
    """Return whether this is no token: none was given, or it has been destroyed.

    >>> is_spent(""), is_spent("destroyed#######"), is_spent("flchain1/registrar.lan:8443/...")
    (True, True, False)
    """
    return not token.strip() or token.startswith(SPENT.decode())
