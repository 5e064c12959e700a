"""`enroll` and `renew`, the same for `flchain-agent` and `flchain-miner`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from flchain.ledger.genesis import Genesis
from flchain_edge.process.command import NodeAction
from flchain_edge.settings.node import NodeSettings


def build_enrolment_actions(
    name: str, role: str, get_members: Callable[[Genesis], Iterable[bytes]] | None
) -> tuple[NodeAction, ...]:
    """Return both actions. `name` is agent or miner; `role`, device or miner, is what the token was made for."""

    def enroll(_: None, arguments: argparse.Namespace) -> None:
        from flchain_edge.enrolment.commands import run_enroll

        run_enroll(name, role, get_members, arguments)

    def renew(settings: NodeSettings, arguments: argparse.Namespace) -> None:
        from flchain_edge.enrolment.commands import run_renew

        run_renew(settings, arguments)

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        default = Path(f"/var/lib/flchain-{name}")
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--token", metavar="TOKEN", help="from: flchain registrar token")
        source.add_argument(
            "--token-file", type=Path, metavar="FILE", help="file that holds the token (a systemd credential)"
        )
        text = f"where keys, certificate and configuration go (default: {default})"
        parser.add_argument("--dir", type=Path, default=default, metavar="DIR", help=text)
        offline = parser.add_mutually_exclusive_group()
        text = "if the registrar cannot be reached: write the request to this file"
        offline.add_argument("--request", type=Path, metavar="FILE", help=text)
        text = "finish with the registrar's answer to that request"
        offline.add_argument("--answer", type=Path, metavar="FILE", help=text)
        text = "if it fails: write why to this file, as JSON (systemd's unit does, for the board's console)"
        parser.add_argument("--report", type=Path, metavar="FILE", help=text)
        text = "protect the node's key with the passphrase in this file"
        parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help=text)

    text = "make this node's keys and get certificate, genesis and model from the operator's registrar; safe to repeat"
    return (
        NodeAction("enroll", text, enroll, add_arguments, has_config=False),
        NodeAction("renew", "get a new certificate now; a running node does so by itself", renew),
    )
