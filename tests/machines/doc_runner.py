"""Type the command blocks of a page on machines, in order, as a reader does: one shell a machine, as root."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.machines.chroot import run_checked
from tests.machines.nspawn import Machine
from tests.support.doc_blocks import Block, Step

ROOT = Path(__file__).parents[2]
CLONE = "clone"
"""Not a machine of its own: this checkout, where the tests run."""
SESSION = "/run/docs-session"
"""What a shell keeps from one block to the next: its folder and its functions."""
TYPE = f"""
export HOME=~root
[ ! -e {SESSION}.functions ] || . {SESSION}.functions
cd "$(cat {SESSION}.folder 2>/dev/null || echo ~)"
trap 'pwd > {SESSION}.folder; declare -f > {SESSION}.functions' EXIT
"""
TOKEN = re.compile(r"flchain1/[^\s.][^\s]*")
PLACEHOLDER = "flchain1/..."
TOKEN_LINE = re.compile(r"token --role (\w+)(?:.*--count (\d+))?")
ROLE_OF = {"edge": "miner", "board": "device", "operator": "operator"}
"""The role of the token that each machine enrols with."""
BLOCK_TIMEOUT_S = 900.0


@dataclass
class Reader:
    """A person with a page, and terminals to the machines."""

    machines: Mapping[str, Machine]
    hands: Mapping[str, Callable[[], None]]
    """What is done by hand, by the name in the page."""
    env: Mapping[str, str] = field(default_factory=dict)
    tokens: dict[str, list[str]] = field(default_factory=dict)
    """The registrar's tokens, by role."""

    def follow(self, steps: Iterable[Step]) -> None:
        """Do every step. Fails with the block's line in the page and all that it said."""
        for step in steps:
            if not isinstance(step, Block):
                print(f"line {step.line}, by hand: {step.name}", flush=True)
                self.hands[step.name]()
            elif step.not_run:
                print(f"line {step.line}, not run: {step.not_run}", flush=True)
            else:
                for name in step.machines:
                    self._type(step, name)

    def _type(self, block: Block, name: str) -> None:
        script = block.script
        if PLACEHOLDER in script:
            script = script.replace(PLACEHOLDER, self.tokens[ROLE_OF[name]][0])
        print(f"line {block.line}, on {name}:\n{block.script}", flush=True)
        command = ("bash", "-euo", "pipefail", "-c")
        if name == CLONE:
            done = run_checked((*command, f"cd {ROOT}\n{script}"), check=False, text=None, timeout_s=BLOCK_TIMEOUT_S)
        else:
            machine = self.machines[name]
            done = machine.run(*command, TYPE + script, env=self.env, check=False, timeout_s=BLOCK_TIMEOUT_S)
        sys.stdout.write(f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
        assert done.returncode == block.exit_code, (
            f"{self._read_journals()}\n"
            f"line {block.line} on {name}: exit code {done.returncode}, the page says {block.exit_code}\n"
            f"{script}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
        self._keep_tokens(block, done.stdout)

    def _read_journals(self) -> str:
        ends = (f"{name}:\n{each.read_journal('--unit=flchain*')[-5000:]}" for name, each in self.machines.items())
        return "\n".join(ends)

    def _keep_tokens(self, block: Block, said: str) -> None:
        found = iter(TOKEN.findall(said))
        for role, count in TOKEN_LINE.findall(block.script):
            self.tokens.setdefault(role, []).extend(next(found) for _ in range(int(count or 1)))
