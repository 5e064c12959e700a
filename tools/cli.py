"""`flchain`: what people run around a chain. Each command is a module of its own, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Sequence

from flchain.base.errors import FlchainError
from flchain_edge.process.command import EXIT_CONFIG, EXIT_FAULT, EXIT_IO, end_unread

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("tools.demo.cli", "run a whole network on this machine: miners, agents, broker"),
    "audit": ("tools.inspect.audit", "walk a ledger from genesis and check everything in it"),
    "chain": ("tools.inspect.chain", "look at the blocks of a ledger: show one, tail the newest"),
    "stake": ("tools.inspect.stake", "show candidates and accounts; pay, register, delegate, take back"),
    "model": ("tools.modelbuilder.cli", "build or show a trainable .tflite file"),
    "sim": ("tools.sim.cli", "run a simulated network of the real machines under faults, from one seed"),
    "genesis": ("tools.genesis", "make or show the genesis of a chain"),
    "emulate": ("tools.emulators.cli", "be a sensor: watch, weather station, UAV, satellite receiver, IIO device"),
    "registrar": ("tools.registrar.cli", "enrol boards and miners with certificates, revoke them, set brokers up"),
    "bench": ("tools.bench.cli", "measure on this machine, beside the floor of the same run"),
}

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Any command may meet them where it writes, and nobody is helped by a traceback."""


def _format_help() -> str:
    lines = ["usage: flchain COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [*lines, "", "flchain COMMAND --help says more. A device runs flchain-agent, a server flchain-miner."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flchain`."""
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
