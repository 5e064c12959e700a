"""The history of rounds in a small file beside the database. Losing it costs a few rounds of learning."""

from __future__ import annotations

import logging
from pathlib import Path

from agent.scheduling.history import HISTORY_BYTES_MAX, RoundHistory, decode_history, encode_history
from flchain_edge.keys.private_files import replace_private

log = logging.getLogger("agent.supervisor")

HISTORY_FILE = "experience.json"


def load_history(data_dir: Path, fresh: RoundHistory, policy: str) -> RoundHistory:
    """Return what was saved, or `fresh` if there is nothing, or something damaged."""
    path = data_dir / HISTORY_FILE
    try:
        with path.open("rb") as stream:
            data = stream.read(HISTORY_BYTES_MAX + 1)
        if len(data) > HISTORY_BYTES_MAX:
            raise ValueError(f"larger than {HISTORY_BYTES_MAX} bytes")
        return decode_history(data, fresh, policy)
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError) as error:
        log.warning("the history of rounds is damaged, starting a new one", extra={"file": path, "cause": error})
        return fresh


def save_history(data_dir: Path, history: RoundHistory) -> None:
    """Write it whole or not at all, even in a power cut. Raises OSError."""
    replace_private(data_dir / HISTORY_FILE, encode_history(history))
