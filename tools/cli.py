"""`flchain`: the commands around a chain. Each is a module of its own, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from flchain.base.errors import FlchainError
from flchain_edge.process.command_line import choose_exit_code, run_program, wrap_words

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
    "fleet": ("tools.fleet.cli", "show how all boards do; update them, tranche by tranche"),
    "image": ("tools.images.cli", "build images of boards' cards, check them, change a maker's own"),
    "bench": ("tools.bench.cli", "measure on this machine, next to the floor of the same run"),
}

HELP_WIDTH = 80


def _format_help() -> str:
    lines = ["usage: flchain COMMAND [OPTIONS]", "", "commands:"]
    for name, (_, text) in COMMANDS.items():
        first, *more = wrap_words(text, HELP_WIDTH - 12)
        lines += [f"  {name:<10}{first}", *(f"{'':<12}{line}" for line in more)]
    see = "See also: flchain COMMAND --help. A device runs flchain-agent, a server flchain-miner."
    return "\n".join([*lines, "", *wrap_words(see, HELP_WIDTH)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run `flchain`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_program(lambda: _choose_and_run(arguments), next(iter(arguments), "flchain"))


def _choose_and_run(arguments: list[str]) -> int:
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
        return choose_exit_code(error)


if __name__ == "__main__":
    raise SystemExit(main())
