"""`flchain-agent resync`: move a damaged database aside, so that the device starts again from its peers."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np

from agent.edge.store.store import STORE_FILE, Store
from agent.settings import AgentSettings
from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.light.follow import build_light_state
from flchain_edge.model.model_files import compute_initial_model
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.process.command import NodeAction
from flchain_edge.settings.node import load_identity
from flchain_edge.storage.database_files import move_aside, refuse_if_open


def run_resync(settings: AgentSettings, arguments: argparse.Namespace) -> None:
    """Do nothing if the database is intact. Raises ConfigError (no database, in use, another chain), StoreFull."""
    path = Path(settings.data_dir) / STORE_FILE
    if not path.is_file():
        raise ConfigError((f"database {path}: no such file",))
    if not settings.key.file.exists():  # with a new key every stored message would seem to be another device's
        raise ConfigError((f"key file {settings.key.file}: No such file or directory",))
    refuse_if_open(path)
    fault = _find_fault(settings, path)
    if fault is None:
        print(f"{path}: no fault found, nothing done")
        return
    aside = move_aside(path)
    print(f"fault: {fault}\nthe damaged database is now {aside}")
    print("the next run fetches the newest model from the miners; the compression residual of the last rounds is lost")


def _find_fault(settings: AgentSettings, path: Path) -> str | None:
    """Return the fault that a start would find, or None."""
    # Imported here: a running agent never holds the runtime itself (docs/decisions/0011).
    from flchain_edge.model.tflite import TfliteModel, probe_model

    identity, genesis = load_identity(settings), load_genesis(settings.genesis)
    model_file = load_model_file(settings.model, genesis)
    probe_model(model_file)
    initial_model = compute_initial_model(TfliteModel(model_file))
    light = build_light_state(genesis, initial_model, is_full=settings.follow == "full")

    async def load() -> None:
        store = await Store.open(path, light.chain)
        try:
            await store.load(light, np.zeros_like(initial_model), identity)
        finally:
            await store.close()

    try:
        asyncio.run(load())
    except LedgerCorrupt as error:
        return error.what
    return None


RESYNC_ACTIONS = (
    NodeAction("resync", "move a damaged database aside, so that this device starts again from its peers", run_resync),
)
