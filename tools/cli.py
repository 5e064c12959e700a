"""`flchain`: the commands around a chain. Each is a module of its own, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Sequence

from flchain.base.errors import FlchainError
from flchain_edge.process.command import EXIT_CONFIG, EXIT_FAULT, EXIT_IO, end_unread, tolerate_terminal

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("tools.demo.cli", "run a whole network on this machine: miners, agents, broker"),
    "audit": ("tools.inspect.audit", "check everything in a ledger, from genesis on"),
    "chain": ("tools.inspect.chain", "show a block of a ledger, or follow the newest ones"),
    "stake": ("tools.inspect.stake", "show candidates and accounts; pay, register, delegate, undelegate"),
    "model": ("tools.modelbuilder.cli", "build or show a trainable .tflite file"),
    "sim": ("tools.sim.cli", "simulate a network of the real machines under faults, from one seed"),
    "genesis": ("tools.genesis", "make or show the genesis of a chain"),
    "emulate": ("tools.emulators.cli", "emulate a sensor: watch, weather station, UAV, satellite receiver, IIO device"),
    "registrar": ("tools.registrar.cli", "enrol boards and miners, revoke them, write the broker's files"),
    "bench": ("tools.bench.cli", "measure on this machine, next to the floor of the same run"),
}

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Any command that writes may meet these errors, and a traceback would help no one."""


def _format_help() -> str:
    lines = ["usage: flchain COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [*lines, "", "See also: flchain COMMAND --help. A device runs flchain-agent, a server flchain-miner."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `flchain`."""
    tolerate_terminal()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_format_help())
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        print(f"flchain: unknown command {arguments[0]!r}\n\n{_format_help()}", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[arguments[0]][0])
    try:
        return int(module.main(arguments[1:]))
    except FlchainError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return EXIT_CONFIG if hasattr(error, "problems") else EXIT_FAULT
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return end_unread()
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        print(f"error: {error.filename or arguments[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_IO


if __name__ == "__main__":
    raise SystemExit(main())
