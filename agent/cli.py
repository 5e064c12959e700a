"""`flchain-agent`: run an agent on a board."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.edge.workers.spawn import WorkerProcess
    from flchain.ledger.genesis import Genesis
    from flchain_edge.process.command import NodeCommand

DEFAULT_CONFIG = Path("/var/lib/flchain-agent/agent.toml")
"""As the systemd unit has it."""
SPARE_WORKERS = 2
"""One to train and one to mine; one that the settings do not need is ended when they are known."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flchain-agent`."""
    arguments = sys.argv[1:] if argv is None else argv
    spares = _fork_spares() if arguments[:1] == ["run"] else ()
    from flchain_edge.process.command import run_command

    if _is_asked_too_early(arguments):
        from agent.commands.provisioning import say_not_enrolled
        from flchain_edge.process.command_line import run_program

        return run_program(lambda: say_not_enrolled(DEFAULT_CONFIG, "--json" in arguments))
    try:
        return run_command(build_command(spares), arguments)
    finally:
        for process in spares:
            process.kill()


def _is_asked_too_early(arguments: Sequence[str]) -> bool:
    """Return whether this asks for the state of an installed agent that has no configuration yet, or none to read."""
    is_asked = (
        bool(arguments) and arguments[0] in ("status", "doctor") and not set(arguments) & {"--config", "-h", "--help"}
    )
    return is_asked and DEFAULT_CONFIG.parent.is_dir() and not os.access(DEFAULT_CONFIG, os.R_OK)


def _fork_spares() -> tuple[WorkerProcess, ...]:
    """Fork workers before anything else is imported: they share the pages so far, and hold nothing of what follows."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread for each core
    from agent.edge.workers.allocator import keep_heap_small, return_memory
    from agent.edge.workers.spawn import fork_worker

    keep_heap_small()
    return_memory()
    return tuple(fork_worker() for _ in range(SPARE_WORKERS))


def get_members(genesis: Genesis) -> list[bytes]:
    """Return the public keys of all devices in the genesis."""
    return [entry.public_key for entry in genesis.devices]


def build_command(spares: Sequence[WorkerProcess] = ()) -> NodeCommand:
    """Return the command; `spares` are worker processes that were forked already."""
    from agent.commands.board import BOARD_ACTION, list_warnings
    from agent.commands.inspection import INSPECTION_ACTIONS
    from agent.commands.provisioning import PROVISIONING_ACTIONS
    from agent.commands.resync import RESYNC_ACTIONS
    from agent.commands.sensing import SENSING_ACTIONS, find_data_problems
    from agent.commands.update import UPDATE_ACTIONS
    from agent.runner import run_agent
    from agent.settings import AgentSettings
    from flchain_edge.enrolment.actions import build_enrolment_actions
    from flchain_edge.process.command import NodeCommand

    return NodeCommand(
        program="flchain-agent",
        description="Train on this device's data, publish signed updates, compute the global model and check it.",
        role="device",
        get_members=get_members,
        settings_type=AgentSettings,
        run=partial(run_agent, spares=spares),
        default_config=DEFAULT_CONFIG,
        actions=(
            *INSPECTION_ACTIONS,
            BOARD_ACTION,
            *RESYNC_ACTIONS,
            *SENSING_ACTIONS,
            *UPDATE_ACTIONS,
            *build_enrolment_actions("agent", "device", get_members),
            *PROVISIONING_ACTIONS,
        ),
        find_data_problems=find_data_problems,
        list_warnings=list_warnings,
    )


if __name__ == "__main__":
    raise SystemExit(main())
