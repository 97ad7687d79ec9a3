"""The figures as records, and as tables in Markdown."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..._core.descriptor import NeuronType
from .floors import is_floor
from .modes import DX, MODES, STEP
from .peers import XLA
from .timing import Times

__all__ = ["bandwidth", "groups", "load", "record", "summary", "table", "text", "title"]

_KEYS = {"type", "dtype", "shape", "mode", "ms", "ours", "floor", "ratios"}


def record(
    kind: NeuronType,
    dtype: str,
    shape: tuple[int, ...],
    mode: str,
    times: dict[str, Times],
    ours: str,
    moved: int | None,
    memory: dict[str, int] | None = None,
) -> dict[str, Any]:
    """What the JSON holds of one cell.

    ``ms`` has the times of a call (median and quartiles) of all peers and floors, ``floor`` the name of the
    fastest floor, ``ratios`` how many times as long as ours each peer takes, ``bytes`` what a call at least
    moves, and ``peak bytes`` the memory of a training step by XLA's analysis.
    """
    medians = {name: value["median"] for name, value in times.items()}
    floor = min(filter(is_floor, medians), key=medians.__getitem__, default=None)
    cell = {
        "type": kind.name.lower(),
        "dtype": dtype,
        "shape": list(shape),
        "mode": mode,
        "ours": ours,
        "floor": floor,
        "bytes": moved,
        "ms": times,
        "ratios": {
            name: float(f"{median / medians[ours]:.5g}")
            for name, median in medians.items()
            if name != ours and not is_floor(name)
        },
    }
    return cell if memory is None else {**cell, "peak bytes": memory}


def load(path: Path) -> dict[str, Any]:
    """Reads what --json wrote; a ValueError if it is something else."""
    try:
        result = json.loads(path.read_text())
        if not all(set(cell) >= _KEYS for cell in result["records"]):
            raise KeyError
    except OSError as error:
        raise ValueError(f"can't read {str(path)!r}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{str(path)!r} has no figures of `bench --json`") from None
    return result


def median(cell: dict[str, Any], name: str) -> float:
    """Milliseconds of a call of one peer or floor."""
    return cell["ms"][name]["median"]


def bandwidth(cell: dict[str, Any], name: str) -> float:
    """GB/s of a peer: the bytes that a call at least moves, in its time."""
    return cell["bytes"] / median(cell, name) / 1e6


def groups(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The records that share a table: of a dtype, a shape and a mode; of a sweep, of a dtype and a type."""
    shared = ("dtype", "type") if result["sweep"] else ("dtype", "shape", "mode")
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in result["records"]:
        found.setdefault(json.dumps([cell[key] for key in shared]), []).append(cell)
    order = [*found.values()]
    return order if result["sweep"] else sorted(order, key=lambda g: MODES.index(g[0]["mode"]))


def title(group: Sequence[dict[str, Any]], sweep: bool) -> str:
    """The heading of a table."""
    cell = group[0]
    if sweep:
        return f"{cell['type']}, {cell['dtype']}, {cell['mode']}"
    return f"{cell['mode']}, {cell['dtype']}, {cell['shape']}"


def summary(result: dict[str, Any]) -> str:
    """A row for each table but a sweep's: how many times as long XLA takes, on average and at worst."""
    lines = [
        _row(["mode", "dtype", "shape", f"{XLA} /, geometric mean", "least", "of"]),
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for group in groups(result):
        ratios = {cell["type"]: cell["ratios"][XLA] for cell in group if XLA in cell["ratios"]}
        if ratios:
            worst = min(ratios, key=ratios.__getitem__)
            means = [_ratio(_geometric(ratios.values())), _ratio(ratios[worst]), worst]
            lines.append(_row([*(str(group[0][key]) for key in ("mode", "dtype", "shape")), *means]))
    return "\n".join(lines)


def text(result: dict[str, Any]) -> str:
    """All tables, under a line about the machine."""
    where = f"{result['cpu']}, {result['cores']} cores"
    if result["platform"] != "cpu":
        where = f"{result['device']}; {where}"
    versions = [f"{name} {result[name]}" for name in ("isa", "jax", "torch") if result[name]]
    head = (
        f"{where}; {', '.join(versions)}; {result['date']}; ours: {result['ours']}\n`{result['command']}`"
    )
    found = groups(result)
    parts = [head, *(f"### {title(g, result['sweep'])}\n\n{table(g, result['sweep'])}" for g in found)]
    if len(found) > 1 and not result["sweep"]:
        parts.append(f"### Summary\n\n{summary(result)}")
    return "\n\n".join(parts)


def table(group: Sequence[dict[str, Any]], sweep: bool = False) -> str:
    """One table in Markdown: our time, how many times as long the peers take, our share of the floor."""
    ours = group[0]["ours"]
    peers = list(dict.fromkeys(name for cell in group for name in cell["ratios"]))
    step = group[0]["mode"] == STEP
    last = ["peak, MiB", *(f"{p}" for p in peers)] if step else ["GB/s", "of the floor"]
    header = ["size" if sweep else "type", f"{ours}, ms", *(f"{p} /" for p in peers), *last]
    lines = [_row(header), "| --- |" + " ---: |" * (len(header) - 1)]
    for cell in group:
        ratios = [_ratio(cell["ratios"].get(p)) for p in peers]
        name = _size(cell) if sweep else cell["type"]
        lines.append(_row([name, _milliseconds(median(cell, ours)), *ratios, *_last(cell, peers, step)]))
    if len(group) > 1 and not sweep:
        means = [_ratio(_geometric(c["ratios"].get(p) for c in group)) for p in peers]
        full = [_share(c) for c in group if not _is_empty(c)]
        shares = [] if step else ["", f"{_geometric(full):.0%}" if full else "\N{EN DASH}"]
        rest = [""] * len(last) if step else shares
        lines.append(_row(["geometric mean", "", *means, *rest]))
    return "\n".join(lines)


def _last(cell: dict[str, Any], peers: Sequence[str], step: bool) -> list[str]:
    if not step:
        if _is_empty(cell):
            return ["\N{EN DASH}", "\N{EN DASH}"]
        return [f"{bandwidth(cell, cell['ours']):.3g}", f"{_share(cell):.0%}"]
    memory = cell["peak bytes"]
    return [f"{memory[p] / 2**20:.1f}" if p in memory else "" for p in (cell["ours"], *peers)]


def _is_empty(cell: dict[str, Any]) -> bool:
    """Whether nothing is computed, whose bandwidth means nothing: the data gradient of no activation."""
    return cell["mode"] == DX and cell["type"] == "none"


def _share(cell: dict[str, Any]) -> float:
    return median(cell, cell["floor"]) / median(cell, cell["ours"])


def _geometric(values: Iterable[float | None]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values if v is not None))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}x" if value < 100 else f"{value:.0f}x"


def _milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _size(cell: dict[str, Any]) -> str:
    size = float(math.prod(cell["shape"]) * (4 if cell["dtype"] == "float32" else 2))
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:g} {unit}"
        size /= 1024
    return f"{size:g} GiB"
