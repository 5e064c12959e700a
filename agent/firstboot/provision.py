"""The one pass of flchain-provision: read the file, keep it, apply it, hand on or destroy the token, say how it stands.

It is run at each boot and by hand. Each step looks at what is there and does what is missing, so a pass that a power
cut has ended is completed by the next. The order is what matters: the token is on the data partition before the
settings that came with it, and it is destroyed only once agent.toml, the last file of an enrolment, is there.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.edge.power.files import BoardRoots, SensorFiles
from agent.edge.power.profiles import choose_board
from agent.edge.power.settings import PowerSettings
from agent.firstboot.announce import announce
from agent.firstboot.apply import apply_form
from agent.firstboot.button import is_held, open_line
from agent.firstboot.disk import destroy_tokens, is_full, remove_file, write_file
from agent.firstboot.form import Provisioning, read_form
from agent.firstboot.keep import keep
from agent.firstboot.places import Places
from agent.firstboot.programs import Programs
from agent.firstboot.reset import reset
from agent.provisioning.announcement import BoardFacts
from agent.provisioning.settings import FILE
from flchain.base.errors import ConfigError
from flchain_edge.settings.config import CONFIG_BYTES_MAX


@dataclass
class Outcome:
    """What a pass came to: what it did, and what it could not do."""

    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_full: bool = False
    """A disk is full, so something is missing that the next pass will do."""

    def attempt(self, act: Callable[[], Iterable[str]], path: Path) -> None:
        """Do a step. A problem of it is a line of the outcome and keeps no other step from being done."""
        try:
            self.done.extend(act())
        except ConfigError as error:
            self.problems += error.problems
        except OSError as error:
            self.is_full |= is_full(error)
            self.problems.append(f"{error.filename or path}: {error.strerror or error}")


def provision(places: Places, programs: Programs) -> tuple[Outcome, BoardFacts]:
    """Do one pass. Neither a wrong file nor a full disk raises: the outcome says it."""
    outcome = Outcome()
    _clean(places, outcome)
    provisioning = _take(places, outcome) or _read_form(places.settings, places.agent, outcome)
    if provisioning is not None:
        applied = apply_form(provisioning.form, places, programs)
        outcome.done += applied.done
        outcome.problems += applied.problems
    return _finish(places, programs, outcome)


def settle(places: Places, programs: Programs) -> tuple[Outcome, BoardFacts]:
    """Do what has to be done after each attempt to enrol: destroy the token or hand it on, and say how it stands."""
    outcome = Outcome()
    _clean(places, outcome)
    return _finish(places, programs, outcome)


def boot(places: Places, programs: Programs) -> tuple[Outcome, BoardFacts]:
    """Do one pass at the start of the system, after the reset that a file or the button asks for."""
    outcome = Outcome()
    if places.find_reset_file() is not None or _is_button_held(places, outcome):
        outcome.attempt(lambda: (f"reset: removed {path}" for path in reset(places, programs)), places.state)
    passed, facts = provision(places, programs)
    return Outcome(outcome.done + passed.done, outcome.problems + passed.problems, passed.is_full), facts


def _is_button_held(places: Places, outcome: Outcome) -> bool:
    """Ask the button of the file on the boot partition, or that of the settings kept."""
    silent = Outcome()  # problems of the files are said by the pass
    path = places.find_file()
    found = _read_form(path, path.parent, silent) if path is not None else None
    found = found or _read_form(places.settings, places.agent, silent)
    if found is None or found.form.button is None:
        return False
    button = found.form.button
    try:
        name = button.line or _get_profile_line(places)
        with open_line(name, button.active_low, places.root / "dev") as line:
            return is_held(line, button.hold_s)
    except (OSError, LookupError, ConfigError) as error:
        outcome.problems.append(f"[button]: {error}")
        return False


def _get_profile_line(places: Places) -> str:
    """Return the line of the board's profile. Raise LookupError, ConfigError."""
    board = choose_board(
        PowerSettings(), SensorFiles(BoardRoots(places.root / "sys", places.root / "proc")), platform.machine()
    )
    if board.file is None or not board.file.reset_line:
        raise LookupError(f"the profile of {board.model} names no line: give one, see: gpioinfo")
    return board.file.reset_line


def _clean(places: Places, outcome: Outcome) -> None:
    """Drop what power cuts have left. Destroy the token of an enrolled board, before anything reads half of it."""
    for path in places.list_leftovers():
        outcome.attempt(partial(_drop, path), path)
    for path in places.list_token_files() if places.is_enrolled else ():
        outcome.attempt(partial(_destroy, path, places), path)


def _finish(places: Places, programs: Programs, outcome: Outcome) -> tuple[Outcome, BoardFacts]:
    outcome.attempt(lambda: _hand_on(places), places.credentials)
    return outcome, announce(places, programs, tuple(outcome.problems))


def _drop(path: Path) -> Iterable[str]:
    """Remove what a power cut has left of a file that was being written; it may hold a token."""
    destroy_tokens(path)
    remove_file(path)
    return ()


def _destroy(path: Path, places: Places) -> Iterable[str]:
    was_there = destroy_tokens(path)
    if path == places.token or path in places.token_credentials:
        remove_file(path)
    if was_there:
        yield f"destroyed the token in {path}"


def _hand_on(places: Places) -> Iterable[str]:
    """Put token and passphrase where systemd looks for the credentials of a unit: into memory."""
    wanted = [(places.passphrase, places.passphrase_credential)]
    if not places.is_enrolled:
        wanted.append((places.token, places.token_credentials[0]))
    for source, target in wanted:
        if source.is_file():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(target, source.read_bytes())
    return ()


def _take(places: Places, outcome: Outcome) -> Provisioning | None:
    """Return the file's content, and keep it; None if there is no file, or a wrong one."""
    path = places.find_file()
    if path is None:
        if (misnamed := places.find_misnamed()) is not None:
            outcome.problems.append(f"{misnamed.name}: rename it to {FILE} (its ending may be hidden)")
        return None
    taken: list[Provisioning] = []

    def take() -> Iterable[str]:
        with path.open("rb") as stream:
            raw = stream.read(CONFIG_BYTES_MAX + 1)
        provisioning = read_form(raw, FILE, path.parent)
        taken.append(provisioning)  # also a full disk must not keep it from being applied
        return keep(provisioning, raw, path.parent, places)

    outcome.attempt(take, path)
    return taken[0] if taken else None


def _read_form(path: Path, folder: Path, outcome: Outcome) -> Provisioning | None:
    """Return what a file says whose data files lie in `folder`; None if there is none, or a wrong one."""
    found: list[Provisioning] = []

    def read() -> Iterable[str]:
        if path.is_file():
            found.append(read_form(path.read_bytes(), FILE, folder))
        return ()

    outcome.attempt(read, path)
    return found[0] if found else None
