"""One descriptor, two backends, one report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import git_kit
from tests.integration.test_gbuild import HEAD, descriptor, gbuild, report_of

SCRIPT = """
hello > $OUTDIR/greeting
cp in.txt one/file $OUTDIR
(id; umask; locale; env | grep -v '^_=' | sort; hostname; pwd; ulimit -n -s -c) > $OUTDIR/around
ls -lA --time-style=+ one in.txt | sed '/^total/d' > $OUTDIR/inputs
date -d "$REFERENCE_DATETIME" > $OUTDIR/date
echo cached > $GBUILD_COMMON_CACHE/entry
mkdir $OUTDIR/deep; ln $OUTDIR/date $OUTDIR/deep/.hard; ln -s date $OUTDIR/soft
"""


@pytest.mark.lxc
@pytest.mark.kvm
def test_the_same_descriptor_gives_the_same_report_under_both(images: Path, tmp_path: Path) -> None:
    head = HEAD.replace('reference_datetime: "2013-06-01 00:00:00"\n', "").replace("packages: []", "packages: [hello]")
    reports = {}
    for backend, lxc in (("lxc", "1"), ("kvm", "")):
        workspace = tmp_path / backend
        (workspace / "inputs").mkdir(parents=True)
        (workspace / "inputs" / "in.txt").write_text("input\n")
        git_kit.make(workspace / "repos" / "one", {"file": "text", "sub/run": "#!/bin/sh\n"}, tag="v1")
        path = descriptor(workspace, SCRIPT, extra="enable_cache: true\n", head=head.replace(
            "files: []", 'files:\n- "in.txt"').replace(
            "remotes: []", 'remotes:\n- "url": "../../repos/one"\n  "dir": "one"'))
        gbuild(workspace, images, "-c", "one=v1", path.name,
               env={"USE_LXC": lxc, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")})
        around = (workspace / "build" / "out" / "around").read_text()
        assert "uid=1000(debian)" in around and (workspace / "build/out/greeting").read_text() == "Hello, world!\n"
        reports[backend] = report_of(workspace)
        # Where they differ, the difference is worth seeing.
        if len(reports) == 2:
            for name in ("around", "inputs", "date"):
                assert (workspace / "build" / "out" / name).read_text() == \
                    (tmp_path / "lxc" / "build" / "out" / name).read_text()
    assert b"hello_2.10-" in reports["lxc"] and b"git:" in reports["lxc"] and b"  entry" in reports["lxc"]
    assert reports["kvm"] == reports["lxc"]
