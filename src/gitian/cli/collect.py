"""``gitian collect``: files of several rebuilders, read, their signatures checked, put side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.common import CONTEXT

if TYPE_CHECKING:
    from gitian.attest.collecting import Build, Source, Subject
    from gitian.sigs.verdict import SignatureState

#: So many files or problems of one subject are named; the JSON document has all.
_NAMED = 5


@click.command("collect", context_settings=CONTEXT)
@click.argument("files", metavar="FILE...", nargs=-1, required=True,
                type=click.Path(path_type=Path, dir_okay=False))
@click.option("--require", metavar="N", type=click.IntRange(1, 10000), default=1, show_default=True,
              help="So many rebuilders must have built and compared everything.")
@click.option("--signed", is_flag=True, help="Refuse files without a good signature beside them (FILE.sig).")
@click.option("--keyring", "keyrings", metavar="FILE|DIR", multiple=True, type=click.Path(path_type=Path),
              help="Public keys of rebuilders. May be given more than once.")
@click.option("--only-keyring", is_flag=True, help="Use only the keys of --keyring, not the GnuPG home.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(files: tuple[Path, ...], require: int, signed: bool, keyrings: tuple[Path, ...], only_keyring: bool,
            as_json: bool) -> int:
    """Put several rebuilders' results side by side. Each FILE is one that gverify --rbvf wrote, or the bare draft's.

    \b
    Exit status: 0 everything was rebuilt and is the same; 1 something is not the same, or a signature is bad;
    13 something has too few rebuilders (--require); 14 nothing was rebuilt at all;
    18 all rebuilders of something agree with each other, and not with the initial build.
    """
    from gitian.attest.collecting import Standing, collect
    from gitian.errors import InitialBuildError

    sources, states, refused = _read(files, keyrings, only=only_keyring, signed=signed)
    subjects = collect([source for source in sources if source.label not in refused])
    status = _status(subjects, require, bool(refused))
    if as_json:
        click.echo(json.dumps(_document(sources, states, refused, subjects, status), indent=2))
    else:
        for line in _lines(sources, states, refused, subjects, require):
            click.echo(line)
    tampered = [subject for subject in subjects if subject.standing is Standing.CONTRADICTED]
    if tampered:
        raise InitialBuildError(_alarm(tampered), hint="Do not use the initial build, and do not publish it. Compare "
                                "it with a rebuild ('diffoscope'), and look at the machine that made it.")
    return status


def _read(files: Sequence[Path], keyrings: tuple[Path, ...], *, only: bool,
          signed: bool) -> tuple[list[Source], dict[str, SignatureState | None], dict[str, str]]:
    """All files; what each one's signature came to, None for those without; and why some are refused.

    One rebuilder's damaged file does not keep us from the others. Raises InputError: a file that cannot be read at all.
    """
    from gitian.attest.collecting import Source
    from gitian.errors import FormatError, UsageError
    from gitian.formats.rbvf import Document
    from gitian.sigs import judging, keys
    from gitian.sigs.verdict import Outcome

    labels = [str(path) for path in files]
    if len(set(labels)) != len(labels):
        raise UsageError("A file was given twice.", hint="Name each rebuilder's file once.")
    contents = {label: _bytes(path) for label, path in zip(labels, files, strict=True)}
    proofs = {label: proof for label, path in zip(labels, files, strict=True) if (proof := _proof(path)) is not None}
    states: dict[str, SignatureState | None] = dict.fromkeys(labels)
    if proofs:
        keyring = keys.gather(keys.default_sources(keyrings, only=only))
        order = list(proofs)
        with judging.Court(keyring) as court:
            found = court.judge([judging.Case(name=number, proof=proofs[label], content=contents[label])
                                 for number, label in enumerate(order)])
        states.update({label: found[number] for number, label in enumerate(order)})
    sources = []
    refused = {label: why for label, state in states.items() if (why := _refused(state, signed=signed))}
    for label in labels:
        state = states[label]
        document = Document(origin_uri="", origin_name="", results=())
        if label not in refused:
            try:
                document = Document.parse(contents[label], label)
            except FormatError as error:
                refused[label] = str(error).rstrip(".")
        key = state.keys[0] if state is not None and state.outcome is Outcome.OK and state.keys else ""
        sources.append(Source(label=label, document=document, key=key))
    return sources, states, refused


def _bytes(path: Path, *, limit: int | None = None) -> bytes:
    import os
    import stat

    from gitian.errors import FormatError, InputError
    from gitian.formats.rbvf import FILE_LIMIT

    most = FILE_LIMIT if limit is None else limit
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"'{path}' is not a regular file.")
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from error
    if len(data) > most:
        raise FormatError(f"'{path}' is larger than {most >> 10} KiB.")
    return data


def _proof(path: Path) -> bytes | None:
    from gitian.sigs.packets import SIGNATURE_LIMIT

    for suffix in (".sig", ".asc"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            return _bytes(beside, limit=SIGNATURE_LIMIT)
    return None


def _refused(state: SignatureState | None, *, signed: bool) -> str:
    """Why a file is not taken into account; '' when it is. An unknown key says nothing for or against."""
    from gitian.sigs.verdict import Outcome

    if state is None:
        return "it is not signed" if signed else ""
    if state.outcome is Outcome.OK or (state.outcome is Outcome.NO_KEY and not signed):
        return ""
    return f"{state.outcome.value}: {state.detail}" if state.detail else state.outcome.value


def _status(subjects: Sequence[Subject], require: int, refused: bool) -> int:
    from gitian.attest.collecting import GOOD, WRONG, Standing

    standings = {subject.standing for subject in subjects}
    if Standing.CONTRADICTED in standings:
        return 18
    if refused or standings & WRONG:
        return 1
    if not standings & GOOD:
        return 14
    return 13 if any(subject.rebuilders < require for subject in subjects) else 0


def _alarm(tampered: Sequence[Subject]) -> str:
    lines = []
    for subject in tampered:
        files = ", ".join(f"'{path}'" for path in subject.against[:_NAMED])
        more = f" and {len(subject.against) - _NAMED} more" if len(subject.against) > _NAMED else ""
        lines.append(f"all {subject.rebuilders} rebuilders of {_name(subject)} built the same {files}{more}, and the "
                     "initial build is ANOTHER one")
    return "THE INITIAL BUILD IS NOT WHAT ITS SOURCE MAKES: " + ";\n  ".join(lines) + "."


def _name(subject: Subject) -> str:
    where = "/".join(part for part in (subject.suite, subject.architecture or subject.target) if part)
    return f"{subject.name} {subject.version} ({subject.origin}{', ' + where if where else ''})"


def _lines(sources: Sequence[Source], states: dict[str, SignatureState | None], refused: dict[str, str],
           subjects: Sequence[Subject], require: int) -> Iterator[str]:
    from gitian.attest.collecting import Standing
    from gitian.host.progress import plain

    for source in sources:
        state = states[source.label]
        if source.label in refused:
            yield plain(f"{source.label}: REFUSED: {refused[source.label]}")
            continue
        said = "not signed" if state is None else f"signed by {source.key}" if source.key else \
            f"signed by an unknown key: {state.fingerprint}"
        yield plain(f"{source.label}: {len(source.document.results)} results, {said}")
    yield ""
    for subject in sorted(subjects, key=lambda one: list(Standing).index(one.standing)):
        yield plain(f"{_name(subject)}: {subject.standing.value}")
        for line in _about(subject, require):
            yield plain(f"  {line}")
    counts: dict[str, int] = {}
    for subject in subjects:
        counts[subject.standing.value] = counts.get(subject.standing.value, 0) + 1
    yield ""
    yield ", ".join(f"{count} {word}" for word, count in counts.items()) or "no results"


def _about(subject: Subject, require: int) -> Iterator[str]:
    from gitian.attest.collecting import Standing

    if subject.standing is Standing.CONTRADICTED:
        yield f"!!! all {subject.rebuilders} rebuilders agree with each other, and NOT with the initial build:"
        yield from (f"!!!   {path}" for path in subject.against[:_NAMED])
    for build in subject.builds:
        yield f"{len(build.rebuilders)} {_what(build, len(subject.builds))}: {', '.join(build.rebuilders)}"
    if subject.differing and subject.standing is not Standing.CONTRADICTED:
        more = f" and {len(subject.differing) - _NAMED} more" if len(subject.differing) > _NAMED else ""
        yield f"not the same everywhere: {', '.join(subject.differing[:_NAMED])}{more}"
    yield from subject.problems[:_NAMED]
    for one in subject.others[:_NAMED]:
        yield f"{one.result.status.value}: {one.rebuilder}" + (f" ({one.result.detail})" if one.result.detail else "")
    if len(subject.others) > _NAMED:
        yield f"and {len(subject.others) - _NAMED} more who did not build it"
    if subject.rebuilders < require:
        yield f"{subject.rebuilders} of {require} required rebuilders have built it"


def _what(build: Build, groups: int) -> str:
    if build.initial:
        return "built the same as the initial build"
    return "built something else than the initial build" if groups == 1 or not build.files else \
        "built the same as each other" if len(build.rebuilders) > 1 else "built something that nobody else has built"


def _document(sources: Sequence[Source], states: dict[str, SignatureState | None], refused: dict[str, str],
              subjects: Sequence[Subject], status: int) -> dict[str, Any]:
    return {
        "exit_code": status,
        "files": [{"file": source.label, "origin_name": source.document.origin_name,
                   "origin_uri": source.document.origin_uri, "initial": source.document.initial,
                   "results": len(source.document.results), "key": source.key or None,
                   "signature": None if (state := states[source.label]) is None else state.outcome.value,
                   "refused": refused.get(source.label)} for source in sources],
        "subjects": [{
            "origin": subject.origin, "suite": subject.suite, "component": subject.component,
            "target": subject.target, "architecture": subject.architecture, "name": subject.name,
            "version": subject.version, "standing": subject.standing.name.lower(), "rebuilders": subject.rebuilders,
            "builds": [{"rebuilders": list(build.rebuilders), "initial": build.initial,
                        "files": [{"path": path, "sha256": digest} for path, digest in build.files]}
                       for build in subject.builds],
            "others": [{"rebuilder": one.rebuilder, "file": one.source, "status": one.result.status.value,
                        "detail": one.result.detail} for one in subject.others],
            "against_initial": list(subject.against), "differing": list(subject.differing),
            "problems": list(subject.problems)} for subject in subjects],
    }
