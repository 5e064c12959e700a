"""Make a failing run smaller, so that only what the failure needs is left."""

from __future__ import annotations

from dataclasses import replace

from tools.sim.faults import FAULTS
from tools.sim.run import Options, run


def shrink(options: Options) -> Options:
    """Leave out faults, liars and mining, one after another, as long as the run still fails."""
    for fault in [name for name in FAULTS if name in options.faults]:
        smaller = replace(options, faults=options.faults - {fault})
        if run(smaller)[1].violations:
            options = smaller
    while options.byzantine and run(replace(options, byzantine=options.byzantine - 1))[1].violations:
        options = replace(options, byzantine=options.byzantine - 1)
    if options.mining and run(replace(options, mining=0))[1].violations:
        options = replace(options, mining=0)
    return options
