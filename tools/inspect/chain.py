"""`flchain chain show` and `flchain chain tail`: blocks of a ledger for people. The file is only read.

Nothing is checked here: audit somebody else's ledger first (`flchain audit`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flchain.base.errors import ConfigError, InvalidMessage, LedgerCorrupt
from flchain.base.types import Address
from flchain.incentives import REWARD_RULES
from flchain.ledger.genesis import Genesis
from flchain.ledger.state import ChainState, compute_validators_hash, find_device
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    HEADER_BYTES_MAX,
    Envelope,
    decode_struct,
    open_envelope,
    verify_envelope,
)
from flchain.wire.fields import Kind
from flchain.wire.messages import Body, Certificate, Header, Phase, Reveal, Settlement
from flchain_edge.process.command_line import CommandParser, add_command
from miner.edge.ledger.file import LedgerFile, open_ledger_file
from miner.edge.ledger.ledger import StoredBlock
from tools.inspect.audit import find_ledgers

POLL_S = 0.25
HASH_PREFIX_DIGITS_MIN = 6
SHORT_DIGITS = 8


@dataclass(frozen=True)
class BlockView:
    """A stored block, decoded. `signers` are addresses, or indices if the validators are not the genesis's."""

    row: StoredBlock
    header: Header
    view: int
    signers: tuple[str, ...]
    transactions: tuple[Envelope, ...]
    orders: tuple[Envelope, ...]
    settlement: Settlement | None

    @property
    def sizes(self) -> dict[str, int]:
        """Return the bytes of each part."""
        row = self.row
        return {"header": len(row.header), "certificate": len(row.certificate), "body": len(row.body)}


def view_block(state: ChainState, row: StoredBlock) -> BlockView:
    """Decode a stored block; `state` is the genesis's. Raise LedgerCorrupt."""
    try:
        header = decode_struct(row.header, Header, HEADER_BYTES_MAX)
        body = decode_struct(row.body, Body, BODY_BYTES_MAX)
        certificate = decode_struct(row.certificate, Certificate, CERTIFICATE_BYTES_MAX)
        transactions = tuple(open_envelope(raw, state.chain) for raw in body.transactions)
        orders = tuple(open_envelope(raw, state.chain) for raw in body.orders)
    except InvalidMessage as error:
        raise LedgerCorrupt(row.height, f"{error.code}: {error}; see: flchain audit") from error
    is_known = header.validators_hash == compute_validators_hash(state.validators)
    signers = tuple(
        state.validators[index].address.hex() if is_known and index < len(state.validators) else f"validator {index}"
        for index, _ in certificate.signatures
    )
    return BlockView(row, header, certificate.view, signers, transactions, orders, body.settlement)


def compute_rewards(
    ledger: LedgerFile, state: ChainState, view: BlockView
) -> tuple[tuple[Address, ...], dict[Address, int]]:
    """Return, for a block that settles a round, the devices whose updates were refused, and what others were paid."""
    settlement = view.settlement
    if settlement is None:
        return (), {}
    samples: dict[Address, int] = {}
    height = view.header.height - 1
    while (row := ledger.get_block(height)) is not None:
        block = view_block(state, row)
        if block.header.round != view.header.round or block.header.phase < Phase.REVEAL:
            break
        samples |= {
            envelope.sender: _read_samples(state, envelope) for envelope in block.transactions if _is_reveal(envelope)
        }
        height -= 1
    params = state.params
    rewarded = tuple((device, samples[device]) for device in sorted(samples) if device in settlement.accepted)
    refused = tuple(device for device in sorted(samples) if device not in settlement.accepted)
    return refused, dict(REWARD_RULES[params.reward_rule](rewarded, params.reward_per_update))


def _is_reveal(envelope: Envelope) -> bool:
    return envelope.kind is Kind.REVEAL


def _read_samples(state: ChainState, envelope: Envelope) -> int:
    """Return the samples as the chain counts them: capped."""
    device = find_device(state, envelope.sender)
    try:
        message = verify_envelope(envelope, state.chain, device.public_key if device else b"").message
    except InvalidMessage as error:
        raise LedgerCorrupt(0, f"an update of {envelope.sender.hex()}: {error}") from error
    assert isinstance(message, Reveal)
    return min(message.samples, state.params.samples_cap)


def to_json(view: BlockView, ledger: LedgerFile, state: ChainState) -> dict[str, Any]:
    """Return everything that `show` prints, for programs."""
    header = view.header
    refused, rewards = compute_rewards(ledger, state, view)
    settlement = None
    if view.settlement is not None:
        accepted = [device.hex() for device in view.settlement.accepted]
        paid = {device.hex(): reward for device, reward in rewards.items()}
        settlement = {"accepted": accepted, "refused": [device.hex() for device in refused], "rewards": paid}
    return {
        "height": header.height,
        "hash": view.row.hash.hex(),
        "previous": header.previous.hex(),
        "time": format_time(header.time_ms),
        "round": header.round,
        "phase": header.phase.name.lower(),
        "proposer": header.proposer.hex(),
        "view": view.view,
        "signers": list(view.signers),
        "transactions": [
            {"kind": e.kind.name.lower(), "sender": e.sender.hex(), "bytes": len(e.raw)} for e in view.transactions
        ],
        "orders": [
            {"kind": e.kind.name.lower(), "sender": e.sender.hex(), "number": e.number, "bytes": len(e.raw)}
            for e in view.orders
        ],
        "settlement": settlement,
        "model_hash": header.model_hash.hex(),
        "state_root": header.state_root.hex(),
        "bytes": view.sizes,
    }


def format_time(time_ms: int) -> str:
    """Return UTC by ISO 8601, or milliseconds since 1970 if a forged header is beyond the year 9999."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        return f"{time_ms} ms"


def format_block(found: dict[str, Any], genesis: Genesis) -> str:
    """Return `to_json`'s result as lines for people."""
    sizes = found["bytes"]
    rows: list[tuple[str, str]] = [
        ("block", f"{found['height']} of {genesis.name}"),
        ("hash", found["hash"]),
        ("previous", found["previous"]),
        ("time", found["time"]),
        ("round", f"{found['round']}, phase {found['phase']}"),
        ("proposer", f"{found['proposer']}, final in view {found['view']}"),
        ("model", found["model_hash"]),
        ("state root", found["state_root"]),
        ("bytes", ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + f", in all {sum(sizes.values()):,}"),
    ]
    rows += [("signed by" if not i else "", signer) for i, signer in enumerate(found["signers"])]
    sent = [f"{t['kind']:<12} {t['sender']}  {t['bytes']:>9,} bytes" for t in found["transactions"]]
    rows += [("messages" if not i else "", line) for i, line in enumerate(sent or ["none"])]
    ordered = [f"{o['kind']:<12} {o['sender']}  number {o['number']}" for o in found["orders"]]
    rows += [("orders" if not i else "", line) for i, line in enumerate(ordered)]
    if (settlement := found["settlement"]) is not None:
        paid = settlement["rewards"]
        lines = [f"accepted {device}  reward {paid.get(device, 0)}" for device in settlement["accepted"]]
        lines += [f"refused  {device}" for device in settlement["refused"]]
        rows += [
            ("settlement" if not i else "", line) for i, line in enumerate(lines or ["no update: the model stays"])
        ]
    return "\n".join(f"{name:<12}{text}" for name, text in rows)


TAIL_HEADER = (
    f"{'height':>8} {'round':>6} {'phase':<7} {'view':>4} {'signed':>6} {'bytes':>11}  "
    f"{'proposer':<9} {'hash':<9} content"
)


def format_line(view: BlockView) -> str:
    """Return one line for a block, under TAIL_HEADER."""
    header = view.header
    kinds = Counter(envelope.kind.name.lower() for envelope in (*view.transactions, *view.orders))
    content = [f"{count} {kind}" for kind, count in kinds.items()]
    if view.settlement is not None:
        content.append(
            f"settles: {len(view.settlement.accepted)} accepted, model {header.model_hash.hex()[:SHORT_DIGITS]}"
        )
    return (
        f"{header.height:>8} {header.round:>6} {header.phase.name.lower():<7} {view.view:>4} {len(view.signers):>6} "
        f"{sum(view.sizes.values()):>11,}  {header.proposer.hex()[:SHORT_DIGITS]:<9} "
        f"{view.row.hash.hex()[:SHORT_DIGITS]:<9} {', '.join(content) or '-'}"
    )


def find_block(ledger: LedgerFile, which: str) -> StoredBlock:
    """Return the block of a height, of a hash or its first digits, or the newest. Raise ConfigError if none fits."""
    if which == "head":
        height = int(ledger.get_height())
    elif which.isdecimal() and len(which) < 2 * SHORT_DIGITS:
        height = int(which)
    elif re.fullmatch(r"(?:[0-9a-f]{2})+", which.lower()) and len(which) >= HASH_PREFIX_DIGITS_MIN:
        heights = ledger.find_heights(bytes.fromhex(which))
        if len(heights) > 1:
            raise ConfigError((f"{which}: the hashes of several blocks begin like this",))
        height = heights[0] if heights else 0
    else:
        wanted = f'a height, "head", or an even number of a hash\'s first digits, {HASH_PREFIX_DIGITS_MIN} or more'
        raise ConfigError((f"{which}: not {wanted}",))
    row = ledger.get_block(height) if height else None
    if row is None:
        newest = ledger.get_height()
        has = f"the newest is {newest}" if newest else "the ledger holds none"
        if ledger.get_base() is not None:
            has += f"; it begins with the state at height {ledger.load_start()[1].chain.height}"
        raise ConfigError((f"{which}: no such block; {has}",))
    return row


def follow(path: Path, height: int, is_following: bool) -> Iterator[BlockView]:
    """Yield the blocks from `height` on; with `is_following` without end, reading the file whenever it has changed."""
    before: tuple[int, ...] | None = None
    while True:
        stamp = _get_stamp(path)
        if stamp != before:
            for view in _read_views(path, height, stamp):
                yield view
                height = view.header.height + 1
            before = stamp
        if not is_following:
            return
        time.sleep(POLL_S)


def _read_views(path: Path, height: int, stamp: tuple[int, ...]) -> list[BlockView]:
    try:
        with open_ledger_file(path) as ledger:
            _, state = ledger.load_genesis_state()
            return [view_block(state, row) for row in ledger.iterate_blocks(height)]
    except LedgerCorrupt:
        if _get_stamp(path) == stamp:
            raise
        return []  # a miner has started and written meanwhile: the next attempt finds the file whole


def _get_stamp(path: Path) -> tuple[int, ...]:
    """Return a stamp that changes with every write to the file or its log."""
    files = [file.stat() for file in (path, Path(f"{path}-wal")) if file.exists()]
    return tuple(number for stat in files for number in (stat.st_mtime_ns, stat.st_size))


def _show(path: Path, arguments: argparse.Namespace) -> None:
    with open_ledger_file(path) as ledger:
        genesis, state = ledger.load_genesis_state()
        found = to_json(view_block(state, find_block(ledger, arguments.block)), ledger, state)
    print(json.dumps(found) if arguments.json else format_block(found, genesis))


def _tail(path: Path, arguments: argparse.Namespace) -> None:
    with open_ledger_file(path) as ledger:
        height = max(1, ledger.get_height() - arguments.count + 1)
    if not arguments.json:
        print(TAIL_HEADER, flush=True)
    for view in follow(path, height, arguments.follow):
        print(json.dumps(to_line_json(view)) if arguments.json else format_line(view), flush=True)


def to_line_json(view: BlockView) -> dict[str, Any]:
    """Return what `tail` prints of a block, for programs: one object for each line."""
    header = view.header
    return {
        "height": header.height,
        "hash": view.row.hash.hex(),
        "round": header.round,
        "phase": header.phase.name.lower(),
        "proposer": header.proposer.hex(),
        "view": view.view,
        "signers": len(view.signers),
        "transactions": dict(Counter(envelope.kind.name.lower() for envelope in view.transactions)),
        "accepted": len(view.settlement.accepted) if view.settlement is not None else None,
        "model_hash": header.model_hash.hex(),
        "bytes": sum(view.sizes.values()),
    }


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of blocks")
    return int(text)


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain chain",
        description="Look at the blocks of a ledger. The file is only read; its miner may be running. Nothing is "
        "checked (flchain audit does that).",
        epilog="examples:\n"
        "  flchain chain show /var/lib/flchain-miner head\n"
        "  flchain chain tail /var/lib/flchain-miner -n 20 --follow\n\n"
        "Exit code: 0 success, 1 a damaged ledger, 78 no ledger or no such block, 130 stopped by Ctrl-C.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    show = add_command(actions, "show", "one block in full")
    tail = add_command(actions, "tail", "the newest blocks, one per line")
    for action in (show, tail):
        action.add_argument(
            "path", type=Path, help="a ledger, a miner's folder, or a demo's --out folder (its first miner)"
        )
        action.add_argument("--json", action="store_true", help="print only JSON, one object for each block")
    show.add_argument(
        "block", metavar="HEIGHT|HASH|head", help="a height, a hash or its first digits, or the newest block"
    )
    tail.add_argument("-n", dest="count", type=_count, default=10, metavar="N", help="how many blocks (default: 10)")
    tail.add_argument("--follow", action="store_true", help="continue with new blocks as they come, until Ctrl-C")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain chain`."""
    arguments = _build_parser().parse_args(argv)
    paths = find_ledgers(arguments.path)
    if len(paths) > 1:
        print(f"{paths[0]}, the first of {len(paths)} ledgers:", file=sys.stderr)
    (_show if arguments.action == "show" else _tail)(paths[0], arguments)
    return 0
