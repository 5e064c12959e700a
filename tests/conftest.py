"""What every test run shares: hypothesis profiles, and which folders this environment can run."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Deadlines, and drawing that takes long, judge the machine and not the code. CI draws the same examples each time, so
# that a red run can be repeated.
SLOW = (HealthCheck.too_slow,)
settings.register_profile("dev", deadline=None, suppress_health_check=SLOW)
settings.register_profile("ci", deadline=None, suppress_health_check=SLOW, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# folder -> (the module it needs, the make target of the environment that has it)
_ELSEWHERE = {"tf": ("tensorflow", "test-model"), "oracle": ("cwt", "test-oracle")}

collect_ignore = [folder for folder, (module, _) in _ELSEWHERE.items() if importlib.util.find_spec(module) is None]

# Roots, containers, emulated machines need root, and minutes: they run where they are named (make test-debs, ...).
MACHINES = Path(__file__).parent / "machines"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the folder of machines out of a run that does not name it."""
    named = [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]
    is_named = any(path.is_relative_to(MACHINES) for path in named)
    return True if collection_path == MACHINES and not is_named else None


def pytest_configure() -> None:
    """Let Ctrl-C mean what it means at a terminal, also for a run that a shell has put into the background.

    There SIGINT is ignored, which every child inherits: one that a test interrupts would run for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    """Say what is left out here, so that nobody takes a part for the whole."""
    return [f"not run in this environment: tests/{folder} (make {_ELSEWHERE[folder][1]})" for folder in collect_ignore]
