"""`flchain audit`: walk ledgers from genesis, with nothing but their files, and trust nothing in them.

Every rule is the miners' own (`miner.edge.ledger.ledger.replay_block`). This adds what only a whole file has: its
pages, its genesis, and whether the ledgers of one network agree.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flchain.base.errors import ConfigError, InvalidMessage, LedgerCorrupt
from flchain.base.types import Height
from flchain.ledger.block import hash_header
from flchain.ledger.genesis import Genesis, encode_genesis
from flchain.ledger.state import ChainState
from flchain.wire.envelope import BODY_BYTES_MAX, CERTIFICATE_BYTES_MAX, HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Body, Certificate, Header
from flchain_edge.process.chain_files import load_genesis
from flchain_edge.process.command_line import EXIT_FAULT, CommandParser
from miner.edge.ledger.file import LedgerFile, open_ledger_file
from miner.edge.ledger.ledger import LEDGER_FILE, StoredBlock, replay_block

PROGRESS_BLOCKS_MIN = 200
"""Shorter ledgers are finished before anybody reads a progress bar."""


@dataclass(frozen=True)
class Counts:
    """How much was checked."""

    blocks: int = 0
    rounds: int = 0
    transactions: int = 0
    signatures: int = 0
    """Of transactions, one each."""
    certificate_signatures: int = 0
    models: int = 0
    """Rounds whose new model was computed from their updates and compared."""


@dataclass(frozen=True)
class Audit:
    """The audit of a ledger without fault."""

    file: Path
    genesis: Genesis
    base: Height
    """Nothing up to this height was checked: 0, or the height of the certified state that the ledger begins with."""
    state: ChainState
    counts: Counts
    seconds: float


def audit_rows(
    state: ChainState, rows: Iterable[StoredBlock], on_block: Callable[[], None] = lambda: None
) -> tuple[ChainState, Counts]:
    """Check blocks against the state before them; return the state after. Raise LedgerCorrupt at the first fault."""
    counts = Counts()
    for row in rows:
        after = replay_block(state, row)
        counts = _count(counts, state, after, row)
        state = after
        on_block()
    return state, counts


def _count(counts: Counts, before: ChainState, after: ChainState, row: StoredBlock) -> Counts:
    transactions = len(decode_struct(row.body, Body, BODY_BYTES_MAX).transactions)
    certificate = decode_struct(row.certificate, Certificate, CERTIFICATE_BYTES_MAX)
    return Counts(
        blocks=counts.blocks + 1,
        rounds=counts.rounds + (after.round.number > before.round.number),
        transactions=counts.transactions + transactions,
        signatures=counts.signatures + transactions,
        certificate_signatures=counts.certificate_signatures + len(certificate.signatures),
        models=counts.models + (after.model is not before.model),
    )


def audit_file(path: Path, wanted: Genesis | None = None, show_progress: bool = False) -> Audit:
    """Audit one ledger. Raise LedgerCorrupt naming the height (0: genesis or the file itself), or ConfigError.

    `wanted` is a genesis from elsewhere that the ledger must start from. Without one a ledger that was forged as a
    whole, keys included, passes as a chain of its own.
    """
    before = path.stat().st_mtime_ns if path.exists() else 0
    try:
        return _audit_file(path, wanted, show_progress)
    except LedgerCorrupt:
        if path.stat().st_mtime_ns == before:
            raise
        # A miner has started and written meanwhile, while the file was read as one that cannot change.
        return _audit_file(path, wanted, show_progress)


def _audit_file(path: Path, wanted: Genesis | None, show_progress: bool) -> Audit:
    started = time.monotonic()
    with open_ledger_file(path) as ledger:
        pages_fault = ledger.get_pages_fault()
        try:
            genesis, start = ledger.load_start()
            _check_genesis(genesis, start.chain, ledger, wanted)
            with _progress(ledger.count_blocks() if show_progress else 0, path) as on_block:
                state, counts = audit_rows(start.chain, ledger.iterate_blocks(), on_block)
        except LedgerCorrupt as error:
            # The pages explain what the walk has found; the walk says where it is.
            more = f"; file: {pages_fault}" if pages_fault else ""
            raise LedgerCorrupt(error.height, error.what + more) from error
        if pages_fault:
            raise LedgerCorrupt(None, f"file: {pages_fault} (every block passes)")
    return Audit(path, genesis, start.ledger.base, state, counts, time.monotonic() - started)


def _check_genesis(genesis: Genesis, state: ChainState, ledger: LedgerFile, wanted: Genesis | None) -> None:
    if wanted is not None and encode_genesis(wanted) != encode_genesis(genesis):
        raise LedgerCorrupt(0, f"genesis: not that of chain {wanted.compute_id().hex()}")
    first = next(ledger.iterate_blocks(), None)
    if first is None or first.height != 1:
        return
    try:
        header = decode_struct(first.header, Header, HEADER_BYTES_MAX)
    except InvalidMessage:
        return  # the walk will report it
    if header.chain != state.chain and hash_header(first.header) == first.hash:
        raise LedgerCorrupt(0, "genesis: its hash is not the chain of block 1")


@contextlib.contextmanager
def _progress(blocks: int, path: Path) -> Iterator[Callable[[], None]]:
    if blocks < PROGRESS_BLOCKS_MIN:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(str(path), total=blocks)
        yield lambda: progress.advance(task)


def find_ledgers(path: Path) -> tuple[Path, ...]:
    """Return the ledgers of a file, a folder with one, a node's folder, or a network's. Raise ConfigError."""
    if path.is_file():
        return (path,)
    for found in (path / LEDGER_FILE, path / "data" / LEDGER_FILE):
        if found.is_file():
            return (found,)
    several = sorted(path.glob(f"miners/*/data/{LEDGER_FILE}"), key=lambda file: (len(str(file)), file))
    if several:
        return tuple(several)
    problem = "holds no ledger" if path.is_dir() else "no such file or folder"
    raise ConfigError((f"{path}: {problem} (looked for {LEDGER_FILE}, data/{LEDGER_FILE}, miners/*/data/)",))


def compare(audits: Sequence[Audit]) -> Height:
    """Return the height up to which all ledgers hold the same blocks. Raise LedgerCorrupt if two differ."""
    common = Height(min(audit.state.height for audit in audits))
    first = max(audit.base for audit in audits) + 1
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open_ledger_file(audit.file)) for audit in audits]
        if len({audit.state.chain for audit in audits}) > 1:
            raise LedgerCorrupt(0, "genesis: the ledgers are of different chains")
        if common >= first and len({file.get_hash(common) for file in files}) > 1:
            low = next(h for h in range(first, common + 1) if len({file.get_hash(Height(h)) for file in files}) > 1)
            raise LedgerCorrupt(low, "the ledgers hold different final blocks: the chain has forked")
    return common


def format_audit(audit: Audit) -> str:
    """Return one line that says what was checked."""
    c, state = audit.counts, audit.state
    after_base = f", from the certified state at height {audit.base} on" if audit.base else ""
    return (
        f"ok: {audit.genesis.name}, {c.blocks} blocks, {c.rounds} rounds, {c.transactions} transactions, "
        f"{c.signatures} signatures, {c.certificate_signatures} signatures of certificates, "
        f"{c.models} models recomputed{after_base}, head {state.head.hex()}, model {state.model_hash.hex()}, "
        f"{audit.seconds:.2f} s"
    )


def _to_json(audit: Audit) -> dict[str, Any]:
    state = audit.state
    named = {"chain": state.chain, "head": state.head, "model_hash": state.model_hash}
    counts = asdict(audit.counts) | {name: value.hex() for name, value in named.items()}
    return {
        "file": str(audit.file),
        "base": audit.base,
        "height": state.height,
        **counts,
        "seconds": round(audit.seconds, 3),
    }


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain audit",
        description="Check every byte of a ledger from genesis: hashes, Merkle roots, signatures, certificates, "
        "rules, state roots, and every global model recomputed. The file is only read; its miner may be running.",
        epilog="examples:\n"
        "  flchain audit /var/lib/flchain-miner --genesis genesis.cbor\n"
        "  flchain audit flchain-demo/network --json\n\n"
        "Exit code: 0 no fault, 1 a fault, 78 not a ledger.",
    )
    parser.add_argument(
        "path", type=Path, help="a ledger, a miner's folder, or a demo's --out folder (then all its miners' ledgers)"
    )
    parser.add_argument("--genesis", type=Path, metavar="FILE", help="the genesis file that the ledger must start from")
    parser.add_argument("--quiet", action="store_true", help="print nothing if there is no fault")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `flchain audit`."""
    arguments = _build_parser().parse_args(argv)
    wanted = load_genesis(arguments.genesis) if arguments.genesis else None
    paths = find_ledgers(arguments.path)
    show_progress = sys.stderr.isatty() and not arguments.quiet and not arguments.json
    audits: list[Audit] = []
    fault: dict[str, object] | None = None
    fault_text = ""
    where = arguments.path
    try:
        for where in paths:
            audits.append(audit_file(where, wanted, show_progress))
            if not arguments.quiet and not arguments.json:
                print(f"{where}: {format_audit(audits[-1])}" if len(paths) > 1 else format_audit(audits[-1]))
        where = arguments.path
        common = compare(audits)
    except LedgerCorrupt as error:
        fault = {"file": str(where), "height": error.height, "what": error.what}
        fault_text = f"fault: {where}: {error}"
    if arguments.json:
        common_height = {"common_height": common} if fault is None else {}
        found = {"ok": fault is None, "fault": fault, **common_height, "ledgers": [_to_json(audit) for audit in audits]}
        print(json.dumps(found))
    elif fault is not None:
        print(fault_text, file=sys.stderr)
    elif len(paths) > 1 and not arguments.quiet:
        print(f"ok: {len(paths)} ledgers agree up to height {common}")
    return EXIT_FAULT if fault else 0
