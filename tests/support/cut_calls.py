"""A power cut before any one call that changes a disk: that call and all later ones do not happen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHANGING = (
    "chmod", "chown", "fsync", "link", "mkdir", "pwrite", "remove", "rename", "replace", "rmdir", "symlink", "unlink",
    "utime",
)  # fmt: skip
"""Functions of `os` that change a disk; `open` does if it may write."""


class PowerCut(BaseException):
    """Caught by nothing, as a power cut is."""


@contextmanager
def cut_before(count: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `count` changing calls happen; the next one is the power cut, if the block makes so many."""
    done = 0

    def spend() -> None:
        nonlocal done
        done += 1
        if done > count:
            raise PowerCut

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            spend()
            return real(*arguments, **options)

        return call

    real_open = os.open

    def open_guarded(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            spend()
        return real_open(path, flags, *arguments, **options)

    with patch.context() as inner:
        for name in CHANGING:
            inner.setattr(os, name, guard(getattr(os, name)))
        inner.setattr(os, "open", open_guarded)
        yield
