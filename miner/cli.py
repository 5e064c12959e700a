"""`flchain-miner`: run a miner on an edge server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flchain_edge.enrolment.actions import build_enrolment_actions
from flchain_edge.process.command import NodeCommand, run_command
from miner.commands.inspection import INSPECTION_ACTIONS
from miner.commands.ledger import LEDGER_ACTIONS
from miner.runner import run_miner
from miner.settings import MinerSettings

COMMAND = NodeCommand(
    program="flchain-miner",
    description="Score updates, agree on blocks with the other miners, serve devices over MQTT.",
    role="validator",
    settings_type=MinerSettings,
    run=run_miner,
    default_config=Path("/var/lib/flchain-miner/miner.toml"),
    actions=(*INSPECTION_ACTIONS, *LEDGER_ACTIONS, *build_enrolment_actions("miner", "miner", None)),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flchain-miner`."""
    return run_command(COMMAND, argv)


if __name__ == "__main__":
    raise SystemExit(main())
