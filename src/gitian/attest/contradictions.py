"""Do statements and an assertion tell of the same build? Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from gitian.errors import FormatError
from gitian.formats import provenance
from gitian.formats.assertion import Assertion
from gitian.formats.manifest import Manifest
from gitian.formats.provenance import Provenance


def contradictions(assertion: Assertion, statements: Sequence[Provenance]) -> tuple[str, ...]:
    """Everything that the statements say otherwise than the assertion, each as the end of a sentence.

    Everything that the assertion says must be in the statements too: each environment, each input, each output.
    """
    found: list[str] = []
    environments = dict(assertion.base_manifests or ())
    labels = [statement.label for statement in statements]
    found += [f"it has no statement about {label}" for label in environments if label not in labels]
    found += [f"it has {labels.count(label)} statements about {label}" for label in dict.fromkeys(labels)
              if labels.count(label) > 1]
    report = _report_sha256(assertion)
    for statement in statements:
        found += [f"the statement about {statement.label} {words}"
                  for words in _one(assertion, statement, environments, report)]
    attested = {path for statement in statements for path, _ in statement.subjects}
    found += [f"no statement names the output '{entry.path}'"
              for entry in Manifest.parse(assertion.out_manifest).entries if entry.path not in attested]
    if len({(statement.invocation, statement.started, statement.finished) for statement in statements}) > 1:
        found.append("its statements are not of one build")
    return tuple(found)


def _report_sha256(assertion: Assertion) -> str | None:
    """The hash of the report that the assertion was made from: an assertion is that report and a few more keys."""
    try:
        return hashlib.sha256(assertion.report.to_yaml().encode()).hexdigest()
    except FormatError:
        return None


def _one(assertion: Assertion, statement: Provenance, environments: Mapping[str, str],
         report: str | None) -> Iterator[str]:
    if statement.package != assertion.name:
        yield f"is of '{statement.package}'"
    if statement.label not in environments:
        yield "is of a target that was not asserted"
    else:
        wanted = Manifest.parse(environments[statement.label]).by_path()
        yield from _differences("package", wanted, statement.packages())
    if report is not None and statement.report != report:
        yield f"names another report: {statement.report}"
    outputs = Manifest.parse(assertion.out_manifest).by_path()
    for path, digest in statement.subjects:
        if outputs.get(path) != digest:
            yield f"names the output '{path}' with {digest}; {_asserted(outputs.get(path))}"
    inputs = Manifest.parse(assertion.in_manifest)
    files = {material.name: material.digest for material in statement.materials
             if material.role in (provenance.DESCRIPTOR, provenance.FILE)}
    yield from _differences("input", inputs.by_path(), files)
    remotes = {material.name: material.digest for material in statement.materials
               if material.role == provenance.REMOTE}
    yield from _differences("remote", {remote.dir: remote.commit for remote in inputs.remotes}, remotes)
    for role in (provenance.DESCRIPTOR, provenance.BASE_IMAGE):
        if sum(material.role == role for material in statement.materials) != 1:
            yield f"does not name one {role}"
    names = [(material.role, material.name) for material in statement.materials]
    if len(set(names)) != len(names):
        yield "names a dependency twice"


def _differences(what: str, wanted: Mapping[str, str], named: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(wanted.keys() | named.keys()):
        if wanted.get(name) != named.get(name):
            told = f"with {named[name]}" if name in named else "not at all"
            yield f"names the {what} '{name}' {told}; {_asserted(wanted.get(name))}"


def _asserted(digest: str | None) -> str:
    return f"{digest} was asserted" if digest is not None else "it was not asserted"
