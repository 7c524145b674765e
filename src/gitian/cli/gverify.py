"""``gverify``: options into a verification, a verdict onto standard output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.classic import ClassicCommand, Whole
from gitian.cli.common import CONTEXT, json_text

if TYPE_CHECKING:
    from gitian.attest.inspection import Inspector as Attestations
    from gitian.host.workspace import Workspace
    from gitian.sigs.tree import SigsTree
    from gitian.sigs.verdict import SignerOutcome, Verdict
    from gitian.sigs.verify import Inspector, Request

_BOLD, _NORMAL = "\x1b[1m", "\x1b[0m"


@click.command("gverify", cls=ClassicCommand, context_settings=CONTEXT)
@click.argument("descriptors", metavar="DESCRIPTOR", nargs=-1, type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="Show what GnuPG says, and the files that differ.")
@click.option("-m", "--markup/--no-markup", default=True, help="Bold outcomes by ANSI escape codes [default: yes].")
@click.option("-r", "--release", metavar="REL", default="current", show_default=True, help="The release's name.")
@click.option("-d", "--destination", metavar="DIR", help="The directory that holds all releases [default: sigs/NAME].")
@click.option("-c", "--compare-to", metavar="SIGNER", help="Compare with SIGNER's result instead of the largest group "
              "of valid signers that agree.")
@click.option("-p", "--verify-program", "program", metavar="PROG",
              help="Check signatures by 'PROG --quiet --batch --verify SIGNATURE ASSERTION'.")
@click.option("--keyring", "keyrings", metavar="FILE|DIR", multiple=True, type=click.Path(path_type=Path),
              help="Public keys, armoured or binary. May be given more than once.")
@click.option("--attest-key", "attest_keys", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
              help="Ed25519 public keys (OpenSSH, allowed_signers, minisign) that may sign attestations. May be given "
              "more than once.")
@click.option("--outputs", metavar="DIR", type=click.Path(path_type=Path), help="Also check that the files in DIR are "
              "those that the signers assert.")
@click.option("--only-keyring", is_flag=True, help="Use only the keys of --keyring: neither key folders beside the "
              "signatures nor the GnuPG home.")
@click.option("--require", metavar="N", type=Whole(1, 10000), default=1, show_default=True,
              help="So many distinct keys must agree.")
@click.option("--policy", "policy_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Weights of keys, and how much those who agree must weigh.")
@click.option("--git-rev", "revision", metavar="REV", help="Verify what a revision of the git repository around DIR "
              "holds (a branch, a tag, FETCH_HEAD), without checking it out.")
@click.option("--explain", "explained", is_flag=True, help="Say why those who differ do: other inputs, environment or "
              "caches, an earlier stage, or a build that is not deterministic.")
@click.option("--all", "every", is_flag=True, help="Verify every release and package below DIR, or of --release, or of "
              "DESCRIPTOR (which is optional then), and print a table.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Also write a page that shows who signed "
              "what, and what differs.")
@click.option("--rbvf", metavar="FILE", type=click.Path(path_type=Path), help="Also write the results in the "
              "reproducible builds verification format, for 'gitian collect'; compressed when FILE ends in .gz. The "
              "initial build is that of --compare-to, or the files of --outputs.")
@click.option("--rbvf-sign", metavar="SIGNER", help="Sign that file too: FILE.sig.")
@click.option("--rbvf-origin", metavar="NAME", help="What that file calls the origin of the binaries [default: the "
              "package's name].")
@click.option("--rbvf-uri", metavar="URI", help="Where that file says the binaries are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--no-cache", is_flag=True, help="Check everything anew, and remember nothing.")
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptors: tuple[Path, ...], verbose: bool, markup: bool, release: str, destination: str | None,
            compare_to: str | None, program: str | None, keyrings: tuple[Path, ...], attest_keys: tuple[Path, ...],
            outputs: Path | None, only_keyring: bool, require: int, policy_file: Path | None, revision: str | None,
            explained: bool, every: bool, html: Path | None, rbvf: Path | None, rbvf_sign: str | None,
            rbvf_origin: str | None, rbvf_uri: str | None, as_json: bool, no_cache: bool,
            directory: Path | None) -> int:
    """Check who signed a release of DESCRIPTOR's package, and whether they agree.

    \b
    Exit status: 0 all agree; 1 somebody disagrees, or a signature does not count;
    2 bad usage; 13 too few agree (--require, --policy); 14 nothing to verify.
    """
    from gitian.attest import ed25519
    from gitian.attest.inspection import Inspector
    from gitian.errors import UsageError
    from gitian.formats.descriptor import Identity
    from gitian.host.workspace import Workspace
    from gitian.sigs import verify

    check_release(release)
    if compare_to is not None:
        verify.check_compare_to(compare_to)
    inspector = Inspector(ed25519.given(attest_keys), folders=not only_keyring, remember=not every)
    if every:
        from gitian.cli import gverify_all

        if compare_to is not None:
            raise UsageError("--compare-to is about the signers of one release, and --all verifies many.",
                             hint="Leave out one of them.")
        if outputs is not None or rbvf is not None:
            raise UsageError("--outputs and --rbvf are about one release, and --all verifies many.",
                             hint="Leave out --all.")
        context = click.get_current_context()
        one = context.get_parameter_source("release") is not click.core.ParameterSource.DEFAULT
        package = Identity.read(descriptors[0]).name if descriptors else None
        sigs = Workspace.locate(directory, os.environ).sigs
        place = Path(destination) if destination is not None else sigs / package if package is not None else sigs
        wanted = gverify_all.Wanted(release=release if one else None, name=package, html=html, as_json=as_json,
                                    verbose=verbose, markup=markup, explained=explained)
        with tree_of(place, revision) as where, \
                prepare(where, keyrings=keyrings, only_keyring=only_keyring, require=require, policy_file=policy_file,
                        compare_to=None, program=program, words=False, use_cache=not no_cache,
                        inspector=inspector) as request:
            return gverify_all.run(request, wanted)
    if not descriptors:
        raise UsageError("Which descriptor? None was given.",
                         hint="Try: gverify -r RELEASE DESCRIPTOR, or: gverify --all -d DIR")
    wanted_results = None
    if rbvf is not None:
        from gitian.cli import verdict_rbvf

        wanted_results = verdict_rbvf.Wanted(path=rbvf, signer=rbvf_sign, origin=rbvf_origin, uri=rbvf_uri,
                                             outputs=outputs)
        verdict_rbvf.check(wanted_results)
    elif rbvf_sign or rbvf_origin or rbvf_uri:
        raise UsageError("There is no file of results to sign or to fill in.", hint="Name it with --rbvf FILE.")
    name = Identity.read(descriptors[0]).name
    shown = destination or str(Workspace.locate(directory, os.environ).sigs / name)
    with tree_of(Path(shown), revision) as where, \
            prepare(where, keyrings=keyrings, only_keyring=only_keyring, require=require, policy_file=policy_file,
                    compare_to=compare_to, program=program, words=verbose, use_cache=not no_cache,
                    inspector=inspector) as request:
        verdict = verify.verify_release(request, release, name)
        verdict = _with_files(verdict, inspector, Workspace.locate(directory, os.environ), outputs)
        explanation = None
        if explained:
            from gitian.cli import verdict_explain
            from gitian.sigs import explain

            # In a workspace an earlier stage is a package of its own, beside this one.
            beside = Workspace.locate(directory, os.environ).sigs if destination is None and revision is None else None
            explanation = explain.explain(verdict, verdict_explain.places(where, beside))
        if html is not None:
            from gitian.cli import gverify_all

            gverify_all.write_page(html, request, verify.Pair(release=release, name=name), verdict, explanation)
        if wanted_results is not None:
            verdict_rbvf.write(wanted_results, verdict, inspector.attested)
    if as_json:
        document = as_document(verdict)
        if explanation is not None:
            document["explanation"] = explain.document(explanation)
        click.echo(json_text(document))
    else:
        render(verdict, shown.rstrip("/") or "/", markup=markup, verbose=verbose)
        if explanation is not None:
            verdict_explain.render(explanation)
    return verdict.exit_code


def _with_files(verdict: Verdict, inspector: Attestations, workspace: Workspace, outputs: Path | None) -> Verdict:
    """The verdict, with what is wrong about files on this machine: our own build, and --outputs."""
    from gitian.attest import files
    from gitian.sigs.verdict import with_problems

    problems = list(files.against_own_build(workspace, verdict.name, inspector.attested.values()))
    if outputs is not None:
        problems += files.against_verdict(outputs, verdict)
    return with_problems(verdict, problems)


@contextlib.contextmanager
def tree_of(place: Path, revision: str | None) -> Iterator[SigsTree]:
    """The tree to verify: a directory, or what it is in a revision of its git repository. Raises UsageError."""
    if revision is None:
        from gitian.sigs.tree import DirectoryTree

        yield DirectoryTree(place)
        return
    from gitian.sigsrepo.revision import opened

    with opened(place, revision) as tree:
        yield tree


def check_release(release: str) -> None:
    """A release is one directory's name. Raises UsageError."""
    from gitian import names
    from gitian.errors import UsageError

    try:
        names.check_directory_name(release)
    except ValueError as error:
        raise UsageError(f"The release {error}.") from error


@contextlib.contextmanager
def prepare(where: SigsTree, *, keyrings: tuple[Path, ...], only_keyring: bool, require: int,
            policy_file: Path | None, compare_to: str | None, program: str | None, words: bool,
            use_cache: bool, inspector: Inspector | None = None) -> Iterator[Request]:
    """The request that the options make: keys gathered, policy read, cache opened and closed again."""
    from gitian.sigs import cache, keys, policy, verify
    from gitian.sigs import program as programs

    chosen = policy.Policy(require=require) if policy_file is None else policy.read(policy_file, require=require)
    keyring = keys.gather(keys.default_sources(keyrings, only=only_keyring), where)
    known = cache.Cache(cache.directory() if use_cache else None)
    try:
        yield verify.Request(
            tree=where, keyring=keyring, policy=chosen, compare_to=compare_to, words=words, cache=known,
            inspector=inspector, program=None if program is None else programs.words(program, "--verify-program"))
    finally:
        known.close()


def render(verdict: Verdict, shown: str, *, markup: bool, verbose: bool) -> None:
    """Print a verdict: for each signer one line as the classic prints it, then what else is known."""
    from gitian.host.progress import plain

    bold, normal = (_BOLD, _NORMAL) if markup else ("", "")
    for signer in verdict.signers:
        path = f"{shown}/{signer.path}"
        if signer.outcome.value == "MISSING RESULT":
            click.echo(plain(f"missing result at {path}"))
            continue
        if signer.outcome.value == "MISSING SIGNATURE":
            click.echo(plain(f"missing signature at {path}.sig"))
            continue
        if verbose and signer.text:
            click.echo(plain(signer.text, lines=True), nl=not signer.text.endswith("\n"))
        # The classic marks up whether or not a terminal reads it; scripts that mind say --no-markup.
        click.echo(f"{bold}{plain(signer.signer)}: {signer.outcome.value}{normal}", color=markup)
        for line in _about(signer):
            click.echo("  " + plain(line))
        click.echo()
        if verbose:
            for difference in signer.differences:
                if difference.reference is not None:
                    click.echo(plain(f"- {difference.reference}  {difference.path}"))
                if difference.own is not None:
                    click.echo(plain(f"+ {difference.own}  {difference.path}"))
            if signer.differences:
                click.echo()
    click.echo(plain(conclusion(verdict)))


def _about(signer: SignerOutcome) -> Iterator[str]:
    from gitian.sigs.judging import date

    if signer.fingerprint:
        user = f' "{signer.user_id}"' if signer.user_id else ""
        made = f", signed {date(signer.made)}" if signer.made else ""
        yield f"key {signer.fingerprint}{user}{made}"
    if signer.detail:
        yield signer.detail
    for remark in signer.remarks:
        yield f"note: {remark}"


def conclusion(verdict: Verdict) -> str:
    """The verdict in one line."""
    count = f"{verdict.agreeing} {'key agrees' if verdict.agreeing == 1 else 'keys agree'}"
    what = f"{verdict.name} {verdict.release}: {count}"
    return f"{what}; {'; '.join(verdict.reasons)}" if verdict.reasons else what


def as_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON has it; docs/reference/gverify.md describes it."""
    return {
        "release": verdict.release, "name": verdict.name, "exit_code": verdict.exit_code,
        "decision": verdict.decision.name.lower(), "reasons": list(verdict.reasons),
        "reference": verdict.reference, "compared_to": verdict.compared_to, "agreeing": verdict.agreeing,
        "weight": verdict.weight,
        "groups": [{"number": group.number, "build": group.build, "signers": list(group.signers),
                    "keys": list(group.keys), "weight": group.weight} for group in verdict.groups],
        "signers": [{"signer": signer.signer, "path": signer.path, "outcome": signer.outcome.value,
                     "detail": signer.detail, "fingerprint": signer.fingerprint, "user_id": signer.user_id,
                     "made": signer.made, "keys": list(signer.keys), "remarks": list(signer.remarks),
                     "group": signer.group,
                     "differences": [{"path": difference.path, "reference": difference.reference,
                                      "own": difference.own} for difference in signer.differences]}
                    for signer in verdict.signers],
    }
