"""Results of rebuilds: the format and its schema, hostile files, and what several files together come to."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gitian.attest.collecting import Source, Standing, Subject, collect
from gitian.errors import FormatError
from gitian.formats import rbvf
from gitian.formats.rbvf import Artifact, Document, Environment, Result, Status, packed, unpacked

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "share" / "rbvf.schema.json").read_text())
A, B, C = "a" * 64, "b" * 64, "c" * 64
KEYS = {name: format(number, "040X") for number, name in enumerate(("alice", "bob", "carol", "dave"), 1)}

#: The draft's skeleton, filled with its own examples.
DRAFT = {"origin_uri": "https://example.invalid/debian", "origin_name": "debian", "results": [{
    "suite": "buster", "component": "main", "target": "x86_64-unknown-linux-gnu", "name": "tmux", "version": "2.8-3",
    "cpe": "cpe:2.3:a:tmux:tmux:*:*:*:*:*:*:*:*", "status": "unreproducible",
    "artifacts": {"buildlog_uri": "https://example.invalid/log", "diffoscope_html_uri": "https://example.invalid/html",
                  "diffoscope_json_uri": "", "binary_uri": ""}, "build_date": 1577836800, "build_duration": 12}]}


def result(who: str, files: dict[str, str | None] | None, initial: dict[str, str | None] | None = None,
           status: Status | None = None, **more: Any) -> Result:
    """A rebuild; its status is what the hashes say unless it is given."""
    files = files or {}
    artifacts = tuple(Artifact(path=path, sha256=files.get(path), origin=(initial or {}).get(path),
                               compared=initial is not None) for path in sorted({*files, *(initial or {})}))
    if status is None:
        status = Status.REPRODUCIBLE if files == initial else Status.UNREPRODUCIBLE
    return Result(suite="bookworm", component="main", target="x86_64-unknown-linux-gnu", architecture="amd64",
                  name="pkg", version="1.0", status=status, rebuilder=who, key=KEYS.get(who, ""),
                  environments=(Environment(name="bookworm-amd64", sha256=C, packages=2, artifacts=artifacts),)
                  if artifacts else (), **more)


def document(*results: Result) -> Document:
    return Document(origin_uri="https://example.invalid/", origin_name="pkg", results=results, initial="somebody's")


def standing(*documents: Document) -> Subject:
    found, = collect([Source(label=f"file {number}", document=one) for number, one in enumerate(documents)])
    return found


GOOD: dict[str, str | None] = {"pkg.tar.gz": A, "src.tar.gz": B}
EVIL: dict[str, str | None] = {"pkg.tar.gz": C, "src.tar.gz": B}


def test_what_is_written_is_what_the_schema_says_and_is_read_back() -> None:
    made = document(result("alice", GOOD, GOOD, build_date=1577836800, build_duration=12, detail="fine"),
                    result("bob", GOOD, EVIL), result("carol", {"pkg.tar.gz": A}, GOOD), result("dave", GOOD),
                    result("erin", None, status=Status.BUILDFAIL, uris=(("buildlog_uri", "https://example.invalid/"),)))
    jsonschema.validate(json.loads(made.to_json()), SCHEMA)
    assert Document.parse(made.to_json(), "f") == made
    assert Document.parse(packed(made.to_json()), "f") == made


def test_the_critics_have_what_they_asked_for() -> None:
    """Artifacts always, also of what is reproducible, below a record of their environment; a primary key."""
    first, second = json.loads(document(result("alice", GOOD, GOOD),
                                        result("erin", None, status=Status.TIMEOUT)).to_json())["results"]
    assert first["primary_key"] == f"pkg/bookworm/main/x86_64-unknown-linux-gnu/amd64/pkg/1.0/{KEYS['alice']}"
    assert first["artifacts"]["environments"] == [{
        "record": {"name": "bookworm-amd64", "sha256": C, "packages": 2},
        "files": [{"path": "pkg.tar.gz", "sha256": A, "origin_sha256": A},
                  {"path": "src.tar.gz", "sha256": B, "origin_sha256": B}]}]
    assert second["artifacts"]["environments"] == []
    assert set(second["artifacts"]) >= {"buildlog_uri", "diffoscope_html_uri", "diffoscope_json_uri", "binary_uri"}


def test_a_primary_key_cannot_be_made_to_run_together() -> None:
    one = document(result("alice", GOOD, GOOD))
    left = Result(suite="a/b", component="c", target="t", architecture="", name="n", version="1", status=Status.BLOCKED)
    right = Result(suite="a", component="b/c", target="t", architecture="", name="n", version="1",
                   status=Status.BLOCKED)
    assert one.primary_key(left) != one.primary_key(right)


def test_the_bare_draft_is_read() -> None:
    read = Document.parse(json.dumps(DRAFT).encode(), "f")
    assert not read.extended
    one, = read.results
    assert (one.suite, one.name, one.version, one.status) == ("buster", "tmux", "2.8-3", Status.UNREPRODUCIBLE)
    assert (one.build_date, one.build_duration) == (1577836800, 12)
    assert dict(one.uris) == {"buildlog_uri": "https://example.invalid/log",
                              "diffoscope_html_uri": "https://example.invalid/html"}


@pytest.mark.parametrize("status", ["reproducible", "unreproducible", "buildfail", "notfound", "timeout", "blocked",
                                    "notforus", "untested", "depwait"])
def test_every_status_of_the_draft_is_known(status: str) -> None:
    text = json.dumps(DRAFT).replace('"unreproducible"', f'"{status}"')
    assert Document.parse(text.encode(), "f").results[0].status.value == status
    assert status in SCHEMA["$defs"]["result"]["properties"]["status"]["enum"]


def changed(**fields: Any) -> bytes:
    value = json.loads(document(result("alice", GOOD, GOOD)).to_json())
    for key, new in fields.items():
        where: Any = value
        *parts, last = [int(part) if part.isdigit() else part for part in key.split("__")]
        for part in parts:
            where = where[part]
        where[last] = new
    return json.dumps(value).encode()


FILES = "results__0__artifacts__environments__0__files__0__"


@pytest.mark.parametrize("data", [
    b"", b"[]", b"{}", b"\x1f\x8b", b"\x1f\x8b" + b"\0" * 100, packed(b"{}")[:-4], packed(b"{}") + b"x",
    packed(b"{}") * 2, b"[" * 100_000, b'{"results": [], "results": []}', b" " * (rbvf.FILE_LIMIT + 1),
    changed(format="urn:other"), changed(origin_name="a/b"), changed(origin_name=""), changed(results={}),
    changed(results__0__status="fine"), changed(results__0__status=1), changed(results__0__build_date=-1),
    changed(results__0__build_date="today"), changed(results__0__build_date=10**400),
    changed(results__0__primary_key="other"), changed(results__0__rebuilder="alice"),
    changed(results__0__artifacts__environments={"a": 1}), changed(**{f"{FILES}sha256": "A" * 64}),
    changed(**{f"{FILES}sha256": 5}), changed(**{f"{FILES}path": "src.tar.gz"}),
    changed(results__0__artifacts__environments__0__record={}), changed(results__0__name="x" * 1000),
], ids=range(28))
def test_hostile_files_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(FormatError):
        Document.parse(data, "f")


def test_two_results_of_the_same_key_are_refused() -> None:
    with pytest.raises(FormatError, match="two results"):
        Document.parse(document(result("alice", GOOD), result("alice", EVIL)).to_json(), "f")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    data = b"".join(bomb.compress(b"\0" * 2**20) for _ in range(100)) + bomb.flush()
    assert len(data) < 2**20
    with pytest.raises(FormatError, match="unpacked it is larger"):
        unpacked(data, "f")


def test_the_same_results_make_the_same_bytes_and_gzip_reads_them() -> None:
    data = document(result("alice", GOOD, GOOD)).to_json()
    assert packed(data) == packed(data)
    assert gzip.decompress(packed(data)) == data


@pytest.mark.parametrize(("name", "expected"), [
    ("bitcoin-linux", "bitcoin-linux"), ("zcash_2", "zcash_"), ("a b", "a-b"), ("123", "unnamed")])
def test_an_origin_is_named_as_the_draft_allows(name: str, expected: str) -> None:
    assert rbvf.origin_name(name) == expected
    jsonschema.validate(expected, SCHEMA["properties"]["origin_name"])


# What several files come to.


def test_all_agree_with_the_initial_build() -> None:
    found = standing(document(result("alice", GOOD, GOOD)), document(result("bob", GOOD, GOOD)))
    assert found.standing is Standing.REPRODUCED
    assert found.rebuilders == 2
    assert [(build.rebuilders, build.initial) for build in found.builds] == [
        ((KEYS["alice"], KEYS["bob"]), True)]


def test_all_rebuilders_agree_and_the_initial_build_is_another_one() -> None:
    found = standing(*[document(result(who, GOOD, EVIL)) for who in ("alice", "bob", "carol")])
    assert found.standing is Standing.CONTRADICTED
    assert found.against == ("pkg.tar.gz",)
    assert found.rebuilders == 3


def test_a_file_that_only_the_initial_build_has_is_against_it_too() -> None:
    more = {**GOOD, "backdoor": C}
    found = standing(*[document(result(who, GOOD, more)) for who in ("alice", "bob")])
    assert (found.standing, found.against) == (Standing.CONTRADICTED, ("backdoor",))


def test_files_that_differ_for_other_reasons_do_not_hide_it() -> None:
    """Each rebuilder's log differs; the package is the same everywhere but in the initial build."""
    found = standing(*[document(result(who, {**GOOD, "log": digest}, {**EVIL, "log": "d" * 64}))
                       for who, digest in (("alice", A), ("bob", B), ("carol", C))])
    assert (found.standing, found.against) == (Standing.CONTRADICTED, ("pkg.tar.gz",))
    assert found.differing == ("log",)


def test_one_rebuilder_alone_proves_nothing_about_the_initial_build() -> None:
    assert standing(document(result("alice", GOOD, EVIL))).standing is Standing.UNREPRODUCIBLE
    twice = standing(document(result("alice", GOOD, EVIL)), document(result("alice", GOOD, EVIL)))
    assert (twice.standing, twice.rebuilders) == (Standing.UNREPRODUCIBLE, 1), "one key is one rebuilder"


def test_rebuilders_who_disagree() -> None:
    found = standing(document(result("alice", GOOD, GOOD)), document(result("bob", EVIL, GOOD)))
    assert (found.standing, found.differing) == (Standing.SPLIT, ("pkg.tar.gz",))
    assert not found.against


def test_an_initial_build_that_is_not_the_same_for_everybody() -> None:
    found = standing(document(result("alice", GOOD, GOOD)), document(result("bob", EVIL, EVIL)))
    assert found.standing is Standing.DISPUTED
    assert "pkg.tar.gz" in found.problems[0]


def test_hashes_count_and_words_do_not() -> None:
    lie = result("alice", EVIL, GOOD, status=Status.REPRODUCIBLE)
    found = standing(document(lie), document(result("bob", GOOD, GOOD)))
    assert found.standing is Standing.DISPUTED
    assert "say otherwise" in found.problems[0]
    # Also when all of them lie about what their hashes show, it is the hashes that raise the alarm.
    lies = [document(result(who, GOOD, EVIL, status=Status.REPRODUCIBLE)) for who in ("alice", "bob")]
    assert standing(*lies).standing is Standing.CONTRADICTED


def test_somebody_who_says_two_things() -> None:
    found = standing(document(result("alice", GOOD, GOOD)), document(result("alice", EVIL, GOOD)))
    assert found.standing is Standing.DISPUTED
    assert "two different things" in found.problems[-1]


def test_without_an_initial_build_agreement_is_what_counts() -> None:
    assert standing(document(result("alice", GOOD)), document(result("bob", GOOD))).standing is Standing.AGREED
    assert standing(document(result("alice", GOOD)), document(result("bob", EVIL))).standing is Standing.SPLIT


@pytest.mark.parametrize(("status", "expected"), [
    (Status.BUILDFAIL, Standing.FAILED), (Status.TIMEOUT, Standing.FAILED), (Status.NOTFOUND, Standing.FAILED),
    (Status.DEPWAIT, Standing.FAILED), (Status.UNTESTED, Standing.UNTESTED), (Status.BLOCKED, Standing.UNTESTED),
    (Status.NOTFORUS, Standing.UNTESTED)])
def test_what_nobody_has_built(status: Status, expected: Standing) -> None:
    found = standing(document(result("alice", None, status=status)))
    assert (found.standing, found.rebuilders, len(found.others)) == (expected, 0, 1)


def draft(status: str) -> Document:
    return Document.parse(json.dumps(DRAFT).replace('"unreproducible"', f'"{status}"').encode(), "f")


def test_bare_drafts_are_counted_by_file() -> None:
    assert standing(draft("reproducible"), draft("reproducible")).standing is Standing.REPRODUCED
    assert standing(draft("reproducible"), draft("reproducible")).rebuilders == 2
    assert standing(draft("reproducible"), draft("unreproducible")).standing is Standing.SPLIT
    # Without hashes nobody can tell whether the two built the same, so there is no alarm.
    assert standing(draft("unreproducible"), draft("unreproducible")).standing is Standing.UNREPRODUCIBLE


def test_subjects_are_kept_apart() -> None:
    other = Result(suite="bookworm", component="main", target="i686-unknown-linux-gnu", architecture="i386",
                   name="pkg", version="1.0", status=Status.UNTESTED)
    found = collect([Source(label="f", document=document(result("alice", GOOD, GOOD), other))])
    assert {one.architecture: one.standing for one in found} == {"amd64": Standing.REPRODUCED,
                                                                 "i386": Standing.UNTESTED}
