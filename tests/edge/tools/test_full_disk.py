"""What our commands say where the disk is full: one line that names what was being written, and exit code 74."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError, FlchainError, LedgerCorrupt, TryAgain
from flchain_edge.process.command_line import (
    EXIT_CONFIG,
    EXIT_FAULT,
    EXIT_IO,
    EXIT_TRY_AGAIN,
    choose_exit_code,
    run_program,
)
from flchain_edge.storage.sqlite import StoreFull
from tools.cli import main as flchain


def build_refusal(number: int) -> ConfigError:
    """A ConfigError as it is raised about a file."""
    error = ConfigError(("x: no",))
    error.__cause__ = OSError(number, "no")
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreFull("no space"), EXIT_IO),
        (build_refusal(errno.ENOSPC), EXIT_IO),
        (build_refusal(errno.EROFS), EXIT_IO),
        (build_refusal(errno.EACCES), EXIT_CONFIG),
        (ConfigError(("x",)), EXIT_CONFIG),
        (TryAgain("later"), EXIT_TRY_AGAIN),
        (LedgerCorrupt(3, "x"), EXIT_FAULT),
        (FlchainError("x"), EXIT_FAULT),
    ],
)
def test_exit_codes(error: FlchainError, code: int) -> None:
    """An error has the exit code of docs/running.md, whichever program tells it; a full disk always 74."""
    assert choose_exit_code(error) == code


@pytest.mark.parametrize(
    "line",
    [
        "emulate examples --out /dev/full",
        "genesis make --network {folder}/network.toml --out {folder}/full",
        "registrar init --host x --broker y:1 --dir {folder}/registrar",
    ],
)
def test_a_full_disk_is_one_line(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the error is said, and not by a library when it is done with."""
    if "/dev/full" not in line:

        def refuse(*given: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "full"))

        monkeypatch.setattr(Path, "mkdir" if "registrar" in line else "open", refuse)
    code = flchain(line.format(folder=tmp_path).split())
    err = capsys.readouterr().err
    assert code == EXIT_IO, err
    assert len(err.splitlines()) == 1 and "No space left on device" in err


def test_of_a_copy_the_new_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk is that of the file that was written, not of the one that was read."""
    (tmp_path / "whole").write_bytes(bytes(100_000))

    def copy() -> int:
        shutil.copyfile(tmp_path / "whole", "/dev/full")
        return 0

    assert run_program(copy) == EXIT_IO
    assert "whole" not in capsys.readouterr().err
