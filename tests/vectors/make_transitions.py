"""Make transitions/data: what every rule of the chain makes of a state, whole states and inputs as bytes.

Run from the repository's root: `python -m tests.vectors.make_transitions`. What is recorded there is what nodes agree
on: a change of these files changes the protocol, and nodes of two versions then go two ways. `transitions/check.py`
reads the files.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.vectors.transitions import (
    build_blocks,
    build_elections,
    build_evidence,
    build_messages,
    build_orders,
    build_phases,
    build_proposers,
    build_rewards,
    build_settlements,
    build_steps,
    build_trees,
    check,
    packing,
    state_form,
    world,
)
from tests.vectors.transitions.recorder import Recorder, dump

BUILDERS: dict[str, Callable[[Recorder], None]] = {
    "blocks": build_blocks.build,
    "proposers": build_proposers.build,
    "steps": build_steps.build,
    "trees": build_trees.build,
    "messages": build_messages.build,
    "orders": build_orders.build,
    "evidence": build_evidence.build,
    "phases": build_phases.build,
    "elections": build_elections.build,
    "settlements": build_settlements.build,
    "rewards": build_rewards.build,
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
