"""`flchain-agent update`: how far an update is, and what root does with one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent.edge.reporter import read_facts
from agent.edge.update import keeper
from agent.edge.update.apply import KEEPER_FILE, Applier, Debs, begin_rollback, read_stanza
from agent.edge.update.inbox import TRUST
from agent.edge.update.trust import ETC_TRUST
from agent.edge.update.updater import ROOT_FOLDER
from flchain.base.errors import ConfigError
from flchain_edge.process.command import NodeAction
from flchain_edge.process.command_line import add_command

AGENT_FOLDER = Path("/var/lib/flchain-agent/update")
SYSTEM_PYTHON = "/usr/bin/python3"
"""Not the environment's: that one may be half replaced."""
STATES = {
    "waiting": "waits",
    "installing": "is being installed",
    "checking": "runs, and has yet to speak in a round",
    "done": "was installed, and works",
    "rolled_back": "was bad: this board went back",
    "refused": "was refused",
}


def run_update(_: None, arguments: argparse.Namespace) -> int:
    """Do what the task says. Raise Refused, ConfigError, TryAgain, StoreFull."""
    tasks = {"status": show_status, "apply": apply, "recover": recover, "rollback": roll_back}
    return tasks[arguments.task](arguments)


def show_status(arguments: argparse.Namespace) -> int:
    """Print what root knows."""
    installed, word = _read_installed(), _read_json(arguments.dir / keeper.STATE)
    trust = _read_json(ETC_TRUST) or _read_json(arguments.dir / TRUST)
    if arguments.json:
        journal = _read_json(arguments.dir / keeper.JOURNAL) or None
        print(json.dumps({"installed": installed, "update": word or None, "journal": journal, "trust": trust or None}))
        return 0
    print(f"installed  {installed or 'not as a Debian package'}")
    detail = f": {word['detail']}" if word.get("detail") else ""
    state = STATES.get(str(word.get("state")), "is in a state that this version does not know")
    print(f"update     version {word.get('version') or '?'} {state}{detail}" if word else "update     none yet")
    if word.get("bad_versions"):
        print(f"bad        {', '.join(word['bad_versions'])}: never tried again")
    operators = ", ".join(key[:16] for key in trust.get("operators", ()))
    print(f"operators  {operators or 'none yet: pinned by the first release'}")
    return 0


def apply(arguments: argparse.Namespace) -> int:
    """Verify what the agent has laid down, and take it into root's folder."""
    suite = read_facts("", (), "").suite
    version = Applier(arguments.dir, arguments.agent_dir, Debs(), suite).apply()
    print(f"version {version}: verified; {keeper.INSTALL_UNIT} installs it")
    return 0


def recover(arguments: argparse.Namespace) -> int:
    """Go on where an update stands, as the unit does."""
    return _keep(arguments, "recover")


def roll_back(arguments: argparse.Namespace) -> int:
    """Go back to the version before."""
    print(f"going back to {begin_rollback(arguments.dir, Debs())}", flush=True)
    return _keep(arguments, "run")


def _keep(arguments: argparse.Namespace, task: str) -> int:
    program = arguments.dir / KEEPER_FILE
    if not program.is_file():
        print("nothing was begun")
        return 0
    sys.stdout.flush()
    options = ["--dir", str(arguments.dir), "--agent-dir", str(arguments.agent_dir)]
    os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, "-I", "-B", str(program), task, *options])


def _read_installed() -> str:
    try:
        return read_stanza(Debs().read_status())["Version"]
    except ConfigError:
        return ""


def _read_json(path: Path) -> dict[str, Any]:
    """Return what is in a file of root's; nothing if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the tasks."""
    parser.epilog = (
        "examples:\n  flchain-agent update status\n  journalctl -u flchain-update -u flchain-update-install\n"
        "  sudo flchain-agent update rollback\n\nThe other tasks are what systemd's units call (docs/update.md)."
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    texts = {
        "status": "print how far the newest update of this board is",
        "apply": "verify what the agent has laid down, and take it over for installing; as root",
        "recover": "finish or undo what a power cut has interrupted; as root",
        "rollback": "go back to the version before, and never try this one again; as root",
    }
    for name, text in texts.items():
        task = add_command(tasks, name, text)
        task.add_argument("--dir", type=Path, default=ROOT_FOLDER, metavar="DIR", help=f"root's ({ROOT_FOLDER})")
        text = f"the agent's ({AGENT_FOLDER})"
        task.add_argument("--agent-dir", type=Path, default=AGENT_FOLDER, metavar="DIR", help=text)
        if name == "status":
            task.add_argument("--json", action="store_true", help="print it for programs")


UPDATE_ACTIONS = (
    NodeAction(
        "update", "show an update of this board, or do root's part of one", run_update, add_arguments, has_config=False
    ),
)
