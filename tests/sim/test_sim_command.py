"""`flchain sim`: the same trace from the same seed, faults that do happen, and a fork once too many lie."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.children import start_child
from tests.support.sim_faults import conspire
from tools.sim import cli
from tools.sim.attacks.byzantine import BEHAVIOURS
from tools.sim.chain import build_chain
from tools.sim.faults import FAULTS
from tools.sim.network import Network
from tools.sim.run import Options, run
from tools.sim.shrink import shrink
from tools.sim.sweep import draw_validators

ROOT = Path(__file__).resolve().parents[2]
CALM = frozenset[str]()


def test_one_seed_has_one_trace_in_every_process() -> None:
    """Two processes that order their sets differently print the same summary, trace hash included."""
    command = [sys.executable, "-m", "tools.cli", "sim", "--seed", "4", "--heights", "12", "--json"]
    printed = [
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, check=True)
        for salt in ("1", "2")
    ]
    assert printed[0].stdout == printed[1].stdout
    assert b'"trace_hash"' in printed[0].stdout


def test_another_seed_has_another_trace() -> None:
    """The hash tells runs apart."""
    first, second = (run(Options(seed, 4, 1, 0, frozenset(), 3))[1].trace_hash for seed in (1, 2))
    assert first != second


def test_all_faults_happen_and_do_no_harm() -> None:
    """With everything at once things are lost, crash and are cut off, and the chain still grows without a violation."""
    summaries = [run(Options(seed, 4, 2, 1, frozenset(FAULTS), 20))[1] for seed in range(4)]
    assert [summary.violations for summary in summaries] == [[]] * 4
    assert all(summary.heights >= 20 for summary in summaries)
    assert all(sum(getattr(s, name) for s in summaries) > 0 for name in ("lost", "crashes", "partitions"))


@pytest.mark.parametrize("kind", sorted(BEHAVIOURS))
def test_each_kind_of_liar_does_no_harm(kind: str) -> None:
    """Two of seven miners lie in one way: no violation, and whoever is accused of signing twice has done so."""
    summary = run(Options(3, 7, 1, 2, frozenset(), 10, (kind,)))[1]
    assert summary.violations == []
    assert set(summary.byzantine.values()) == {kind}
    if kind == "random":
        assert summary.accused, "somebody has heard both words"


def find_fork(seed: int, liars: list[str]) -> Network:
    network = Network(seed, 0, chain=build_chain(4, 1, score_margin_bp=2_000))
    conspire(network, liars)
    return network.run(lambda n: n.now > 8_000)


def test_two_liars_of_four_fork_the_chain_and_are_named() -> None:
    """f+1 conspirators: the checker finds two final blocks of one height, and those that signed both are the liars."""
    forked = [network for seed in range(3) if (network := find_fork(seed, ["m1", "m2"])).checker.forks]
    assert forked
    for network in forked:
        assert any("two final blocks" in violation for violation in network.violations)
        assert network.checker.get_double_signers() == network.checker.guilty
    accused = set().union(*(network.checker.accused for network in forked))
    assert accused, "an honest miner has noted: a validator has signed twice"
    assert all(network.checker.accused <= network.checker.guilty for network in forked)


def test_one_liar_of_four_does_not_fork_the_chain() -> None:
    """The same conspiracy by f alone ends without a violation."""
    assert [find_fork(seed, ["m1"]).violations for seed in range(2)] == [[]] * 2


def test_failing_run_says_how_to_repeat_it(monkeypatch, capsys) -> None:
    """A sweep that meets a violation prints the command that repeats it, then one with only the faults it needs."""
    monkeypatch.setattr("miner.core.agreement.on_gossip_timer", lambda state: (state, ()))
    monkeypatch.setattr("miner.core.scoring.repeat_scores", lambda state: ())
    monkeypatch.setattr("tools.sim.run.BOUND_MS", 4_000)
    code = cli.main(["--seeds", "0-9", "--devices", "1", "--heights", "6", "--kinds", "withhold", "--jobs", "1"])
    said = capsys.readouterr().err
    assert code == 1
    assert "violation: stalled" in said
    options = "--validators 4 --devices 1 --byzantine 1 --faults all --heights 6"
    repeat = re.search(rf"repeat it: flchain sim --seed (\d+) {options}", said)
    assert repeat is not None
    assert f"needed   : flchain sim --seed {repeat[1]} " in said


SWEEP = ["--seeds", "0-4", "--validators", "4-6", "--devices", "1", "--heights", "4", "--faults", "none", "--json"]


def test_sweep_is_the_same_in_any_number_of_processes(capsys) -> None:
    """One process or two: the same runs in order of seed, and one combined hash; only the time differs."""
    said = []
    for jobs in ("1", "2"):
        assert cli.main([*SWEEP, "--jobs", jobs]) == 0
        said.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for lines in said:
        lines[-1].pop("wall_s")
    assert said[0] == said[1]
    *runs, total = said[0]
    assert [run["command"].split()[3] for run in runs] == ["0", "1", "2", "3"]
    assert total["validators"] == Counter(run["command"].split()[5] for run in runs)
    hashes = b"".join(bytes.fromhex(run["trace_hash"]) for run in runs)
    assert total["combined_hash"] == sha256(hashes).hexdigest()


def test_range_of_validators_covers_all_of_it_and_prefers_the_small() -> None:
    """2,000 seeds draw each number from 4 to 21, four more often than twenty-one; a seed always draws the same."""
    drawn = Counter(draw_validators(seed, range(4, 22)) for seed in range(2_000))
    assert sorted(drawn) == list(range(4, 22))
    assert drawn[4] > 10 * drawn[21] > 0
    assert drawn == Counter(draw_validators(seed, range(4, 22)) for seed in range(2_000))


def test_interrupt_stops_a_sweep_at_once() -> None:
    """SIGINT to a sweep in two processes ends it with 130 and one sentence, and without a traceback."""
    command = [sys.executable, "-m", "tools.cli", "sim", "--seeds", "0-4000", "--faults", "none", "--devices", "1"]
    command += ["--heights", "2", "--jobs", "2", "--json"]
    with start_child(command, ROOT) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("{"), "the first run is over"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; " in said
    assert "Traceback" not in said


def test_machine_that_dies_is_a_violation(monkeypatch) -> None:
    """An assertion inside a machine ends the run with a violation, so that a sweep names the seed."""

    def die(*arguments: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("miner.core.agreement.advance_agreement", die)
    assert "a machine dies of AssertionError('ours') in die" in run(Options(0, 4, 1, 0, CALM, 3))[1].violations[0]


def test_shrinking_keeps_what_fails(monkeypatch) -> None:
    """Faults that the failure does not need are dropped."""
    monkeypatch.setattr("flchain.consensus.bft_types.ValidatorSet.is_quorum", lambda self, power: power > 0)
    smaller = shrink(Options(0, 4, 1, 1, frozenset(FAULTS), 3, ("score",)))
    assert smaller.faults == frozenset()
    assert smaller.byzantine == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["--validators", "3"],
        ["--validators", "4-22"],
        ["--validators", "9-5"],
        ["--faults", "rain"],
        ["--byzantine", "4"],
        ["--heights", "0"],
        ["--jobs", "0"],
    ],
)
def test_wrong_options_are_refused(wrong: list[str], capsys) -> None:
    """Exit code 2 and a sentence with the option's name."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["--seed", "1", *wrong])
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err
