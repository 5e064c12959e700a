"""The parts of `doctor`: checks that only look, each with a time limit, and findings for people."""

from __future__ import annotations

import argparse
import json
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from flchain.base.errors import ConfigError, FlchainError

TIMEOUT_S = 10.0
NAME_WIDTH = 12


class Level(IntEnum):
    """How bad a finding is, from good to bad."""

    OK = 0
    WARN = 1
    """It works, but needs attention."""
    FAIL = 2
    """It does not work."""


@dataclass(frozen=True)
class Finding:
    """One line of a check: what was found, and what to do about it."""

    level: Level
    reason: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """One thing to check. `run` may take `timeout_s`; whatever it raises becomes a finding."""

    name: str
    run: Callable[[], Iterable[Finding]]
    timeout_s: float = TIMEOUT_S


def ok(reason: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(Level.OK, reason)


def warn(reason: str, advice: str) -> Finding:
    """Return a finding that something works, but needs attention."""
    return Finding(Level.WARN, reason, advice)


def fail(reason: str, advice: str) -> Finding:
    """Return a finding that something does not work."""
    return Finding(Level.FAIL, reason, advice)


def run_check(check: Check) -> tuple[Finding, ...]:
    """Run a check in a thread, which is left behind if it hangs: a disk or a name server may never answer."""
    found: list[Finding] = []

    def work() -> None:
        try:
            found.extend(check.run())
        except ConfigError as error:
            found.extend(
                fail(problem, "correct the configuration, or the file that it names") for problem in error.problems
            )
        except PermissionError as error:
            found.append(fail(f"{error.filename}: {error.strerror}", "ask as the user that the node runs as, or root"))
        except (FlchainError, OSError) as error:
            found.append(fail(str(error) or type(error).__name__, "see the reason"))
        except Exception as error:  # a bug in one check must not keep the others from running
            found.append(fail(f"the check itself failed: {type(error).__name__}: {error}", "please report this"))

    thread = threading.Thread(target=work, name=f"check-{check.name}", daemon=True)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)  # findings say what is wrong; the log would say it twice
    try:
        thread.start()
        thread.join(check.timeout_s)
    finally:
        root.setLevel(level)
    if thread.is_alive():
        return (fail(f"no answer within {check.timeout_s:g} s", "something hangs: a disk, a sensor, or the network"),)
    return tuple(found)


def run_checkup(checks: Iterable[Check], arguments: argparse.Namespace) -> int:
    """Run all checks, print each as it ends (or one JSON object), and return the exit code: 1 if anything failed."""
    findings: list[tuple[str, Finding]] = []
    for check in checks:
        for finding in run_check(check):
            findings.append((check.name, finding))
            if not arguments.json:
                print(format_finding(check.name, finding), flush=True)
    counts = {level.name: sum(finding.level is level for _, finding in findings) for level in Level}
    if arguments.json:
        rows = [
            {"check": name, "level": finding.level.name, "reason": finding.reason, "advice": finding.advice}
            for name, finding in findings
        ]
        print(json.dumps({"findings": rows, **{name.lower(): count for name, count in counts.items()}}))
    else:
        print(f"\n{counts['OK']} fine, {counts['WARN']} to look at, {counts['FAIL']} failed")
    return int(counts[Level.FAIL.name] > 0)


def format_finding(name: str, finding: Finding) -> str:
    """Format a finding for people, with what to do below its reason."""
    line = f"{finding.level.name:<6}{name:<{NAME_WIDTH}}{finding.reason}"
    return f"{line}\n{'':<{6 + NAME_WIDTH}}-> {finding.advice}" if finding.advice else line
