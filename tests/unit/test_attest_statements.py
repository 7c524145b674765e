"""From plan, inputs and report to statements: both backends, several targets, the published schemas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema

from gitian.attest import statements
from gitian.attest.contradictions import contradictions
from gitian.attest.statements import Finished, Run
from gitian.formats.assertion import Assertion
from gitian.formats.descriptor import Descriptor
from gitian.formats.image_record import ImageRecord
from gitian.formats.report import Report
from gitian.inputs.files import InputFile
from gitian.inputs.git import InputRemote
from gitian.inputs.prepare import PreparedInputs, manifest_text
from gitian.plan import Options, make_plan

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "share" / "attestation.schema.json").read_text())
COMMIT = "c" * 40
DESCRIPTOR = b"""\
---
name: "pkg"
distro: "debian"
suites: ["bookworm"]
architectures: ["i386", "linux64"]
packages: []
remotes:
- url: "https://user:secret@example.invalid/src.git"
  dir: "src"
  commit: "v1.0"
files: ["patch one.diff"]
script: ""
"""
IMAGE = ImageRecord(
    distro="debian", suite="bookworm", architecture="amd64", mirror="", epoch=0, tarball_sha256="4" * 64,
    tarball_size=1, sources=(), indices=(), packages=(), made_by="",
    kvm={"kernel_sha256": "5" * 64, "initrd_sha256": "6" * 64})


def finished(backend: str, **options: Any) -> Finished:
    plan = make_plan(Descriptor.parse(DESCRIPTOR, "pkg.yml"), Options(num_make=4, memory=3000, **options))
    files = (InputFile(name="patch one.diff", path=Path("x"), sha256="3" * 64),)
    remotes = (InputRemote(dir="src", path=Path("y"), commit=COMMIT, author_date="2013-06-01 00:00:00"),)
    inputs = PreparedInputs(files=files, remotes=remotes, reference_datetime="2013-06-01 00:00:00",
                            manifest_text=manifest_text("pkg", plan.descriptor.sha256, files, remotes))
    report = Report(out_manifest=f"{'a' * 64}  both\n{'b' * 64}  pkg-i386.deb\n{'d' * 64}  src/pkg.tar.gz\n",
                    in_manifest=inputs.manifest_text,
                    base_manifests=(("bookworm-i386", f"{'1' * 64}  libc6_2.36-9+deb12u10_i386.deb\n"),
                                    ("bookworm-linux64", f"{'2' * 64}  dpkg_1%3a1.21_amd64.deb\n")))
    return Finished(plan=plan, inputs=inputs, report=report, report_sha256="f" * 64, backend=backend,
                    owners={"both": "bookworm-linux64", "pkg-i386.deb": "bookworm-i386", "src": "bookworm-linux64",
                            "src/pkg.tar.gz": "bookworm-linux64"},
                    images={"bookworm-i386": replace(IMAGE, architecture="i386", tarball_sha256="7" * 64),
                            "bookworm-linux64": IMAGE}, run=Run())


def documents(backend: str) -> list[Any]:
    return [json.loads(one.to_json()) for one in statements.statements(finished(backend))]


def test_each_target_has_its_own_outputs_environment_and_image() -> None:
    i386, linux64 = documents("lxc")
    assert [item["name"] for item in i386["subject"]] == ["pkg-i386.deb"]
    assert [item["name"] for item in linux64["subject"]] == ["both", "src/pkg.tar.gz"]

    def roles(document: Any) -> list[tuple[str, str, str]]:
        return [(item["annotations"]["role"], item["name"], next(iter(item["digest"].values())))
                for item in document["predicate"]["buildDefinition"]["resolvedDependencies"]]

    inputs = [("descriptor", "pkg-desc.yml", finished("lxc").plan.descriptor.sha256),
              ("file", "patch one.diff", "3" * 64), ("remote", "src", COMMIT)]
    assert roles(i386) == [*inputs, ("base image", "base-bookworm-i386.tar", "7" * 64),
                           ("package", "libc6_2.36-9+deb12u10_i386.deb", "1" * 64)]
    # linux64 is the descriptor's word for an amd64 guest.
    assert roles(linux64) == [*inputs, ("base image", "base-bookworm-amd64.tar", "4" * 64),
                              ("package", "dpkg_1%3a1.21_amd64.deb", "2" * 64)]


def test_under_kvm_the_kernel_is_a_dependency_too() -> None:
    _, linux64 = documents("kvm")
    found = {item["annotations"]["role"]: item for item in
             linux64["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert (found["kernel"]["name"], found["kernel"]["digest"]) == ("base-bookworm-amd64.vmlinuz", {"sha256": "5" * 64})
    assert (found["initrd"]["name"], found["initrd"]["digest"]) == ("base-bookworm-amd64.initrd", {"sha256": "6" * 64})
    assert linux64["predicate"]["runDetails"]["builder"]["id"].startswith("urn:gitian:builder:kvm:")


def test_statements_of_one_build_belong_together_and_fit_the_schemas() -> None:
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    for backend in ("lxc", "kvm"):
        made = documents(backend)
        assert len({one["predicate"]["runDetails"]["metadata"]["invocationId"] for one in made}) == 1
        for one in made:
            jsonschema.validate(one, SCHEMA)
            Statement.copy_from_pb(json_format.ParseDict(one, statement_pb2.Statement())).validate()
            json_format.ParseDict(one["predicate"], provenance_pb2.Provenance())


def test_that_the_network_was_cut_is_said_and_only_then() -> None:
    for one in statements.statements(finished("lxc", no_network=True)):
        document = json.loads(one.to_json())
        jsonschema.validate(document, SCHEMA)
        assert document["predicate"]["buildDefinition"]["externalParameters"]["network"] is False
    for document in documents("lxc"):
        assert "network" not in document["predicate"]["buildDefinition"]["externalParameters"]


def test_no_password_of_a_remote_is_written_down() -> None:
    for one in statements.statements(finished("lxc")):
        assert b"secret" not in one.to_json()
        assert f"git+https://example.invalid/src.git@{COMMIT}".encode() in one.to_json()


def test_statements_agree_with_an_assertion_of_the_same_report() -> None:
    import hashlib

    build = finished("lxc")
    build = replace(build, report_sha256=hashlib.sha256(build.report.to_yaml().encode()).hexdigest())
    made = Assertion.parse(Assertion(report=build.report, release="1.0", name="pkg").to_yaml().encode(), "a")
    assert contradictions(made, statements.statements(build)) == ()


def test_what_an_earlier_build_left_is_gone_before_the_next_begins(tmp_path: Path) -> None:
    build = finished("lxc")
    statements.write(build, tmp_path, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "pkg-bookworm-i386.intoto.json", "pkg-bookworm-linux64.intoto.json", "last-build"}
    assert statements.last_build(tmp_path) == build.run.invocation
    other = tmp_path / "pkg-other-bookworm-i386.intoto.json"
    other.write_text("of another package")
    assert statements.begin(build.plan, tmp_path, tmp_path) != build.run
    assert list(tmp_path.iterdir()) == [other]
    assert statements.last_build(tmp_path) == ""
