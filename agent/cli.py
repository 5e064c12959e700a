"""`flchain-agent`: run an agent on a board."""

from __future__ import annotations

from collections.abc import Sequence

from agent.runner import run_agent
from agent.sensing_commands import SENSING_ACTIONS, find_data_problems
from agent.settings import AgentSettings
from agent.upkeep import ACTIONS
from flchain_edge.command import NodeCommand, run_command

COMMAND = NodeCommand(
    program="flchain-agent",
    description="Train on this device's data, publish signed updates, compute the global model and check it.",
    role="device",
    get_members=lambda genesis: [entry.public_key for entry in genesis.devices],
    settings_type=AgentSettings,
    run=run_agent,
    actions=(*ACTIONS, *SENSING_ACTIONS),
    find_data_problems=find_data_problems,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flchain-agent`."""
    return run_command(COMMAND, argv)


if __name__ == "__main__":
    raise SystemExit(main())
