"""How our programs leave a terminal: the reader goes away, the disk is full, a file is not what was meant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import main as agent
from flchain_edge.process import word_size
from flchain_edge.process.command_line import EXIT_CONFIG, EXIT_IO, EXIT_UNREAD
from miner.cli import main as miner
from tools.cli import main as flchain

PROGRAMS = {"flchain": "tools.cli", "flchain-agent": "agent.cli", "flchain-miner": "miner.cli"}
PRINTING = (
    "flchain --help",
    "flchain sim --help",
    "flchain genesis example",
    "flchain model show {model}",
    "flchain-agent --help",
    "flchain-agent example",
    "flchain-miner logs --help",
)
COMPLAINING = ("flchain nonsense", "flchain audit {none}", "flchain-agent run --config {none}")
MODEL = Path(__file__).parents[3] / "tools" / "models" / "mlp.tflite"


# with it Python writes at once, and argparse takes its own failure to print help for success
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def start(line: str, folder: Path, **streams: int) -> subprocess.Popen[str]:
    """One of our programs, as a shell starts it."""
    program, *arguments = line.format(model=MODEL, none=folder / "none").split()
    command = [sys.executable, "-m", PROGRAMS[program], *arguments]
    return subprocess.Popen(command, text=True, env=ENVIRONMENT, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("line", PRINTING)
def test_a_reader_that_goes_away_ends_a_command_quietly(line: str, tmp_path: Path) -> None:
    """With nobody to read stdout, as after `| head`, a command ends with a shell's code for that and says nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    child = start(line, tmp_path, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = child.communicate()
    assert (child.returncode, err) == (EXIT_UNREAD, "")


@pytest.mark.parametrize("line", COMPLAINING)
def test_nobody_hears_the_complaint(line: str, tmp_path: Path) -> None:
    """With nobody to read stderr either, a command ends as quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    child = start(line, tmp_path, stdout=writing, stderr=writing)
    os.close(writing)
    assert child.wait() == EXIT_UNREAD


@pytest.mark.parametrize(
    ("line", "name"),
    [("flchain --help", "--help"), ("flchain-agent example", "flchain-agent"), ("flchain genesis example", "genesis")],
)
def test_output_to_a_full_disk_is_one_line(line: str, name: str, tmp_path: Path) -> None:
    """`flchain-agent example > agent.toml` on a full disk says so, with the exit code of a full disk."""
    with open("/dev/full", "w") as full:
        child = start(line, tmp_path, stdout=full.fileno(), stderr=subprocess.PIPE)
        _, err = child.communicate()
    assert child.returncode == EXIT_IO
    assert err.splitlines() == [f"error: {name}: No space left on device"]


@pytest.mark.parametrize("line", ["flchain --help", "flchain-agent example"])
def test_no_stdout_at_all(line: str, tmp_path: Path) -> None:
    """A program that is started with stdout closed does not fall over it."""
    program, *arguments = line.split()
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", PROGRAMS[program], *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("action", ["run", "check", "enroll", "doctor"])
@pytest.mark.parametrize("command", [agent, miner])
def test_a_32_bit_system_is_refused_in_a_sentence(
    command: Callable[[list[str]], int],
    action: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Programs of 32 bits, also on a 64-bit kernel, end with the word for configuration and what to do."""
    monkeypatch.setattr(word_size, "ADDRESS_BITS", 32)
    assert command([action, *(("--token", "x") if action == "enroll" else ("--config", "x"))]) == EXIT_CONFIG
    assert "FLchain needs 64: write the 64-bit image" in capsys.readouterr().err


WRONG = ("chain show {path} head", "chain tail {path}", "audit {path}", "genesis show {path}", "model show {path}")


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "binary"])
@pytest.mark.parametrize("line", WRONG)
def test_a_path_that_is_not_what_was_meant(
    line: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, a folder, and files of other kinds get one line that names the path, umlauts and all."""
    path = tmp_path / f"größe-{kind}"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"hello\n" if kind == "text" else bytes(range(256)) * 20)
    arguments = [str(path) if part == "{path}" else part for part in line.split()]
    assert flchain(arguments) == EXIT_CONFIG
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and str(path) in err and err.startswith("error: ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("emulate watch --port abc", "--port: must be a whole number, is 'abc'"),
        ("emulate watch --port 0", "--port: must be 1..65535, is 0"),
        ("emulate weather --rate nan", "--rate: must be a number, is 'nan'"),
        ("sim --seed x", "--seed: must be a whole number, is 'x'"),
        ("bench codecs --rounds 0", "--rounds: must be at least 1, is 0"),
        ("bench consensus --watts -1", "--watts: must be above 0, is -1"),
        ("stake transfer --amount 1 --to x --timeout y", "--timeout: must be a number, is 'y'"),
    ],
)
def test_a_number_that_is_none_is_told_in_words(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with an option never names a function or a type of ours."""
    with pytest.raises(SystemExit):
        flchain(line.split())
    err = capsys.readouterr().err
    assert "invalid" not in err and (words in err or "--to" in err)


def test_a_configuration_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An editor's Latin-1 is named with its line, and not with the words of a decoder."""
    (tmp_path / "network.toml").write_bytes('name = "x"\nmodel = "größe"\n'.encode("latin-1"))
    out = str(tmp_path / "genesis.cbor")
    assert flchain(["genesis", "make", "--network", str(tmp_path / "network.toml"), "--out", out]) == EXIT_CONFIG
    assert capsys.readouterr().err == "error: network.toml: is not UTF-8 text: byte 0xf6 in line 2\n"


def test_examples_are_written_where_they_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the very name, and not in a folder that was a slip of the pen."""
    assert flchain(["emulate", "examples", "--out", str(tmp_path / "mine")]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    for wrong in (tmp_path, tmp_path / "none" / "x.npz"):
        assert flchain(["emulate", "examples", "--out", str(wrong)]) == EXIT_CONFIG
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    assert "Is a directory" in capsys.readouterr().err
