"""Make light/data: what every header, body and answer makes of what a light device knows.

Run from the repository's root: `python -m tests.vectors.make_light`. What is recorded there is whom devices trust: a
change of these files changes the protocol. `light/check.py` reads the files.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.vectors.light import build_catch_up, build_follow, build_trust, check, form, world
from tests.vectors.light.recorder import LightRecorder
from tests.vectors.transitions.recorder import dump

BUILDERS: dict[str, Callable[[LightRecorder], None]] = {
    "trust": build_trust.build,
    "follow": build_follow.build,
    "catch_up": build_catch_up.build,
}
"""By the name of the file."""


def main() -> None:
    """Write every file, once all of them could be made, and remove those that nobody makes any more."""
    recorders = {name: LightRecorder(world.BASE) for name in BUILDERS}
    for name, build in BUILDERS.items():
        build(recorders[name])
    for path in check.DATA.glob("*.json"):
        path.unlink()
    check.BASE.write_text(dump({"light": form.flatten(world.BASE)}) + "\n")
    for name, recorder in recorders.items():
        recorder.write(check.DATA / f"{name}.json")


if __name__ == "__main__":
    main()
