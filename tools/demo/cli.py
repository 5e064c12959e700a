"""`flchain demo`: lay out a network, run it, and show the results."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from flchain.base.errors import ConfigError, FlchainError
from flchain.base.frozen import replace
from flchain_edge.process.command_line import EXIT_FAULT, EXIT_INTERRUPTED
from tools.demo.display import Display
from tools.demo.earnings import read_mined
from tools.demo.evaluation import Evaluator
from tools.demo.measures import Measures, load_measures
from tools.demo.options import Options, load_data, read_options
from tools.demo.processes import hold_folder
from tools.demo.results import PLOT_FILE, build_results, find_problems, read_end, write_results
from tools.demo.run import Run
from tools.demo.summary import print_summary
from tools.network.datasets import Dataset
from tools.network.layout import Network, build_network, open_network

LOG_FILE = "demo.log"


def main(argv: Sequence[str]) -> int:
    """Run `flchain demo`. Raises ConfigError with all problems of the options."""
    started_at = time.monotonic()
    options = read_options(list(argv))
    dataset = None  # a folder that is laid out already holds its parts of the data
    if not options.is_resumed:
        plan, dataset = load_data(options)
        options = replace(options, plan=plan)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with hold_folder(options.out):
            return _run_in_folder(options, dataset, started_at)
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(options.out)):
            raise
        raise ConfigError((f"--out: {error.filename}: {error.strerror}",)) from error


def _run_in_folder(options: Options, dataset: Dataset | None, started_at: float) -> int:
    # Log lines of the observer's link would break the display.
    logging.basicConfig(filename=options.out / LOG_FILE, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    console = Console(stderr=options.is_json, highlight=False)
    if dataset is not None:
        network = build_network(options.out, options.plan, dataset)
    else:
        network = open_network(options.out, options.plan)
    measures = load_measures(options.out)
    measures.rounds_wanted = options.rounds
    console.print(f"folder: {options.out}", markup=False, soft_wrap=True)
    if _is_done(network, options.rounds):
        console.print("all rounds are already final; these are the stored results")
        code = 0
    else:
        code = _run(options, network, measures, console, started_at=started_at)
    mined = read_mined(network) if options.plan.mining else {}
    results = build_results(network, options.plan, measures, mined)
    _write_all(options, results, measures)
    print_summary(console, results)
    if options.is_json:
        print(json.dumps(results))
    return code or (0 if results["is_complete"] else EXIT_FAULT)


def _is_done(network: Network, rounds: int) -> bool:
    ends = tuple(read_end(node, network.genesis) for node in network.nodes)
    return not find_problems(ends, rounds)


def _run(options: Options, network: Network, measures: Measures, console: Console, *, started_at: float) -> int:
    seconds_before, code = measures.seconds, 0
    error_text = ""
    with Display(console) as display:
        run = Run(options, network, measures, display, Evaluator(network.out), started_at)
        try:
            asyncio.run(run.run())
        except FlchainError as error:
            error_text, code = str(error), EXIT_FAULT
    measures.seconds = seconds_before + time.monotonic() - started_at
    for line in error_text.splitlines():
        print(f"error: {line}" if line == error_text.splitlines()[0] else line, file=sys.stderr)
    return EXIT_INTERRUPTED if run.is_stopped and not code else code


def _write_all(options: Options, results: dict[str, Any], measures: Measures) -> None:
    measures.save(options.out)
    write_results(options.out, results)
    from tools.demo.plot import write_plot  # takes a second to import, and is not needed while the network runs

    write_plot(results, options.out / PLOT_FILE)
