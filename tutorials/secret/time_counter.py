"""What sealing costs: the averages of the times that the tutorials noted, as a table and a bar chart.

    python tutorials/secret/time_counter.py [FOLDER]

Each tutorial adds a line to FOLDER/<format>_time.txt, and so does unsealed.py for the same without sealing.
The chart is FOLDER/time.png. A first run in a process is slower than the next; every line here is a first
run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import common
import numpy as np
from rich.console import Console
from rich.table import Table

PATHS = ("sealed", "unsealed")
COLOURS = ("tab:blue", "tab:orange", "tab:green")


def main() -> None:
    folder = common.options(__doc__, photo=False).folder
    times = {file.name.removesuffix("_time.txt"): read(file) for file in sorted(folder.glob("*_time.txt"))}
    if not times:
        sys.exit(f"{folder} has no *_time.txt: run the tutorials first")
    print_table(times)
    draw(times, folder / "time.png")


def read(file: Path) -> dict[str, np.ndarray]:
    """`sealed` and `unsealed`, as far as the file has them: (runs, 3) seconds of import, build and run."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return {
        path: np.array([list(map(float, seconds)) for kind, *seconds in lines if kind == path])
        for path in PATHS
        if any(line[0] == path for line in lines)
    }


def print_table(times: dict[str, dict[str, np.ndarray]]) -> None:
    table = Table(title="mean seconds", title_justify="left")
    table.add_column("format")
    table.add_column("path")
    for heading in ("runs", *common.STEPS, "total"):
        table.add_column(heading, justify="right")
    for name, paths in times.items():
        for path, seconds in paths.items():
            means = seconds.mean(axis=0)
            figures = [f"{mean:.2f}" for mean in (*means, means.sum())]
            table.add_row(name, path, str(len(seconds)), *figures, end_section=path == list(paths)[-1])
    Console().print(table)


def draw(times: dict[str, dict[str, np.ndarray]], picture: Path) -> None:
    """A pair of bars for each format, sealed to the left, of the three steps one on the other."""
    plt = common.pyplot()
    figure, axes = plt.subplots(figsize=(1.5 + 1.2 * len(times), 4), layout="constrained")
    for place, paths in enumerate(times.values()):
        for path, seconds in paths.items():
            side = PATHS.index(path)
            bottom = 0.0
            for mean, step, colour in zip(seconds.mean(axis=0), common.STEPS, COLOURS, strict=True):
                label = step if path == "sealed" and place == 0 else None
                hatch = "//" if path == "unsealed" else None
                axes.bar(
                    place + 0.4 * side - 0.2,
                    mean,
                    0.36,
                    bottom,
                    color=colour,
                    hatch=hatch,
                    edgecolor="white",
                    label=label,
                )
                bottom += mean
    axes.bar(0, 0, color="grey", hatch="//", edgecolor="white", label="unsealed")
    axes.set_xticks(range(len(times)), list(times))
    axes.set(ylabel="seconds", title="Sealed (left) and unsealed (right)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    common.save(figure, picture)


if __name__ == "__main__":
    main()
