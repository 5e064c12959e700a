"""`flchain fleet`: key, list, update, status, halt."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import re
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, TryAgain
from flchain.base.types import SHARE_ALL, Address
from flchain.wire.release import WINDOW_S_MAX, WINDOW_S_MIN
from flchain_edge.enrolment.messages import parse_token
from flchain_edge.keys.keystore import load_passphrase
from flchain_edge.process.command_line import EXIT_INTERRUPTED, EXIT_TRY_AGAIN, CommandParser, add_command
from tools.fleet.debs import read_folder
from tools.fleet.folder import DEFAULT_FOLDER, FleetFolder, make_folder, open_folder, renew_certificate
from tools.fleet.link import SEEN_FILE, Fleet, FleetLink, holding_link
from tools.fleet.progress import build_json as build_rollout_json
from tools.fleet.progress import format_boards, format_end, format_tranche
from tools.fleet.rollout import HEALTH_MIN, PATIENCE_S, SOAK_S, TRANCHES, Rollout, Stage, is_version
from tools.fleet.roster import choose
from tools.fleet.state import Saved
from tools.fleet.table import WIDTH_MIN, build_json, format_roster
from tools.fleet.update import WINDOW_S, Wish, find_known, run_halt, run_update, see
from tools.registrar.register import REGISTER_FILE, Register

EXIT_UNWELL = 3
"""A board needs somebody; a rollout was halted."""
WATCH_S = 2.0
WAIT_S = 10.0
"""How long to wait for another command that is connected."""
SPAN = re.compile(r"(\d{1,6})(s|m|h|d)?")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, None: 1}
CLEAR = "\x1b[H\x1b[2J"


def parse_span(text: str) -> int:
    """Return seconds: 30m, 12h, 90s, 2d. Raise argparse's error."""
    found = SPAN.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time: 90s, 30m, 12h, 2d")
    return int(found[1]) * SECONDS[found[2]]


def parse_tranches(text: str) -> tuple[int, ...]:
    """Return shares in basis points from percents. Raise argparse's error."""
    try:
        shares = tuple(round(100 * float(part)) for part in text.split(","))
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: percents that rise, as 5,25,100") from error
    return shares


def run_key(arguments: argparse.Namespace) -> int:
    """Make the operator's keys and get a certificate, or renew it. Raise ConfigError, TryAgain."""
    path = arguments.dir
    if (path / "fleet.toml").is_file():
        folder = open_folder(path)
        until = renew_certificate(folder, load_identity(folder, arguments))
        print(f"{path}: the certificate is valid until {until}")
        return 0
    if arguments.token is None:
        raise ConfigError(("--token: is missing; make one with: flchain registrar token --role operator",))
    passphrase = load_passphrase(None, arguments.passphrase_file) if arguments.passphrase_file else None
    if arguments.passphrase and passphrase is None:
        passphrase = _ask_new_passphrase()
    identity = make_folder(path, parse_token(arguments.token), passphrase, arguments.passphrase_file)
    print(f"{path}: the key that signs releases, of operator {identity.address.hex()}")
    print("next: make the brokers' files again (flchain registrar broker) and reload them; boards learn this operator")
    print("when they renew their certificates, or at once with: flchain-agent renew. Keep a copy of this folder")
    return 0


def _ask_new_passphrase() -> str:
    first = getpass.getpass("passphrase for the key: ")
    if not first or getpass.getpass("again: ") != first:
        raise ConfigError(("passphrase: is empty, or not the same twice; nothing was made",))
    return first


def load_identity(folder: FleetFolder, arguments: argparse.Namespace) -> Identity:
    """Return the key that signs, and ask for its passphrase on a terminal. Raise ConfigError."""
    if arguments.passphrase_file is not None:
        return folder.load_identity(load_passphrase(None, arguments.passphrase_file))
    if not folder.is_key_encrypted():
        return folder.load_identity(None)
    if not sys.stdin.isatty():
        raise ConfigError((f"{folder.settings.key.file}: is encrypted: --passphrase-file FILE",))
    return folder.load_identity(getpass.getpass("passphrase of the key: "))


def run_list(arguments: argparse.Namespace) -> int:
    """Print all boards; return EXIT_UNWELL if somebody has to look at one. Raise ConfigError, TryAgain."""
    fleet, code = open_fleet(arguments), 0

    def show() -> None:
        nonlocal code
        boards = choose(fleet.list_boards(time.time()), arguments.label)
        code = 0 if all(board.standing.is_good for board in boards) else EXIT_UNWELL
        if arguments.json:
            print(json.dumps(build_json(boards), indent=None if arguments.watch else 2), flush=True)
            return
        is_terminal = sys.stdout.isatty()
        lines = format_roster(boards, width=_get_width(), has_colours=is_terminal)
        if arguments.watch and is_terminal:
            print(CLEAR, end="")
        print("\n".join(lines), flush=True)
        _warn(fleet)

    _hear(fleet, show, is_watching=arguments.watch)
    return code


def _get_width() -> int:
    return shutil.get_terminal_size((WIDTH_MIN, 24)).columns


def _warn(fleet: Fleet) -> None:
    notes = [fleet.folder.describe_certificate()]
    if fleet.strange:
        names = ", ".join(sorted(address.hex()[:12] for address in fleet.strange)[:5])
        notes.append(f"{len(fleet.strange)} boards speak another version than this tool, or not their own: {names}")
    for note in notes:
        if note:
            print(f"warning: {note}", file=sys.stderr)


def _hear(fleet: Fleet, show: Callable[[], object], *, is_watching: bool) -> None:
    """Hear what the broker keeps, or what the command that is connected has heard; then show it, once or again."""
    until = time.monotonic() + WAIT_S
    while True:
        with holding_link(fleet.folder) as is_ours:
            if is_ours:
                asyncio.run(_listen(fleet, show, is_watching=is_watching))
                return
        if fleet.read(fleet.folder.path / SEEN_FILE, time.time()):
            show()
            if not is_watching:
                return
            time.sleep(WATCH_S)
            until = time.monotonic() + WAIT_S
        elif time.monotonic() > until:
            raise TryAgain("another flchain fleet command uses the connection and does not answer: end it")
        else:
            time.sleep(0.2)


async def _listen(fleet: Fleet, show: Callable[[], object], *, is_watching: bool) -> None:
    async with FleetLink(fleet).running() as link:
        await link.gather()
        show()
        while is_watching:
            await asyncio.sleep(WATCH_S)
            show()


def run_update_command(arguments: argparse.Namespace) -> int:
    """Roll a version out in the foreground; return EXIT_UNWELL if it halts. Raise ConfigError, TryAgain."""
    fleet = open_fleet(arguments)
    debs = () if is_version(arguments.release) else read_folder(Path(arguments.release))
    version = debs[0].version if debs else arguments.release
    if arguments.window is not None and not WINDOW_S_MIN <= arguments.window <= WINDOW_S_MAX:
        raise ConfigError((f"--window: must be {WINDOW_S_MIN}s to {WINDOW_S_MAX // 3_600}h",))
    wish = Wish(version, debs, _read_options(arguments), arguments.window, is_again=arguments.again)
    wish.build_plan()  # what is wrong with the options is told before anybody is asked
    identity = load_identity(fleet.folder, arguments)
    if fleet.folder.describe_certificate():
        renew_certificate(fleet.folder, identity)

    def say(text: str) -> None:
        when = time.strftime("%H:%M:%S")
        print("\n".join(f"{when}  {line}" for line in text.splitlines()), flush=True)

    rollout = _interruptible(lambda: run_update(fleet, identity, wish, say), fleet, say)
    if rollout is None:
        return EXIT_INTERRUPTED
    return 0 if rollout.stage is Stage.DONE else EXIT_UNWELL


def _read_options(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what the operator has named of the plan."""
    given = {
        "tranches_bp": arguments.tranches,
        "soak_s": arguments.soak,
        "health_min": arguments.health_min,
        "patience_s": arguments.patience,
    }
    return {name: value for name, value in given.items() if value is not None}


def _interruptible(act: Callable[[], Awaitable[Rollout]], fleet: Fleet, say: Callable[[str], None]) -> Rollout | None:
    async def run() -> Rollout:
        return await act()

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        known = find_known(fleet)
        if known is not None:
            say(format_end(known.rollout))
        return None


def run_status(arguments: argparse.Namespace) -> int:
    """Print the newest rollout by tranche and board; return EXIT_UNWELL if it was halted."""
    fleet = open_fleet(arguments)
    found: list[Saved] = []

    def show() -> None:
        known = find_known(fleet)
        found[:] = [] if known is None else [known]
        if known is None:
            print("null" if arguments.json else "no release was announced yet: flchain fleet update DIR", flush=True)
            return
        candidates = see(fleet, known)
        if arguments.json:
            print(json.dumps(build_rollout_json(known.rollout, candidates, known.sequence)), flush=True)
            return
        if arguments.watch and sys.stdout.isatty():
            print(CLEAR, end="")
        print(_format_head(known.rollout))
        print("\n".join(format_boards(known.rollout, candidates, width=_get_width())), flush=True)

    _hear(fleet, show, is_watching=arguments.watch)
    return EXIT_UNWELL if found and found[0].rollout.stage is Stage.HALTED else 0


def _format_head(rollout: Rollout) -> str:
    if rollout.stage is Stage.ROLLING:
        return f"{rollout.plan.version}: {format_tranche(rollout)}; it goes on only while flchain fleet update runs"
    return format_end(rollout)


def run_halt_command(arguments: argparse.Namespace) -> int:
    """Halt the newest rollout. Raise ConfigError, TryAgain."""
    fleet = open_fleet(arguments)
    rollout = asyncio.run(run_halt(fleet, lambda: load_identity(fleet.folder, arguments), print))
    print("nothing to halt: no release was announced yet" if rollout is None else format_end(rollout))
    return 0


def open_fleet(arguments: argparse.Namespace) -> Fleet:
    """Open the operator's folder. Raise ConfigError."""
    return Fleet(open_folder(arguments.dir), _read_revoked(arguments.registrar))


def _read_revoked(folder: Path | None) -> frozenset[Address]:
    """Return the boards that a registrar on this machine has revoked."""
    if folder is None:
        return frozenset()
    if not (folder / REGISTER_FILE).is_file():
        raise ConfigError((f"--registrar {folder}: no registrar here",))
    with contextlib.closing(Register(folder)) as register:
        nodes = register.list_nodes()
    return frozenset(Address(bytes.fromhex(node.address)) for node in nodes if node.revoked_s)


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain fleet",
        description="See how all boards do, and bring new versions to them, tranche by tranche.",
        epilog="examples:\n"
        "  flchain registrar token --role operator\n"
        "  flchain fleet key --token TOKEN\n"
        "  flchain fleet list --label roof\n"
        "  flchain fleet update build/debs --tranches 5,25,100 --soak 30m\n"
        "  flchain fleet status\n"
        "  flchain fleet halt",
    )
    common = CommandParser(add_help=False)
    text = f"the operator's folder (default: {DEFAULT_FOLDER})"
    common.add_argument("--dir", type=_expand, default=_expand(str(DEFAULT_FOLDER)), metavar="DIR", help=text)
    seeing = CommandParser(add_help=False)
    text = "folder of the registrar, if it is on this machine: boards that it has revoked are left out"
    seeing.add_argument("--registrar", type=Path, metavar="DIR", help=text)
    signing = CommandParser(add_help=False)
    text = "file with the passphrase of the operator's key (default: it is asked for)"
    signing.add_argument("--passphrase-file", type=Path, metavar="FILE", help=text)
    commands = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    _add_key(
        add_command(commands, "key", "make the operator's keys, or renew the certificate", parents=[common, signing])
    )
    listing = add_command(commands, "list", "show all boards, the worst first", parents=[common, seeing])
    _add_showing(listing)
    text = "only boards with this label; can be repeated"
    listing.add_argument("--label", action="append", default=[], metavar="LABEL", help=text)
    text = "bring a version to all boards, in the foreground"
    _add_update(add_command(commands, "update", text, parents=[common, seeing, signing]))
    text = "show the newest rollout by tranche and board"
    _add_showing(add_command(commands, "status", text, parents=[common, seeing]))
    add_command(commands, "halt", "stop the rollout: no further board begins", parents=[common, seeing, signing])
    return parser


def _expand(text: str) -> Path:
    return Path(text).expanduser()


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", metavar="TOKEN", help="from: flchain registrar token --role operator")
    text = "protect the key with a passphrase that is asked for now"
    parser.add_argument("--passphrase", action="store_true", help=text)


def _add_showing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--watch", action="store_true", help="show it again every 2 seconds, until Ctrl-C")


def _add_update(parser: argparse.ArgumentParser) -> None:
    text = "folder with packages (from: make debs), or the version of a rollout that is to go on"
    parser.add_argument("release", metavar="DIR|VERSION", help=text)
    shares = ",".join(f"{share / 100:g}" for share in TRANCHES)
    text = f"percents of the boards, step by step (default: {shares})"
    parser.add_argument("--tranches", type=parse_tranches, metavar="LIST", help=text)
    text = f"how long a tranche must stay well (default: {SOAK_S // 60}m)"
    parser.add_argument("--soak", type=parse_span, metavar="TIME", help=text)
    text = f"percent of a tranche that must come through (default: {HEALTH_MIN})"
    parser.add_argument("--health-min", type=int, metavar="N", help=text)
    text = f"halt if a tranche has not come through by then (default: {PATIENCE_S // 3_600}h)"
    parser.add_argument("--patience", type=parse_span, metavar="TIME", help=text)
    text = f"within this time a board must have spoken in a round, or it goes back (default: {WINDOW_S // 60}m)"
    parser.add_argument("--window", type=parse_span, metavar="TIME", help=text)
    parser.add_argument("--again", action="store_true", help="go on with a rollout that was halted")


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "key": run_key,
    "list": run_list,
    "update": run_update_command,
    "status": run_status,
    "halt": run_halt_command,
}


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain fleet`. Raise ConfigError."""
    arguments = _build_parser().parse_args(argv)
    try:
        return ACTIONS[arguments.action](arguments)
    except TryAgain as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_TRY_AGAIN


assert TRANCHES[-1] == SHARE_ALL, "the usual rollout reaches all boards"
