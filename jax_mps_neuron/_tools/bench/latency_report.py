"""The tables of `bench --latency`."""

from __future__ import annotations

from typing import Any

from . import markdown
from .markdown import digits, ratio

__all__ = ["is_latency", "tables"]

_KEYS = {"shape", "dtype", "calls", "network", "learned"}


def is_latency(result: dict[str, Any]) -> bool:
    """Whether a result is one of --latency."""
    latency = result.get("latency")
    return isinstance(latency, dict) and set(latency) >= _KEYS


def tables(result: dict[str, Any]) -> str:
    """All tables."""
    latency = result["latency"]
    network, learned = latency["network"], latency["learned"]
    parts = {
        f"Eager calls and their gradients, microseconds, x {latency['dtype']} {latency['shape']}": _calls(
            latency["calls"]
        ),
        f"Training step of {network['layers']} layers x + gelu(x W + bias), x {network['shape']}": _network(
            network["activations"]
        ),
        f"Compilations of a training step that runs {learned['steps']} times and learns a neuron": _learned(
            learned["compilations"]
        ),
    }
    return "\n\n".join(f"### {heading}\n\n{table}" for heading, table in parts.items())


def _calls(calls: list[dict[str, Any]]) -> str:
    rows = []
    for call in calls:
        columns = []
        for figures in (call["us"], call["grad us"]):
            if figures is None:
                columns += ["", "", ""]
            else:
                ours, theirs = figures["ours"], figures["jax.nn"]
                columns += [digits(ours), digits(theirs), ratio(ours / theirs)]
        rows.append([f"`{call['name']}`", f"`{call['peer']}`", *columns])
    header = ["ours", "jax.nn", "ours", "jax.nn", "ratio", "grad: ours", "jax.nn", "ratio"]
    return markdown.table(header, rows, texts=(0, 1))


def _network(activations: dict[str, dict[str, float]]) -> str:
    *_, baseline = activations.values()
    stages = ("trace", "lower", "compile")
    rows = []
    for name, figures in activations.items():
        cells = [
            f"{digits(figures[stage])} ({ratio(figures[stage] / baseline[stage])})" for stage in stages
        ]
        size, compared = (
            figures["temporary bytes"],
            ratio(figures["temporary bytes"] / baseline["temporary bytes"]),
        )
        rows.append([f"`{name}`", *cells, f"{digits(size / 1024)} ({compared})"])
    return markdown.table(["activation", "trace, ms", "lower, ms", "compile, ms", "temporaries, KiB"], rows)


def _learned(compilations: dict[str, dict[str, int]]) -> str:
    rows = [[name, str(counts["ours"]), str(counts["jax.nn"])] for name, counts in compilations.items()]
    return markdown.table(["learned neuron", "ours", "jax.nn"], rows)
