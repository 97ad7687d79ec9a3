"""bench: every recorded file is shown and drawn, every mode has a table, and no measurement is lost."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest

from jax_mps_neuron._tools.bench import command, measure, modes
from jax_mps_neuron._tools.cli import main

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
FILES = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
RECORDED = [f for f in FILES if "records" in json.loads(f.read_text())]
OTHERS = [f for f in FILES if not {"records", "latency"} & set(json.loads(f.read_text()))]
QUICK = ["bench", "--quick", "--types", "gelu", "relu", "--peers", "XLA", "--repeats", "1"]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_files_are_shown_and_drawn(path, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.svg"
    assert main(["bench", "--show", str(path), "--plot", str(picture)]) == 0
    text = capsys.readouterr().out
    result = json.loads(path.read_text())
    for cell in result["records"]:
        assert f"| {cell['type']} |" in text or result["sweep"]
    if not result["sweep"]:
        for cells in by_table(result):
            assert geometric_mean(cells) in text
    assert "<svg" in picture.read_text()


def by_table(result):
    tables = {}
    for cell in result["records"]:
        tables.setdefault((cell["mode"], cell["dtype"], str(cell["shape"])), []).append(cell)
    return tables.values()


def geometric_mean(cells):
    """The last row of a table, from the medians alone."""

    def mean(values):
        return math.prod(values) ** (1 / len(values))

    def median(cell, name):
        return cell["ms"][name]["median"]

    ours = cells[0]["ours"]
    peers = list(dict.fromkeys(name for c in cells for name in c["ms"] if name not in floors(c) | {ours}))
    ratios = [mean([median(c, p) / median(c, ours) for c in cells if p in c["ms"]]) for p in peers]
    row = [f"{r:.2g}x" if r < 100 else f"{r:.0f}x" for r in ratios]
    if cells[0]["mode"] == modes.STEP:
        row += [""] * (1 + len(peers))
    else:
        working = [c for c in cells if not (c["mode"] == modes.DX and c["type"] == "none")]
        row += [
            "",
            f"{mean([min(median(c, f) for f in floors(c)) / median(c, ours) for c in working]):.0%}",
        ]
    return "| geometric mean |  | " + " | ".join(row) + " |"


def floors(cell):
    return {name for name in cell["ms"] if name.startswith("x * g, ")}


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_other_files_are_refused(path, capsys):
    assert main(["bench", "--show", str(path)]) == 1
    assert "must be a file that `bench --json` wrote" in capsys.readouterr().err


@pytest.mark.parametrize("mode", modes.MODES)
def test_each_mode_has_a_table_and_a_picture(mode, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    drawn = [] if mode == modes.STEP else ["--plot", str(picture)]
    assert main([*QUICK, "--modes", mode, "--json", str(file), *drawn]) == 0
    text = capsys.readouterr().out
    (cells,) = by_table(json.loads(file.read_text()))
    assert len(cells) == 2
    assert geometric_mean(cells) in text
    assert picture.exists() == bool(drawn)


def test_a_step_alone_has_no_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "bench.json"
    assert main([*QUICK[:4], "--peers", "XLA", "--modes", "step", "--json", str(file)]) == 0
    assert main(["bench", "--show", str(file), "--plot", str(tmp_path / "bench.svg")]) == 1
    assert "nothing to draw" in capsys.readouterr().err


def test_the_file_is_written_before_the_table(monkeypatch, tmp_path):
    def fail(result):
        raise KeyError(None)

    monkeypatch.setattr(command, "text", fail)
    file = tmp_path / "bench.json"
    with pytest.raises(KeyError):
        main([*QUICK, "--modes", "forward", "--json", str(file)])
    assert [cell["type"] for cell in json.loads(file.read_text())["records"]] == ["gelu", "relu"]


def test_an_interrupted_run_keeps_what_it_measured(monkeypatch, tmp_path):
    real = measure._call

    def interrupted(plan, neuron_type, *rest):
        if neuron_type.name == "RELU":
            raise KeyboardInterrupt
        return real(plan, neuron_type, *rest)

    monkeypatch.setattr(measure, "_call", interrupted)
    file = tmp_path / "bench.json"
    with pytest.raises(KeyboardInterrupt):
        main([*QUICK, "--modes", "forward", "--json", str(file)])
    assert [cell["type"] for cell in json.loads(file.read_text())["records"]] == ["gelu"]
    with pytest.raises(KeyboardInterrupt):  # nothing is measured, so the file stays as it is
        main([*QUICK[:2], "--types", "relu", "--modes", "forward", "--json", str(file)])
    assert json.loads(file.read_text())["records"]


def test_the_performance_page_has_the_recorded_tables(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    path = ROOT / "benchmarks" / "write_performance.py"
    if not path.exists():
        pytest.skip("the benchmarks are not beside the tests")
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location("write_performance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page, copy = module.PAGE.read_text(), tmp_path / "performance.md"
    blank = re.sub(r"(<!-- table .*?-->\n).*?(<!-- end -->)", r"\1\2", page, flags=re.DOTALL)
    assert len(blank) < len(page) * 2 / 3
    copy.write_text(blank)
    monkeypatch.setattr(module, "PAGE", copy)
    for drawing in (module, module.overview):
        monkeypatch.setattr(drawing, "PICTURES", tmp_path)
    module.main()
    assert copy.read_text() == page
    assert len(list(tmp_path.glob("*.svg"))) == 10
