"""Where experience is kept: a small file beside the database. Losing it costs a few rounds of learning."""

from __future__ import annotations

import logging
from pathlib import Path

from agent.scheduling.history import EXPERIENCE_BYTES_MAX, Experience, decode_experience, encode_experience
from flchain_edge.keys.private_files import replace_private

log = logging.getLogger("agent.supervisor")

EXPERIENCE_FILE = "experience.json"


def load_experience(data_dir: Path, fresh: Experience, policy: str) -> Experience:
    """What was saved, or `fresh` if there is nothing, or something that is damaged."""
    path = data_dir / EXPERIENCE_FILE
    try:
        with path.open("rb") as stream:
            data = stream.read(EXPERIENCE_BYTES_MAX + 1)
        if len(data) > EXPERIENCE_BYTES_MAX:
            raise ValueError(f"larger than {EXPERIENCE_BYTES_MAX} bytes")
        return decode_experience(data, fresh, policy)
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError) as error:
        log.warning("what was learned of rounds is lost, learning anew", extra={"file": path, "cause": error})
        return fresh


def save_experience(data_dir: Path, experience: Experience) -> None:
    """In one piece or not at all, also in a power cut. Raises OSError."""
    replace_private(data_dir / EXPERIENCE_FILE, encode_experience(experience))
