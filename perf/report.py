"""How results look: tables for a terminal, a plot of latencies. For ``e2e`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEADER = (
    f"{'operation':<13}{'size':>7}{'conns':>6}{'/s':>10}{'MB/s':>8}"
    f"{'p50 ms':>10}{'p90':>9}{'p99':>9}{'p99.9':>9}{'cpu us':>8}{'RSS MiB':>9}   beside the floor"
)


def size_text(size: int) -> str:
    if not size:
        return "-"
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def figure_row(figure: dict[str, Any]) -> str:
    """One line of the table; ``*``: keys ran out and were put again, ``!``: requests failed."""
    floor = figure["floor"]
    times = [figure[f"{name}_us"] / 1000 for name in ("p50", "p90", "p99", "p999")]
    marks = ("*" if figure["wrapped"] and figure["operation"] == "put" else "") + (
        f" ! {figure['failures']} failed {figure['statuses']}" if figure["failures"] else ""
    )
    return (
        f"{figure['operation']:<13}{size_text(figure['size']):>7}{figure['connections']:>6}"
        f"{figure['rate']:>10,.0f}{figure['mb_s']:>8,.0f}"
        f"{ms(times[0]):>10}{ms(times[1]):>9}{ms(times[2]):>9}{ms(times[3]):>9}"
        f"{figure['server_cpu_us']:>8,.0f}{figure['memory_mib']:>9,.0f}   "
        f"{floor_text(floor)}{marks}"
    )


def ms(time: float) -> str:
    return f"{time:,.3f}" if time < 100 else f"{time:,.0f}"


def floor_text(floor: dict[str, Any]) -> str:
    """``0.31 of echo 94,000 /s``, or ``1.2 x sync + swap 650 us p50`` where less is better."""
    if floor["unit"].startswith("us"):
        return f"{floor['share']:.2f} x {floor['name']} {floor['value']:,.0f} us"
    return f"{floor['share']:.2f} of {floor['name']} {floor['value']:,.0f} {floor['unit']}"


def floors_table(floors: dict[str, Any]) -> str:
    lines = []
    for name in ("sync_us", "swap_us"):
        for how, times in floors[name].items():
            spans = ", ".join(f"{key} {value:,.0f}" for key, value in times.items())
            lines.append(f"  {name.removesuffix('_us'):<5} {how.replace('_', ' '):<13} us: {spans}")
    rates = ", ".join(f"{key} {value:,.0f}" for key, value in floors["digests_mb_s"].items())
    return "\n".join([*lines, f"  digests MB/s: {rates}"])


def plot(found: dict[str, Any], path: Path) -> None:
    """Latency percentiles over connections, one panel an operation and size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for figure in found["figures"]:
        kinds.setdefault((figure["operation"], figure["size"]), []).append(figure)
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    canvas, panels = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False, layout="constrained"
    )
    for panel, ((operation, size), figures) in zip(panels.flat, kinds.items(), strict=False):
        connections = [figure["connections"] for figure in figures]
        for name, label in (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9")):
            times = [figure[f"{name}_us"] / 1000 for figure in figures]
            panel.plot(connections, times, marker="o", label=label)
        panel.set(xscale="log", yscale="log", title=f"{operation} {size_text(size)}")
        panel.set_xticks(connections, [str(count) for count in connections])
        panel.set(xlabel="connections", ylabel="ms")
        panel.grid(True, which="both", alpha=0.3)
    for panel in list(panels.flat)[len(kinds) :]:
        panel.set_visible(False)
    panels[0][0].legend()
    about = found["about"]
    canvas.suptitle(f"ingot {about['commit']}, {about['when']}, {about['keys']:,} keys")
    canvas.savefig(path, dpi=120)
    pyplot.close(canvas)
