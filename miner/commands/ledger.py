"""`flchain-miner export`, `import`, `prune`, `resync`: commands for the ledger of a miner.

All but export need the miner to be stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain.base.types import Height, ModelVector
from flchain.ledger.genesis import Genesis
from flchain_edge.model.model_files import compute_initial_model
from flchain_edge.model.tflite import TfliteModel, probe_model
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.process.command import NodeAction
from flchain_edge.settings.node import load_identity
from flchain_edge.storage.database_files import refuse_if_open
from miner.edge.ledger.export import export_ledger, import_file
from miner.edge.ledger.ledger import LEDGER_FILE, Ledger
from miner.edge.ledger.prune import prune_ledger
from miner.edge.ledger.resync import resync_ledger
from miner.settings import MinerSettings

PROGRESS_BLOCKS = 500
log = logging.getLogger("miner")


def _get_path(settings: MinerSettings) -> Path:
    return Path(settings.data_dir) / LEDGER_FILE


def _load_chain(settings: MinerSettings) -> tuple[Genesis, ModelVector]:
    """Return what every block is checked against. Raises ConfigError."""
    genesis = load_genesis(settings.genesis)
    model_file = load_model_file(settings.model, genesis)
    probe_model(model_file)
    return genesis, compute_initial_model(TfliteModel(model_file))


def _log_progress(height: Height) -> None:
    if height % PROGRESS_BLOCKS == 0:
        log.info("checked", extra={"height": height})


def run_export(settings: MinerSettings, arguments: argparse.Namespace) -> None:
    """Run `export`: write the ledger to one file. Raises ConfigError, LedgerCorrupt."""
    out: Path = arguments.out
    height = export_ledger(_get_path(settings), out, _log_progress)
    print(f"{out}: {height} blocks, {out.stat().st_size} bytes")


def run_import(settings: MinerSettings, arguments: argparse.Namespace) -> None:
    """Run `import`: add the blocks that the ledger lacks.

    Raises ConfigError, ImportFault, LedgerCorrupt, StoreFull.
    """
    refuse_if_open(_get_path(settings))
    genesis, initial_model = _load_chain(settings)

    async def run() -> tuple[Height, Height]:
        ledger = await Ledger.open(_get_path(settings), genesis, initial_model)
        try:
            return await import_file(ledger, genesis, initial_model, arguments.file, _log_progress)
        finally:
            await ledger.close()

    before, after = asyncio.run(run())
    print(f"{arguments.file}: {after - before} new blocks, the ledger stands at height {after}")


def run_resync(settings: MinerSettings, arguments: argparse.Namespace) -> None:
    """Run `resync`: repair a damaged ledger. Raises ConfigError, VotesLost, StoreFull."""
    if not settings.key.file.exists():  # a new key would make every stored vote look like another miner's
        raise ConfigError((f"key file {settings.key.file}: No such file or directory",))
    genesis, initial_model = _load_chain(settings)
    path = _get_path(settings)
    done = resync_ledger(path, genesis, initial_model, load_identity(settings), arguments.i_lost_my_votes)
    if done is None:
        print(f"{path}: no fault found, nothing done")
        return
    for fault in done.faults:
        print(f"fault: {fault}")
    if done.aside is not None:
        print(f"the damaged ledger is now {done.aside}")
    print(f"kept {done.kept} blocks; the miner fetches the rest from its peers when it runs")
    if done.silent_until > done.kept:
        print(f"this miner signs nothing up to height {done.silent_until}: it has voted there before")


def run_prune(settings: MinerSettings, arguments: argparse.Namespace) -> None:
    """Run `prune`: drop old blocks. Raises ConfigError, LedgerCorrupt, StoreFull."""
    path = _get_path(settings)
    refuse_if_open(path)
    genesis, initial_model = _load_chain(settings)
    before = path.stat().st_size if path.exists() else 0
    base = asyncio.run(prune_ledger(path, genesis, initial_model, arguments.keep))
    if base is None:
        print(f"{path}: has at most {arguments.keep} blocks, nothing done")
        return
    print(f"{path}: now begins with the state at height {base}; {before:,} bytes before, {path.stat().st_size:,} after")


def _add_prune_arguments(parser: argparse.ArgumentParser) -> None:
    text = "how many of the newest blocks to keep (default %(default)s)"
    parser.add_argument("--keep", type=int, default=10_000, metavar="N", help=text)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to write; an existing one is replaced"
    )


def _add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that export has written")


def _add_resync_arguments(parser: argparse.ArgumentParser) -> None:
    text = "continue without a record of this miner's votes, although it may then sign twice for one height"
    parser.add_argument("--i-lost-my-votes", action="store_true", help=text)


LEDGER_ACTIONS = (
    NodeAction(
        "export",
        "check all final blocks and write them with their certificates to one file; the miner may run",
        run_export,
        _add_export_arguments,
    ),
    NodeAction(
        "import",
        "check an export's blocks by the chain's rules and add them to the ledger; continues after an interruption",
        run_import,
        _add_import_arguments,
    ),
    NodeAction(
        "prune",
        "drop old blocks; the ledger then begins with a state that a final header certifies",
        run_prune,
        _add_prune_arguments,
    ),
    NodeAction(
        "resync",
        "repair a damaged ledger: move it aside, keep the blocks without a fault and this miner's votes",
        run_resync,
        _add_resync_arguments,
    ),
)
