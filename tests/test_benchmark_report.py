"""What a benchmark's report says: its numbers, its failures, and files that are whole."""

from __future__ import annotations

import csv
import math
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from skimage.io import imsave

from recon.benchmark.report.lines import failures
from recon.benchmark.report.tables import overview
from recon.benchmark.report.write import aggregate, write_report
from recon.errors import ConfigError, OutputError

SAID = {"title": "Report", "conventions": {"PSNR": "of magnitudes"}, "command": "recon benchmark a.yaml"}


def done(key: str, psnr: float | None, method: str = "dds", *, seed: int = 0, **changes) -> dict:
    cell = {
        "problem": "mri-4x",
        "input": "a.npz",
        "slice": 9,
        "method": method,
        "solver": "ddim",
        "calls": 20,
    }
    row = {
        "key": key,
        "status": "done",
        "cell": cell | {"samples": 4, "seed": seed},
        "network_calls": 20,
        "seconds": 6.0,
        "residual": 1.0,
        "metrics": {"psnr": psnr, "object_psnr": 30.0, "ssim": 0.9, "nmse": 0.004},
        "coverage": 0.885,
        "versions": {"recon": "1.0"},
        "finished": "2026-01-01T00:00:00",
    }
    row["cell"] |= changes.pop("cell", {})
    return row | changes


def failed(key: str, method: str = "dds", **cell) -> dict:
    row = done(key, None, method, cell=cell)
    error = {"what": "It diverged.", "why": "a | b", "do": "More calls."}
    return {"key": key, "status": "failed", "cell": row["cell"], "error": error}


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        imsave(folder / name, np.zeros((4, 4), np.uint8), check_contrast=False)


class Page(HTMLParser):
    """Tags that are open, addresses, and text of a page."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.sources, self.links, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        if tag == "img":
            self.sources.append(unquote(named["src"]))
        if "href" in named:
            self.links.append(unquote(named["href"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_mean_standard_error_and_n():
    rows = [done(str(k), psnr, seed=k) for k, psnr in enumerate((30.0, 32.0, 37.0))]
    (line,) = aggregate(rows)
    assert (line.n, line.failed, line.samples, line.calls) == (3, 0, (4,), 20)
    assert line.psnr.mean == 33.0
    assert line.psnr.error == pytest.approx(math.sqrt(13) / math.sqrt(3), rel=1e-14)  # s^2 = (9 + 1 + 16) / 2
    assert (line.seconds.mean, line.seconds.error) == (6.0, 0.0)
    assert line.ess.mean is None


def test_one_cell_has_no_standard_error():
    (line,) = aggregate([done("a", 30.0)])
    assert (line.psnr.mean, line.psnr.error, line.psnr.n) == (30.0, None, 1)


@pytest.mark.parametrize("gap", [None, math.nan], ids=["none", "nan"])
def test_missing_numbers_are_left_out_of_a_mean_and_printed_as_a_dash(tmp_path, gap):
    rows = [done("a", 30.0), done("b", gap, seed=1), done("c", gap, "dps")]
    first, second = aggregate(rows)
    assert (first.psnr.mean, first.psnr.n, first.n) == (30.0, 1, 2)
    assert second.psnr.mean is None
    write_report(rows, tmp_path, **SAID)
    assert "| dps | ddim | 20 | – ± – | 30.00 |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    "change",
    [{"problem": "ct"}, {"method": "dps"}, {"solver": None}, {"calls": None}],
    ids=lambda c: next(iter(c)),
)
def test_what_sets_lines_apart(change):
    assert len(aggregate([done("a", 30.0), done("b", 31.0, cell=change)])) == 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"slice": 3}, {"input": "b.npz"}, {"samples": 8}], ids=str)
def test_what_one_line_brings_together(change):
    (line,) = aggregate([done("a", 30.0), done("b", 32.0, cell=change)])
    assert (line.n, line.psnr.mean, line.psnr.error) == (2, 31.0, 1.0)


def test_lines_fall_in_psnr_and_missing_ones_come_last():
    rows = [done("a", 30.0, "low"), done("b", None, "none"), done("c", 35.0, "high")]
    assert [line.method for line in aggregate(rows)] == ["high", "low", "none"]


def test_later_rows_of_a_key_replace_earlier_ones():
    rows = [done("a", 20.0), failed("b", "dps"), done("a", 30.0), done("b", 31.0, "dps")]
    assert [(line.method, line.psnr.mean, line.n) for line in aggregate(rows)] == [("dps", 31.0, 1), ("dds", 30.0, 1)]  # fmt: skip
    assert failures(rows) == []
    assert [line.failed for line in aggregate([*rows, failed("a")])] == [0]


def test_failed_cells_are_counted_and_listed(tmp_path):
    rows = [done("a", 30.0), failed("b", seed=1), failed("c", seed=2), failed("d", "dps", problem="ct")]
    (line,) = aggregate(rows)
    assert (line.n, line.failed) == (1, 2)
    assert [(f.method, f.count, f.where) for f in failures(rows)] == [
        ("dds", 2, "a.npz, slice 9, seed 1"),
        ("dps", 1, "a.npz, slice 9, seed 0"),
    ]
    write_report(rows, tmp_path, **SAID)
    text = (tmp_path / "table.md").read_text()
    assert "1 (2 failed)" in text and "## ct\n\nEvery cell failed." in text
    assert "| It diverged. | a \\| b | More calls. |" in text
    assert "It diverged." in (tmp_path / "index.html").read_text()


def test_a_report_of_failures_alone_has_no_figures(tmp_path):
    written = write_report([failed("a")], tmp_path, **SAID)
    assert [path.name for path in written] == ["table.csv", "table.md", "index.html"]


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing to report"):
        write_report([], tmp_path / "new", **SAID)
    assert not (tmp_path / "new").exists()


def test_csv_gives_back_every_number(tmp_path):
    third = 1 / 3
    rows = [done("a", third, notes={"step": 0.1}), done("b", math.nan, ess=3.2, coverage=None), failed("c")]
    write_report(rows, tmp_path, **SAID)
    with open(tmp_path / "table.csv", newline="") as file:
        a, b, c = csv.DictReader(file)
    assert float(a["metrics.psnr"]) == third and float(a["notes.step"]) == 0.1 and a["slice"] == "9"
    assert (b["metrics.psnr"], b["coverage"], float(b["ess"])) == ("", "", 3.2)
    assert (c["status"], c["seconds"], c["error.why"]) == ("failed", "", "a | b")


def test_names_are_escaped(tmp_path):
    rows = [done("a", 30.0, "<b>"), done("b", 31.0, "x|y"), failed("c", "<i>", problem="<script>")]
    write_report(rows, tmp_path, **SAID | {"title": "<u>", "command": "<s>"})
    text = (tmp_path / "index.html").read_text()
    assert "&lt;b&gt;</td>" in text and text.count("<b>") == 1  # the page's own, around an error
    assert not {"i", "u", "s"} & set(Page(text).tags)
    assert text.count("<script>") == 1  # the page's own
    table = (tmp_path / "table.md").read_text()
    assert "| x\\|y | ddim |" in table and "| \\<b\\> |" in table


def test_a_page_is_whole_and_refers_to_what_exists(tmp_path):
    mine = {
        "mean": "pictures/a#1.png",
        "std": None,
        "error": "pictures/lost.png",
        "reference": "pictures/ref.png",
    }
    other = {"mean": "pictures/b.png", "std": "../out.png", "measured": "/etc/hosts"}
    pictures(tmp_path / "out", "pictures/a#1.png", "pictures/ref.png", "pictures/b.png", "../out.png")
    classical = done("c", 25.0, "zero-filled", cell={"solver": None, "calls": None}, network_calls=0)
    rows = [
        done("a", 30.0, pictures=mine),
        done("b", 31.0, "dps", pictures=other),
        classical,
        failed("d", seed=3),
    ]
    written = write_report(rows, tmp_path / "out", **SAID)
    assert [p.name for p in written] == [
        "table.csv",
        "table.md",
        "psnr_calls.png",
        "coverage.png",
        "index.html",
    ]
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert page.open == []
    assert {"pictures/a#1.png", "pictures/ref.png", "pictures/b.png", "psnr_calls.png"} <= set(page.sources)
    assert not any("lost" in source or ".." in source or "hosts" in source for source in page.sources)
    for name in {*page.sources, *(link for link in page.links if not link.startswith("#"))}:
        assert (tmp_path / "out" / name).is_file()


def test_an_overview_has_each_methods_best_line(tmp_path):
    ct = {"problem": "ct"}
    rows = [
        done("a", 30.0),
        done("b", 33.0, cell={"calls": 50}),
        done("c", 40.0, "dps"),
        done("d", 20.0, cell=ct),
    ]
    first, second = overview(aggregate(rows))
    assert (first["method"], first["cells"]["mri-4x"][0], first["cells"]["ct"][0]) == (
        "dds",
        "33.00",
        "20.00",
    )
    assert (second["method"], [*second["cells"]], second["best"]) == ("dps", ["mri-4x"], {"mri-4x"})
    assert first["best"] == {"ct"}
    write_report(rows, tmp_path, **SAID)
    assert Page((tmp_path / "index.html").read_text()).open == []


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_report([done("a", 30.0)], tmp_path, **SAID)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(content, file):
        file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recon.benchmark.report.write.write", full)
    with pytest.raises(OutputError, match="No space left"):
        write_report([done("a", 31.0)], tmp_path, **SAID)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("calls", [0, 1, 30, 5000])
def test_figures_of_any_budget(tmp_path, calls):
    rows = [done("a", 30.0, network_calls=calls), done("b", math.inf, "exact"), done("c", 5.0, "deepinv-dds")]
    write_report(rows, tmp_path, **SAID)
    assert (tmp_path / "psnr_calls.png").read_bytes().startswith(b"\x89PNG")
    assert "∞" in (tmp_path / "table.md").read_text()
