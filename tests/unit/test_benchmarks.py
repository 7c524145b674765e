"""The benchmarks' own arithmetic: lines of progress into stages, cases into descriptors, numbers into a picture."""

from __future__ import annotations

import re
import sys
import threading
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from benchmarks import chart, classic, proxy, steps, tables
from benchmarks.cases import THIRTY, Case, cases, rectangle
from benchmarks.runner import summary
from benchmarks.steps import REST, BuildFailed, Timing
from benchmarks.targets import targets

from gitian.formats.descriptor import Descriptor
from gitian.host import progress

ROOT = Path(__file__).resolve().parents[2]


def test_stages_of_a_build_are_the_time_between_a_step_s_two_lines() -> None:
    lines = [(0.1, "--- Building for bookworm amd64 ---"),
             (0.2, "Hashing 1 input file ..."), (0.7, "Hashing 1 input file: done (500.0 MB, 0.5 s)"),
             (0.7, "Starting a clean target from its layer ..."),
             (0.9, "Starting a clean target from its layer: done (0.2 s)"),
             (0.9, "Preparing build environment ..."), (1.9, "Preparing build environment: done (1.0 s)"),
             (2.0, "warning: something ... is odd"),
             (2.0, "Running build script (log in var/build.log) ..."),
             (5.0, "Running build script (log in var/build.log): done (3.0 s)")]
    found = steps.of_gbuild(lines)
    assert found == pytest.approx({"guest started": 0.2, "inputs in": 1.5, "script": 3.0})
    timing = steps.with_rest(6.0, found)
    assert timing.overhead == pytest.approx(3.0)
    assert timing.stages[REST] == pytest.approx(1.3)


def test_time_that_targets_spend_side_by_side_is_shared_among_their_stages() -> None:
    lines = [(0.0, "bookworm-amd64: Running build script (log in var/build-bookworm-amd64.log) ..."),
             (0.5, "trixie-i386: Running build script (log in var/build-trixie-i386.log) ..."),
             (1.0, "bookworm-amd64: Running build script (log in var/build-bookworm-amd64.log): done (1.0 s)"),
             (3.0, "trixie-i386: Running build script (log in var/build-trixie-i386.log): done (2.5 s)"),
             (3.0, "Generating report ..."), (3.25, "Generating report: done (0.2 s)")]
    assert steps.of_gbuild(lines) == pytest.approx({"script": 3.0, "report": 0.25})
    lines[1:1] = [(0.2, "trixie-i386: Preparing build environment ..."),
                  (0.5, "trixie-i386: Preparing build environment: done (0.3 s)")]
    assert steps.of_gbuild(lines) == pytest.approx({"script": 2.85, "inputs in": 0.15, "report": 0.25})


def test_every_step_of_gbuild_belongs_to_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """A step that is renamed would silently be counted as 'the rest'."""
    files = [ROOT / "src/gitian/build" / name for name in (
        "guests.py", "install.py", "layer.py", "pipeline.py", "target.py")]
    source = "".join(file.read_text() for file in files)
    titles = set(re.findall(r'(?:step|_logged)\(f?"([A-Z][^"{]+)', source)) | {"Starting a clean target"}
    assert len(titles) >= 12
    for title in titles:
        assert steps.stage_of(title) != REST, title
        with progress.step(title):
            pass
    said = [(float(number), line) for number, line in enumerate(capsys.readouterr().err.splitlines())]
    assert sum(steps.of_gbuild(said).values()) == len(titles), "the lines of progress have another form"


def test_a_line_of_the_classic_ends_what_was_before_it() -> None:
    lines = [(0.3, "--- Building for bookworm amd64 ---"), (0.3, "Stopping target if it is up"),
             (1.3, "Making a new image copy"), (5.2, "Starting target"), (5.2, "Checking if target is up..."),
             (5.5, "Preparing build environment"), (5.7, "Updating apt-get repository (log in var/install.log)"),
             (8.1, "Installing additional packages (log in var/install.log)"),
             (10.1, "Upgrading system, may take a while (log in var/install.log)"), (17.7, "Creating package manifest"),
             (24.1, "Creating build script (var/build-script)"),
             (24.1, "Running build script (log in var/build.log)"), (24.3, "Grabbing results from target"),
             (24.4, "Cleaning up target"), (24.5, "Generating report"), (24.5, "0123  hello.txt"), (24.6, "Done.")]
    assert steps.of_classic(lines, 24.7) == pytest.approx({
        "guest started": 5.2, "packages installed": 12.0, "packages hashed": 6.4, "inputs in": 0.2, "script": 0.2,
        "outputs out": 0.1, "report": 0.1, REST: 0.2})


def test_lines_are_timed_when_they_come_not_when_the_program_ends(tmp_path: Path) -> None:
    program = "import sys, time; print('A', flush=True); time.sleep(0.5); print('B')"
    seconds, lines = steps.timed([sys.executable, "-c", program], cwd=tmp_path, environment={}, stream="stdout")
    assert [line for _, line in lines] == ["A", "B"]
    assert lines[1][0] - lines[0][0] >= 0.4
    assert seconds >= lines[1][0]


def test_a_build_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="status 3:\n  no such thing"):
        steps.timed([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"],
                    cwd=tmp_path, environment={})


def test_cases_are_descriptors(tmp_path: Path) -> None:
    everything = tuple((suite, arch) for suite in ("bookworm", "trixie") for arch in ("amd64", "i386"))
    found = cases(everything[0], everything, quick=True, processors=1)
    assert len(THIRTY) == len(set(THIRTY)) == 30
    for case in found:
        descriptor = Descriptor.read(case.lay_out(tmp_path))
        assert descriptor.name == case.name
        assert [(suite, arch) for suite in descriptor.suites for arch in descriptor.architectures] == list(case.targets)
        assert tuple(descriptor.packages) == case.packages
    assert [case.name for case in found][-3:] == ["matrix", "one", "matrix-wide"]
    assert [case.name for case in cases(everything[0], everything, quick=True, processors=4)][-2:] == ["matrix", "one"]
    matrix = next(case for case in found if case.name == "matrix")
    assert matrix.title == "2 suites x 2 architectures, idle"
    assert (tmp_path / "inputs/input.bin").stat().st_size == 100 * 10**6


def test_a_descriptor_of_several_targets_needs_an_image_of_each_pair() -> None:
    a, b, c = ("bookworm", "amd64"), ("bookworm", "i386"), ("trixie", "amd64")
    assert set(rectangle((a, b))) == {a, b}
    assert len(rectangle((a, b, c))) == 2
    assert rectangle((a,)) == (a,)
    assert rectangle(()) == ()
    assert [case.name for case in cases(a, (a,), quick=False)] == ["tiny", "packages", "large"]


def timing(seconds: float, script: float = 0.2) -> Timing:
    return steps.with_rest(seconds, {"guest started": seconds / 4, "script": script})


def results() -> dict[str, Any]:
    def ways(**seconds: float) -> dict[str, Any]:
        return {way.replace("_", " "): summary([timing(value)], [0.5]) for way, value in seconds.items()}

    return {"date": "2020-01-01", "machine": {"processors": 2, "python": "3.11"}, "processors busy": 0.5,
            "builds": {"lxc": {
                "tiny": {"title": "tiny", "targets": [], "ways": ways(cold=6, warm=0.9, no_layers=5, classic=24)},
                "one": {"title": "<one>", "targets": [], "ways": ways(warm=1.0)},
                "matrix": {"title": "all & more", "targets": [], "ways": ways(warm=1.6)}}},
            "hashing": {"large files": {"files": 2, "bytes": 10**9, "sha256sum (s)": 1.0, "gitian (s)": 1.25,
                                        "of sha256sum": 0.8}},
            "starting": {"python -c pass": {"cpu": 0.01, "wall": 0.01, "ratio": 1.0},
                         "gbuild --help": {"cpu": 0.25, "wall": 0.3, "ratio": 25.0}}}


def test_the_fastest_build_is_shown_with_its_own_steps() -> None:
    found = summary([timing(9.0), timing(1.0), timing(2.0)], [1.0, 2.0, 3.0])
    assert (found["seconds"], found["middle"], found["most"]) == (1.0, 2.0, 9.0)
    assert found["stages"]["guest started"] == 0.25
    assert found["overhead"] == 0.8


def test_targets_say_what_was_missed() -> None:
    met = {one["what"]: one["met"] for one in targets(results())}
    assert met == {"LXC, tiny, warm: besides the script": True, "LXC, tiny, cold / the classic": True,
                   "LXC, all targets / one, warm, idle, by default": False,
                   "hashing large files: throughput / sha256sum x 2": False, "the slowest --help: CPU": False}


def test_the_table_gives_ratios() -> None:
    text = tables.builds(results(), "lxc")
    head, _, tiny = text.splitlines()[:3]
    assert re.split(r"\s{2,}", head) == ["lxc: seconds", "cold", "warm", "no layers", "classic", "no layers / warm",
                                         "classic / cold", "classic / warm"]
    assert tiny.split() == ["tiny", "6.00", "0.90", "5.00", "24.00", "5.6", "4.0", "26.7"]


def test_the_chart_is_svg_for_light_and_dark_pages_whose_bars_are_as_long_as_the_builds() -> None:
    text = chart.draw(results())
    assert "prefers-color-scheme: dark" in text
    top = ElementTree.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    titles = [element.text for element in top.iter(f"{name}text")]
    assert "<one>" in titles
    assert "all & more" in titles
    assert "24.0" in titles
    bars = [element for element in top.iter(f"{name}rect") if element.find(f"{name}title") is not None]
    ends: dict[str, float] = {}
    for bar in bars:
        ends[bar.attrib["y"]] = max(ends.get(bar.attrib["y"], 0), float(bar.attrib["x"]) + float(bar.attrib["width"]))
    lengths = sorted(end - 110 for end in ends.values())
    assert lengths[-1] / lengths[-2] == pytest.approx(24 / 6, rel=0.02)
    assert max(ends.values()) < float(top.attrib["width"])


@pytest.mark.parametrize(("most", "expected"), [(24, 5), (6, 1), (0.5, 0.1), (130, 50), (1.1, 0.2)])
def test_grid_lines_are_at_round_numbers(most: float, expected: float) -> None:
    assert chart.tick(most) == pytest.approx(expected)


def test_what_keeps_the_classic_from_running_is_said(tmp_path: Path) -> None:
    found = classic.Classic(tmp_path, tmp_path / "place").why_not()
    assert any("no checkout" in reason for reason in found)
    with pytest.raises(classic.ClassicCannotRun), classic.Classic(tmp_path, tmp_path / "place").ready(archives=()):
        pass
    assert not (tmp_path / "place").exists()


def test_any_host_s_path_is_fetched_from_the_archive_that_has_it() -> None:
    archives = ("http://one.example/debian", "http://two.example/debian-security")
    assert proxy.upstream("/mirror.example/debian/dists/x", archives) == "http://one.example/debian/dists/x"
    assert proxy.upstream("/other.example/debian-security/a", archives) == "http://two.example/debian-security/a"
    assert proxy.upstream("/other.example/else/a", archives) == "http://one.example/else/a"
    for bad in ("/", "/host", "/host/../x"):
        with pytest.raises(ValueError, match="no archive"):
            proxy.upstream(bad, archives)


class Counting(BaseHTTPRequestHandler):
    """An archive that counts."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.path.endswith("/file")
        self.send_response(200 if found else 404)
        self.send_header("Last-Modified", "Sat, 01 Jun 2013 00:00:00 GMT")
        self.end_headers()
        if found:
            self.wfile.write(b"0123456789")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A package cache over an archive; its address, and what the archive was asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked: list[str] = []
    archive = ThreadingHTTPServer(("127.0.0.1", 0), type("Archive", (Counting,), {"asked": asked}))
    (tmp_path / "cache").mkdir()
    handler = type("Bound", (proxy.Handler,), {
        "cache": proxy.Cache(tmp_path / "cache"), "archives": [f"http://127.0.0.1:{archive.server_port}/debian"]})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in (archive, server)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        for one in (archive, server):
            one.shutdown()
            one.server_close()


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_the_package_cache_fetches_each_file_once(cache: tuple[str, list[str]]) -> None:
    address, asked = cache
    for host in ("one.example", "two.example"):
        assert fetch(f"{address}/{host}/debian/file") == (200, b"0123456789")
        assert fetch(f"{address}/{host}/debian/missing") == (404, b"")
    assert asked == ["/debian/file", "/debian/missing"]
    assert fetch(f"{address}/x/debian/file", Range="bytes=4-") == (206, b"456789")
    assert fetch(f"{address}/x/debian/file", **{"If-Modified-Since": "Sat, 01 Jun 2013 00:00:00 GMT"}) == (304, b"")
    assert len(asked) == 2


def test_a_case_of_one_target_names_no_other() -> None:
    assert Case(name="x", title="x", targets=(("trixie", "i386"),)).suites == ["trixie"]
