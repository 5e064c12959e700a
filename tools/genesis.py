"""`flchain genesis show FILE`: what a chain was agreed on, for people."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from flchain.crypto import compute_address
from flchain.genesis import Genesis
from flchain_edge.chain_files import load_genesis


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain genesis`."""
    parser = argparse.ArgumentParser(prog="flchain genesis", description="Show a genesis file.")
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    show = actions.add_parser("show", help="print parameters, validators and devices")
    show.add_argument("file", type=Path)
    print(format_genesis(load_genesis(parser.parse_args(argv).file)))
    return 0


def format_genesis(genesis: Genesis) -> str:
    """One fact a line."""
    lines = [f"name      {genesis.name}", f"chain id  {genesis.chain_id().hex()}", "", "parameters"]
    for name in genesis.params.__struct_fields__:
        value = getattr(genesis.params, name)
        lines.append(f"  {name:<30}{value.hex() if isinstance(value, bytes) else value}")
    lines += ["", f"validators ({len(genesis.validators)}): address, power"]
    lines += [f"  {compute_address(entry.public_key).hex()}  {entry.power}" for entry in genesis.validators]
    lines += ["", f"devices ({len(genesis.devices)}): address, home"]
    lines += [f"  {compute_address(entry.public_key).hex()}  {entry.home.hex()}" for entry in genesis.devices]
    return "\n".join(lines)
