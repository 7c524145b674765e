"""Attestations of real builds in real guests: the same but for the time, by every backend's own name, and signed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.signers import Signers

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "share" / "attestation.schema.json").read_text())
STATEMENT = "result/pkg-bookworm-amd64.intoto.json"
DESCRIPTOR = """\
---
name: "pkg"
distro: "debian"
suites:
- "bookworm"
architectures:
- "amd64"
packages: []
reference_datetime: "2013-06-01 00:00:00"
remotes:
- "url": "{url}"
  "dir": "src"
files:
- "note.txt"
script: |
  mkdir $OUTDIR/src
  cp note.txt $OUTDIR/
  cp src/hello $OUTDIR/src/
"""


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    made = Signers()
    made.make("alice")
    yield made
    made.close()


def run(workspace: Path, images: Path, signers: Signers, *words: str, status: int = 0) -> str:
    kept = {name: value for name, value in os.environ.items() if name in ("TMPDIR",) or name.endswith("_proxy")}
    done = subprocess.run([sys.executable, "-m", "gitian.cli.main", *words], cwd=workspace, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=800, check=False,
                          env={**kept, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                               "HOME": str(workspace), "USE_LXC": "1", "GITIAN_IMAGES": str(images),
                               "GNUPGHOME": str(signers.home), "LANG": "C.UTF-8"})
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def without_metadata(data: bytes) -> Any:
    document = json.loads(data)
    metadata = document["predicate"]["runDetails"].pop("metadata")
    assert set(metadata) == {"invocationId", "startedOn", "finishedOn"}
    return document


@pytest.mark.lxc
def test_a_build_is_attested_signed_and_held_against_everything(images: Path, tmp_path: Path,
                                                                signers: Signers) -> None:
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    from gitian.formats.manifest import Manifest
    from gitian.formats.report import Report

    source = tmp_path / "upstream"
    source.mkdir()
    (source / "hello").write_text("hello\n")
    for words in (["init", "-q"], ["add", "hello"], ["-c", "user.name=a", "-c", "user.email=a@example.invalid",
                                                     "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(source), *words], check=True)
    commit = subprocess.run(["git", "-C", str(source), "rev-parse", "HEAD"], check=True, capture_output=True,
                            text=True).stdout.strip()
    workspace = tmp_path / "workspace"
    (workspace / "inputs").mkdir(parents=True)
    (workspace / "inputs" / "note.txt").write_text("note\n")
    (workspace / "pkg.yml").write_text(DESCRIPTOR.format(url=source))
    build = ("gbuild", "-c", f"src={commit}", "pkg.yml")

    run(workspace, images, signers, *build)
    first = (workspace / STATEMENT).read_bytes()
    run(workspace, images, signers, *build)
    second = (workspace / STATEMENT).read_bytes()
    assert first != second
    assert without_metadata(first) == without_metadata(second)

    document = json.loads(second)
    jsonschema.validate(document, SCHEMA)
    Statement.copy_from_pb(json_format.ParseDict(document, statement_pb2.Statement())).validate()
    report = Report.read(workspace / "result" / "pkg-res.yml")
    outputs = Manifest.parse(report.out_manifest).by_path()
    assert {item["name"]: item["digest"]["sha256"] for item in document["subject"]} == outputs
    assert set(outputs) == {"note.txt", "src/hello"}
    dependencies = document["predicate"]["buildDefinition"]["resolvedDependencies"]
    environment = Manifest.parse(dict(report.base_manifests or ())["bookworm-amd64"]).by_path()
    assert {item["name"]: item["digest"]["sha256"] for item in dependencies
            if item["annotations"]["role"] == "package"} == environment
    assert all(item["uri"].startswith("pkg:deb/debian/") for item in dependencies
               if item["annotations"]["role"] == "package")
    assert {item["name"]: item["digest"] for item in dependencies if item["annotations"]["role"] == "remote"} == {
        "src": {"gitCommit": commit}}
    image = json.loads((images / "base-bookworm-amd64.json").read_bytes())
    assert [item["digest"]["sha256"] for item in dependencies if item["annotations"]["role"] == "base image"] == [
        image["tarball_sha256"]]
    assert document["predicate"]["runDetails"]["builder"]["id"].startswith("urn:gitian:builder:lxc:")
    assert str(source) not in second.decode(), "where things lie on this machine is nobody's business"

    run(workspace, images, signers, "gsign", "-s", "alice", "-r", "1.0", "--attest", "pkg.yml")
    verify = ("gverify", "--no-markup", "-r", "1.0", "pkg.yml")
    assert "attested: bookworm-amd64 (lxc, gitian" in run(workspace, images, signers, *verify)
    signed = workspace / "sigs" / "pkg" / "1.0" / "alice"
    for path in (workspace / "result" / "pkg-res.yml", workspace / STATEMENT, workspace / "build/out/src/hello",
                 signed / "pkg-build.assert", signed / "pkg-build.intoto.jsonl"):
        good = path.read_bytes()
        changed = bytearray(good)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        said = run(workspace, images, signers, *verify, status=1)
        assert path.name in said or "alice:" in said
        path.write_bytes(good)
    run(workspace, images, signers, *verify)


@pytest.mark.lxc
def test_a_build_that_fails_leaves_no_statement_of_an_earlier_one(images: Path, tmp_path: Path,
                                                                  signers: Signers) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / STATEMENT).write_text("of an earlier build")
    text = DESCRIPTOR[:DESCRIPTOR.index("remotes:")] + "remotes: []\nfiles: []\nscript: |\n  false\n"
    (tmp_path / "pkg.yml").write_text(text)
    run(tmp_path, images, signers, "gbuild", "pkg.yml", status=9)
    assert list((tmp_path / "result").iterdir()) == []
