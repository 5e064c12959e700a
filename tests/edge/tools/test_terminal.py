"""What the commands print, on a terminal that cannot show all of it."""

from __future__ import annotations

import io
import sys

import pytest

from tools import cli


def test_a_terminal_without_a_character_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """After any command has begun, what the encoding of stdout lacks is printed as question marks."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    assert cli.main(["--help"]) == 0
    print("/srv/größe/日本", flush=True)
    assert raw.getvalue().endswith(b"/srv/gr\xf6\xdfe/??\n")
