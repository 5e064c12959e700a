"""What a package's scripts read of the programs that they install."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.status.values import AgentStatus
from tests.support.builders.status import NOW

PRERM = Path(__file__).parents[3] / "firmware_config" / "debian" / "prerm.in"


@pytest.mark.parametrize("is_training", [True, False])
def test_an_upgrade_waits_for_a_board_that_trains_and_for_no_other(tmp_path: Path, is_training: bool) -> None:
    """The condition of the script's loop holds of the status that an agent writes, as long as it trains."""
    training: dict[str, Any] = {**NOW["training"], "is_running": is_training}
    status = msgspec.convert({**NOW, "training": training}, AgentStatus)
    record = {"writer": {"is_running": True}, "status": status}
    (tmp_path / "status-0a1b2c3d.json").write_bytes(msgspec.json.encode(record))
    found = re.search(r"&& (grep .*); do", PRERM.read_text())
    assert found is not None
    command = found[1].replace('"/run/@USER@"', f'"{tmp_path}"')
    assert (subprocess.run(["sh", "-c", command], check=False).returncode == 0) is is_training
