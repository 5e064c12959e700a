"""Shares of the CPU: on made-up trees of control groups, on a made-up clock, and of real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from agent.edge.cpu.cgroup import compute_quota_us, open_cgroup1, open_cgroup2
from agent.edge.cpu.control import MECHANISMS, CpuControl, count_cores, open_cpu_control
from agent.edge.cpu.duty import Budget, DutyCycle, read_cpu_s
from agent.edge.cpu.values import CpuBoard, Unusable
from flchain.base.errors import ConfigError
from tools.bench.agent.cpu_shares import GAP_POINTS_MAX, burning, outweighing

ASKED = {"train": 0.24, "mine": 0.08}
CPU_S_MEASURED = 0.8


def lay_out_cgroup2(tmp_path: Path, *, pids: str = "", controllers: str = "cpu io memory pids") -> CpuBoard:
    """What a process in a unit with Delegate=yes sees."""
    own = tmp_path / "cgroup" / "system.slice" / "agent.service"
    own.mkdir(parents=True)
    (tmp_path / "cgroup" / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (own / "cgroup.controllers").write_text(controllers)
    (own / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (own / "cgroup.procs").write_text(pids or f"{os.getpid()}\n")
    return CpuBoard(4, 128_000_000, cgroup_root=tmp_path / "cgroup", proc_root=lay_out_proc(tmp_path, "0::"))


def lay_out_proc(tmp_path: Path, line: str) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"7:pids:/x\n{line}/system.slice/agent.service\n")
    return tmp_path / "proc"


def read(folder: Path, *names: str) -> tuple[str, ...]:
    return tuple((folder / name).read_text().strip() for name in names)


def test_cgroup2_gives_quota_weight_and_memory_limit(tmp_path: Path) -> None:
    """In a delegated group the agent moves to a leaf of its own, and each worker's group holds pid, quota and limit."""
    board = lay_out_cgroup2(tmp_path)
    own = board.cgroup_root / "system.slice" / "agent.service"
    mechanism = open_cgroup2(board)
    assert mechanism.limits_memory
    assert read(own, "agent/cgroup.procs", "cgroup.subtree_control") == (str(os.getpid()), "+memory")
    (own / "train").mkdir()
    (own / "train" / "memory.max").write_text("max")
    (own / "train" / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    mechanism.attach("train", 4242)
    mechanism.limit("train", 0.64 * 4)
    names = ("cgroup.procs", "memory.max", "cpu.max", "cpu.weight")
    assert read(own / "train", *names) == ("4242", "128000000", "256000 100000", "256")
    assert mechanism.count_oom_kills("train") == 1
    mechanism.limit("train", 4.0)
    assert read(own / "train", "cpu.max") == ("max 100000",)


def test_cgroup2_leaves_a_group_of_others_alone(tmp_path: Path) -> None:
    """A login session's group holds other processes: it is not the agent's to rearrange, and nothing is moved."""
    board = lay_out_cgroup2(tmp_path, pids=f"{os.getpid()}\n1\n")
    with pytest.raises(Unusable, match="holds process 1"):
        open_cgroup2(board)
    assert not (board.cgroup_root / "system.slice" / "agent.service" / "agent").exists()


@pytest.mark.parametrize(("what", "cause"), [("no cpu", "no cpu controller"), ("nothing", "not mounted")])
def test_cgroup2_says_why_it_is_unusable(tmp_path: Path, what: str, cause: str) -> None:
    """Each missing condition has its own words."""
    board = lay_out_cgroup2(tmp_path, controllers="io pids")
    if what == "nothing":
        (board.cgroup_root / "cgroup.controllers").unlink()
    with pytest.raises(Unusable, match=cause):
        open_cgroup2(board)


def test_cgroup1_gives_quota_and_shares_and_clears_up(tmp_path: Path) -> None:
    """Version 1's CPU controller: quota, period and shares; groups of agents that are dead are removed."""
    base = tmp_path / "cgroup" / "cpu" / "system.slice" / "agent.service"
    (base / "flchain-999999-train").mkdir(parents=True)
    for path in (tmp_path / "cgroup" / "cpu" / "cgroup.procs", base / "cpu.cfs_quota_us"):
        path.write_text("")
    board = CpuBoard(2, cgroup_root=tmp_path / "cgroup", proc_root=lay_out_proc(tmp_path, "4:cpu:"))
    mechanism = open_cgroup1(board)
    assert not (base / "flchain-999999-train").exists()
    mechanism.attach("mine", 77)
    mechanism.limit("mine", 0.1)
    group = base / f"flchain-{os.getpid()}-mine"
    names = ("cgroup.procs", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares")
    assert read(group, *names) == ("77", "10000", "100000", "102")
    mechanism.limit("mine", 2.0)
    assert read(group, "cpu.cfs_quota_us") == ("-1",)


@pytest.mark.parametrize("cores", [0.0001, 0.004, 0.02, 0.5, 3.9])
def test_quotas_are_what_the_kernel_takes(cores: float) -> None:
    """From a ten-thousandth of a core on, quota and period lie in the kernel's bounds; above 1 ms a second they fit."""
    quota, period = compute_quota_us(cores)
    assert quota >= 1_000 and 1_000 <= period <= 1_000_000
    assert quota / period == pytest.approx(max(cores, 0.001), rel=0.01)


def test_mechanisms_are_chosen_by_what_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """auto falls back to the duty cycle and says so once; a name that does not work here, or none, is an error."""
    board = CpuBoard(2, cgroup_root=tmp_path, proc_root=tmp_path)
    with caplog.at_level("INFO"):
        control = open_cpu_control("auto", board)
        control.announce()
    assert control.mechanism.name == "duty-cycle"
    assert [record.getMessage() for record in caplog.records] == ["cpu enforcement: duty-cycle"]
    with pytest.raises(ConfigError, match="cgroup2 does not work here: version 2 is not mounted"):
        open_cpu_control("cgroup2", board)
    with pytest.raises(ConfigError, match=", ".join(MECHANISMS)):
        open_cpu_control("turbo", board)


@pytest.mark.parametrize("share", [0.05, 0.36, 0.64, 0.9])
def test_budget_pays_out_its_share(share: float) -> None:
    """A greedy process on two cores gets its share within a point over 20 s, though ticks come up to 30 ms late."""
    budget, now, used, late = Budget(share * 2), 0.0, 0.0, 0.0
    delay = 0.005
    while now < 20.0:
        late = (late + 0.011) % 0.03
        elapsed = delay + late
        taken = elapsed * 2 if budget.is_running else 0.0
        now, used = now + elapsed, used + taken
        delay = budget.process_tick(elapsed, taken, 2)
    assert used / (now * 2) == pytest.approx(share, abs=0.01)


def read_machine_cpu_s() -> float:
    """CPU time of all cores together since the start, idle time included."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", ["cgroup2", "cgroup1", "duty-cycle"])
def test_processes_get_the_shares_that_were_asked(name: str) -> None:
    """Of two greedy processes each takes no more than its share of the machine's CPU time, and where nobody outweighs
    them they take it in the proportion that was asked, within five points.
    """
    cores = count_cores()
    try:
        control = CpuControl(MECHANISMS[name](CpuBoard(cores, weight_per_core=262_144)), cores)
    except Unusable as unusable:
        pytest.skip(f"{name} does not work here: {unusable}")

    async def measure(pids: dict[str, int]) -> tuple[dict[str, float], float]:
        for job, pid in pids.items():
            control.attach(job, pid)
            control.set_share(job, ASKED[job])
            control.set_busy(job, True)
        before, whole = {job: read_cpu_s(pid) for job, pid in pids.items()}, read_machine_cpu_s()
        while sum(read_cpu_s(pid) - before[job] for job, pid in pids.items()) < CPU_S_MEASURED:
            await asyncio.sleep(0.05)
        return {job: read_cpu_s(pid) - before[job] for job, pid in pids.items()}, read_machine_cpu_s() - whole

    with outweighing() as is_heavy, burning(len(ASKED), 1, 0) as burners:
        used, whole_s = asyncio.run(measure(dict(zip(ASKED, burners, strict=True))))
    control.close()
    for job, share in ASKED.items():
        assert 100 * used[job] / whole_s < 100 * share + GAP_POINTS_MAX
    if is_heavy:
        proportion = used["train"] / sum(used.values())
        assert 100 * abs(proportion - ASKED["train"] / sum(ASKED.values())) < GAP_POINTS_MAX


def is_counting(duty: DutyCycle) -> bool:
    return duty._jobs["train"].timer is not None


def test_duty_cycle_does_nothing_for_the_idle() -> None:
    """No timer runs for a job without work, nor for one with the whole CPU: an idle agent stays idle."""

    async def scenario() -> None:
        control = CpuControl(duty := DutyCycle(CpuBoard(2)), 2)
        with subprocess.Popen(("cat",), stdin=subprocess.PIPE) as process:
            control.attach("train", process.pid)
            control.set_share("train", 0.5)
            assert not is_counting(duty)
            control.set_busy("train", True)
            assert is_counting(duty)
            control.set_share("train", 1.0)
            assert not is_counting(duty)
            control.set_share("train", 0.5)
            control.set_busy("train", False)
            assert not is_counting(duty)
        control.close()

    asyncio.run(scenario())
