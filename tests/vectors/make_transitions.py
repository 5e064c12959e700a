"""Make transitions/data: what every rule of the chain makes of a state, whole states and inputs as bytes.

Run from the repository's root: `python -m tests.vectors.make_transitions`. What is recorded there is what nodes agree
on: a change of these files changes the protocol, and nodes of two versions then go two ways. `transitions/check.py`
reads the files.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.vectors.transitions import build_releases, check, packing, state_form, world
from tests.vectors.transitions.builders import (
    blocks,
    elections,
    evidence,
    frames,
    genesis,
    kept,
    light,
    messages,
    orders,
    phases,
    proposers,
    rewards,
    settlements,
    steps,
    trees,
    trust,
)
from tests.vectors.transitions.recorder import Recorder, dump

BUILDERS: dict[str, Callable[[Recorder], None]] = {
    "blocks": blocks.build,
    "proposers": proposers.build,
    "steps": steps.build,
    "trees": trees.build,
    "light": light.build,
    "trust": trust.build,
    "genesis": genesis.build,
    "messages": messages.build,
    "frames": frames.build,
    "orders": orders.build,
    "evidence": evidence.build,
    "phases": phases.build,
    "elections": elections.build,
    "settlements": settlements.build,
    "rewards": rewards.build,
    "kept": kept.build,
    "releases": build_releases.build,
}
"""By the name of the file."""


def main() -> None:
    """Write every file, once all of them could be made, and remove those that nobody makes any more."""
    recorders = {name: Recorder(world.WORLD) for name in BUILDERS}
    for name, build in BUILDERS.items():
        build(recorders[name])
    for path in check.DATA.glob("*.json"):
        path.unlink()
    content = {"names": packing.pack(world.list_names()), "state": state_form.flatten(world.WORLD)}
    check.WORLD.write_text(dump(content) + "\n")
    for name, recorder in recorders.items():
        recorder.write(check.DATA / f"{name}.json")


if __name__ == "__main__":
    main()
