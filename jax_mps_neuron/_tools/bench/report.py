"""Measurements as records, and as tables in Markdown."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..._core.descriptor import NeuronType
from . import latency_report, markdown
from .floors import is_floor
from .markdown import digits, ratio
from .modes import DX, MODES, STEP
from .peers import XLA
from .timing import Times

__all__ = ["bandwidth", "groups", "head", "load", "median", "record", "summary", "table", "text", "title"]

_RESULT_KEYS = {"cpu", "cores", "platform", "device", "isa", "ours", "jax", "torch", "date", "command"}
_CELL_KEYS = {"type", "dtype", "shape", "mode", "ms", "ours", "floor", "bytes", "ratios"}
_NONE = "\N{EN DASH}"


def record(
    neuron_type: NeuronType,
    dtype: str,
    shape: tuple[int, ...],
    mode: str,
    times: dict[str, Times],
    ours: str,
    moved: int | None,
    memory: dict[str, int] | None = None,
) -> dict[str, Any]:
    """The JSON record of one cell.

    Args:
      neuron_type: the neuron type.
      dtype: the dtype of x.
      shape: the shape of x.
      mode: one of `modes.MODES`.
      times: median and quartiles in milliseconds of each peer and floor.
      ours: the peer that the others are compared with.
      moved: the bytes that a call must move; None for a training step.
      memory: peak bytes of a training step for each peer.

    Returns:
      A dict with the arguments; ``floor``, the name of the fastest floor, None without one; and ``ratios``,
      each peer's median over ours.
    """
    medians = {name: value["median"] for name, value in times.items()}
    cell = {
        "type": neuron_type.name.lower(),
        "dtype": dtype,
        "shape": list(shape),
        "mode": mode,
        "ours": ours,
        "floor": min(filter(is_floor, medians), key=medians.__getitem__, default=None),
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
    """Reads a file that --json wrote.

    Raises:
      ValueError: the file cannot be read, or holds something else.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError:
        result = {}
    if not _is_result(result):
        raise ValueError(
            f"{str(path)!r} must be a file that `bench --json` wrote; it has no such measurements"
        )
    return result


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or not set(result) >= _RESULT_KEYS:
        return False
    if latency_report.is_latency(result):
        return True
    cells = result.get("records")
    return (
        isinstance(cells, list)
        and "sweep" in result
        and all(isinstance(c, dict) and set(c) >= _CELL_KEYS and c["mode"] in MODES for c in cells)
    )


def median(cell: dict[str, Any], name: str) -> float:
    """The median of a peer or floor, in milliseconds per call."""
    milliseconds: float = cell["ms"][name]["median"]
    return milliseconds


def bandwidth(cell: dict[str, Any], name: str) -> float:
    """A peer's bandwidth in GB/s: the bytes that a call must move, over its time."""
    return float(cell["bytes"]) / median(cell, name) / 1e6


def groups(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The records of each table: one dtype, shape and mode; in a sweep, one dtype and neuron type."""
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


def head(result: dict[str, Any]) -> str:
    """The machine, the versions, the date and the command."""
    where = f"{result['cpu']}, {result['cores']} cores"
    if result["platform"] != "cpu":
        where = f"{result['device']}; {where}"
    versions = [f"{name} {result[name]}" for name in ("isa", "jax", "torch") if result[name]]
    return (
        f"{where}; {', '.join(versions)}; {result['date']}; ours: {result['ours']}\n`{result['command']}`"
    )


def text(result: dict[str, Any]) -> str:
    """All tables of a result, below its head."""
    if latency_report.is_latency(result):
        return f"{head(result)}\n\n{latency_report.tables(result)}"
    found = groups(result)
    parts = [head(result)]
    parts += [f"### {title(g, result['sweep'])}\n\n{table(g, result['sweep'])}" for g in found]
    if len(found) > 1 and not result["sweep"]:
        parts.append(f"### Summary\n\n{summary(result)}")
    return "\n\n".join(parts)


def summary(result: dict[str, Any]) -> str:
    """One row per table: the geometric mean and the minimum of XLA's time over ours."""
    header = ["mode", "dtype", "shape", f"{XLA} /, geometric mean", "least", "of"]
    rows = []
    for group in groups(result):
        ratios = {cell["type"]: cell["ratios"][XLA] for cell in group if XLA in cell["ratios"]}
        if ratios:
            least = min(ratios, key=ratios.__getitem__)
            means = [ratio(_geometric(ratios.values())), ratio(ratios[least]), least]
            rows.append([*(str(group[0][key]) for key in ("mode", "dtype", "shape")), *means])
    return markdown.table(header, rows, texts=(0, 1, 2, 5))


def table(group: Sequence[dict[str, Any]], sweep: bool = False) -> str:
    """One table in Markdown: our time, each peer's time over ours, and bandwidth or memory."""
    ours = group[0]["ours"]
    peers = list(dict.fromkeys(name for cell in group for name in cell["ratios"]))
    step = group[0]["mode"] == STEP
    last = ["peak, MiB", *peers] if step else ["GB/s", "of the floor"]
    header = ["size" if sweep else "type", f"{ours}, ms", *(f"{p} /" for p in peers), *last]
    rows = []
    for cell in group:
        name = _size(cell) if sweep else cell["type"]
        ratios = [ratio(cell["ratios"].get(p)) for p in peers]
        rest = _memory(cell, peers) if step else _speed(cell)
        rows.append([name, digits(median(cell, ours)), *ratios, *rest])
    if len(group) > 1 and not sweep:
        means = [ratio(_geometric(cell["ratios"].get(p) for cell in group)) for p in peers]
        rest = [""] * len(last) if step else ["", _percent(_geometric(map(_share, group)))]
        rows.append(["geometric mean", "", *means, *rest])
    return markdown.table(header, rows)


def _memory(cell: dict[str, Any], peers: Sequence[str]) -> list[str]:
    peak = cell["peak bytes"]
    return [f"{peak[p] / 2**20:.1f}" if p in peak else "" for p in (cell["ours"], *peers)]


def _speed(cell: dict[str, Any]) -> list[str]:
    share = _share(cell)
    return [_NONE if share is None else f"{bandwidth(cell, cell['ours']):.3g}", _percent(share)]


def _share(cell: dict[str, Any]) -> float | None:
    """Our speed as a fraction of the floor's.

    None for a training step, which has no floor, and for the data gradient of no activation, which
    computes nothing.
    """
    if cell["floor"] is None or (cell["mode"] == DX and cell["type"] == "none"):
        return None
    return median(cell, cell["floor"]) / median(cell, cell["ours"])


def _geometric(values: Iterable[float | None]) -> float | None:
    """The geometric mean of the values that are not None; None if all are."""
    logarithms = [math.log(v) for v in values if v is not None]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0%}"


def _size(cell: dict[str, Any]) -> str:
    size = float(math.prod(cell["shape"]) * (4 if cell["dtype"] == "float32" else 2))
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:g} {unit}"
        size /= 1024
    return f"{size:g} GiB"
