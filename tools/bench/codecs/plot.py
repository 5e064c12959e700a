"""codecs.png: accuracy over the bytes that a device has sent, a panel for each task and a line for each codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no screen

import numpy as np
from matplotlib import pyplot as plt

Result = dict[str, Any]


def write_plot(results: Sequence[Result], path: Path) -> None:
    """Write the plot: accuracy is the mean over the seeds, bytes are each codec's mean per round."""
    tasks = list(dict.fromkeys((result["dataset"], result["model"]) for result in results))
    columns = min(2, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 3.9 * rows), dpi=120, layout="constrained", squeeze=False
    )
    codecs = list(dict.fromkeys(result["codec"] for result in results))
    colours = {codec: plt.get_cmap("tab10")(place) for place, codec in enumerate(codecs)}
    for panel, task in zip(axes.flat, tasks, strict=False):
        own = [result for result in results if (result["dataset"], result["model"]) == task]
        for codec in codecs:
            runs = [result for result in own if result["codec"] == codec]
            if not runs:
                continue
            accuracy = np.mean([run["accuracy"] for run in runs], axis=0)
            up = np.mean([run["bytes_up_per_round"] for run in runs]) * np.arange(1, len(accuracy) + 1)
            label = "float32 (identity)" if codec == "identity" else codec
            panel.plot(up / 1_000, accuracy, label=label, color=colours[codec], linewidth=1.4)
        target = float(np.mean([result["target_accuracy"] for result in own]))
        panel.axhline(target, color="grey", linewidth=0.8, linestyle="--")
        panel.set_xscale("log")
        panel.set_title(f"{task[0]}/{task[1]}", fontsize=10)
        panel.set_xlabel("kB sent by a device (payloads)")
        panel.set_ylabel("accuracy on held-out data")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(axes.flat)[len(tasks) :]:
        panel.set_axis_off()
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path)
    plt.close(figure)
