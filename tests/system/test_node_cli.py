"""`flchain-miner` and `flchain-agent` as an operator meets them: what they print, and the exit codes systemd sees."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.cli import main as agent_main
from flchain_edge.model.tflite import TfliteModel
from miner.cli import main as miner_main
from tools.cli import main as flchain
from tools.network.layout import get_model_file

Main = Callable[[Sequence[str]], int]
MAINS: dict[str, Main] = {"miner": miner_main, "agent": agent_main}
EXIT_FAULT, EXIT_CONFIG = 1, 78

BAD = """
genesis = 7
modle = "model.tflite"
until_round = -1
[key]
[mqtt]
port = 99999
[log]
level = "loud"
"""


@pytest.fixture(autouse=True)
def keep_logging() -> Iterator[None]:
    """The commands set up logging for their process, which here is pytest's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=sorted(MAINS))
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write_example(folder: Path, role: str, capsys: pytest.CaptureFixture[str]) -> Path:
    """The configuration that the program itself prints, in a folder of the node's own."""
    config = folder / role / f"{role}.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    assert MAINS[role](["example"]) == 0
    config.write_text(capsys.readouterr().out)
    return config


def set_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """Genesis, model and examples for one miner and one agent: from what the programs print, as in docs/running.md."""
    configs = {role: write_example(folder, role, capsys) for role in MAINS}
    keys = {}
    for role, config in configs.items():
        assert MAINS[role](["key", "--config", str(config)]) == 0
        keys[role] = capsys.readouterr().out
    found = re.search(r'^public_key = "(\w{64})"$', keys["miner"], re.MULTILINE)
    assert found is not None
    network = folder / "network.toml"
    device = re.sub("^# home = .*$", f'home = "{found[1]}"', keys["agent"], flags=re.MULTILINE)
    network.write_text(f'name = "cli"\nmodel = "model.tflite"\n{keys["miner"]}\n{device}\n')
    shutil.copy(get_model_file("mlp"), folder / "model.tflite")
    assert flchain(["genesis", "make", "--network", str(network), "--out", str(folder / "genesis.cbor")]) == 0
    shape = TfliteModel((folder / "model.tflite").read_bytes()).input_shape
    for config in configs.values():
        shutil.copy(folder / "model.tflite", config.parent)
        shutil.copy(folder / "genesis.cbor", config.parent)
        np.savez(config.parent / "examples.npz", x=np.zeros((4, *shape), np.float32), y=np.zeros(4, np.int32))
    capsys.readouterr()
    return configs


def test_all_problems_of_a_bad_configuration_are_told_at_once(tmp_path: Path, role: str) -> None:
    """A configuration with nine mistakes gives nine lines with file and key, nothing on stdout, and exit code 78."""
    (tmp_path / "bad.toml").write_text(BAD)
    command = [sys.executable, "-m", f"{role}.cli", "run", "--config", str(tmp_path / "bad.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_CONFIG and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 9 and all(line.startswith("error: bad.toml: ") for line in lines)
    for key in ("modle", "genesis", "model", "examples", "data_dir", "[key] file", "[mqtt] port", "[log] level"):
        assert sum(f"bad.toml: {key}:" in line for line in lines) == 1, key
    assert "did you mean model?" in done.stderr


def test_the_printed_example_becomes_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples, what `key` prints pasted into a network file, and the files in place pass `check` unchanged."""
    for role, config in set_up(tmp_path, capsys).items():
        assert MAINS[role](["check", "--config", str(config)]) == 0
        out, err = capsys.readouterr()
        assert "no problem found" in out and err == ""
        assert not (config.parent / "data").exists(), "check makes nothing"


@pytest.mark.parametrize("action", ["check", "run"])
def test_all_files_that_are_missing_are_told_at_once(
    action: str, tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration whose files are not there yet names genesis, model and data, each in a line."""
    config = write_example(tmp_path, role, capsys)
    assert MAINS[role]([action, "--config", str(config)]) == EXIT_CONFIG
    lines = capsys.readouterr().err.splitlines()
    for name in ("genesis.cbor", "model.tflite", "examples.npz"):
        assert sum(name in line for line in lines) == 1, lines
    assert (config.parent / "key.pem").exists() == (action == "run"), "check makes no key"


def test_files_that_do_not_fit_are_told_at_once(tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels that the model has no class for, and a device's key that is not on the chain, are told by check and run; a
    miner may win its seat later."""
    config = set_up(tmp_path, capsys)[role]
    shape = TfliteModel((tmp_path / "model.tflite").read_bytes()).input_shape
    np.savez(config.parent / "examples.npz", x=np.zeros((2, *shape), np.float32), y=np.array([0, 99]))
    (config.parent / "key.pem").unlink()
    assert MAINS[role](["key", "--config", str(config)]) == 0
    for action in ("check", "run"):
        capsys.readouterr()
        assert MAINS[role]([action, "--config", str(config)]) == EXIT_CONFIG
        lines = capsys.readouterr().err.splitlines()
        assert any("labels must be" in line for line in lines)
        strange = [line for line in lines if "of this chain" in line and "key.pem" in line]
        assert len(strange) == (role == "agent") == len(lines) - 1


def test_another_model_than_the_chains_is_refused(
    tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node with another model file prints both hashes."""
    config = set_up(tmp_path, capsys)[role]
    shutil.copy(get_model_file("cnn"), config.parent / "model.tflite")
    assert MAINS[role](["check", "--config", str(config)]) == EXIT_CONFIG
    assert len(re.findall(r"\b[0-9a-f]{64}\b", capsys.readouterr().err)) == 2


def test_key_is_stable_and_private(tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`key` makes the file once, readable by its owner alone, and prints the same lines ever after."""
    config = write_example(tmp_path, role, capsys)
    printed = []
    for _ in range(2):
        assert MAINS[role](["key", "--config", str(config)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert (config.parent / "key.pem").stat().st_mode & 0o777 == 0o600
    assert ("[[validators]]" if role == "miner" else "[[devices]]") in printed[0]


def test_a_damaged_database_stops_the_start(tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that is none is the disk's fault: exit code 1, one line that says what to do."""
    config = set_up(tmp_path, capsys)[role]
    data = config.parent / "data"
    data.mkdir()
    (data / ("ledger.db" if role == "miner" else "agent.db")).write_bytes(b"not a database " * 1000)
    assert MAINS[role](["run", "--config", str(config)]) == EXIT_FAULT
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "damaged" in err and f"flchain-{role} resync --config {config}" in err
    assert "height" not in err and err.startswith(f"error: the database is damaged: {config.parent}"), err


def test_resync_does_what_the_error_says(tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that a damaged start names moves the database aside; a miner's asks for the operator's word first."""
    config = set_up(tmp_path, capsys)[role]
    data = config.parent / "data"
    data.mkdir()
    name = "ledger.db" if role == "miner" else "agent.db"
    (data / name).write_bytes(b"not a database " * 1000)
    command = ["resync", "--config", str(config)]
    if role == "miner":
        assert MAINS[role](command) == EXIT_FAULT
        assert "--i-lost-my-votes" in capsys.readouterr().err
        command.append("--i-lost-my-votes")
    assert MAINS[role](command) == 0
    assert f"{name}.damaged-1" in capsys.readouterr().out
    assert (data / f"{name}.damaged-1").read_bytes().startswith(b"not a database")


def test_resync_leaves_what_is_sound(tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a database there is nothing to repair, and a sound one is left alone."""
    config = set_up(tmp_path, capsys)[role]
    assert MAINS[role](["resync", "--config", str(config)]) == EXIT_CONFIG
    assert "no such file" in capsys.readouterr().err


def test_export_and_import_of_an_empty_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands themselves: import of a file that is none is 78; an export of no ledger too."""
    config = set_up(tmp_path, capsys)["miner"]
    (tmp_path / "none").write_bytes(b"none")
    assert miner_main(["export", "--config", str(config), "--out", str(tmp_path / "out")]) == EXIT_CONFIG
    assert miner_main(["import", "--config", str(config), str(tmp_path / "none")]) == EXIT_CONFIG
    assert "no export" in capsys.readouterr().err
    assert miner_main(["export", "--config", str(config), "--out", str(tmp_path / "out")]) == 0
    assert miner_main(["import", "--config", str(config), str(tmp_path / "out")]) == 0
    assert miner_main(["resync", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "0 blocks" in out and "0 new blocks" in out and "nothing done" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["check", "--help"], ["key", "--help"], ["resync", "--help"]]
)
def test_help_is_everywhere(arguments: list[str], role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself on stdout."""
    with pytest.raises(SystemExit) as left:
        MAINS[role](arguments)
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: flchain-{role}")


def test_audit_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """So does `flchain audit`, exit codes included."""
    with pytest.raises(SystemExit) as left:
        flchain(["audit", "--help"])
    assert left.value.code == 0
    assert "Exit code" in capsys.readouterr().out
