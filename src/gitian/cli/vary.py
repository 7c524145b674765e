"""``gitian vary``: what breaks a build's determinism."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gitian.cli.backends import GuestOptions, guest_options
from gitian.cli.common import CONTEXT, json_text
from gitian.cli.places import PlaceOptions, place_options

if TYPE_CHECKING:
    from gitian.build.exact import Wanted
    from gitian.host.workspace import Workspace
    from gitian.vary.outcome import Outcome


@click.command("vary", context_settings=CONTEXT)
@click.argument("descriptor", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--vary", "words", metavar="NAMES", multiple=True, help="What to vary: names and groups by commas, "
              "'-NAME' to leave one out, 'packages=REPORT|ASSERTION|FILE' [default: the usual ones].")
@click.option("--list", "listed", is_flag=True, help="List the variations and exit; with a DESCRIPTOR, also which "
              "of them do not work here, and why.")
@click.option("--repeat", metavar="N", type=click.IntRange(0, 1000), default=1, show_default=True,
              help="How often to build again as usual, to find what is random.")
@click.option("--budget", metavar="BUILDS|TIME", help="So many builds in all ('12'), so long ('30m', '2h'), or both "
              "('12,2h').")
@click.option("--target", metavar="SUITE-ARCH", help="Build this target only.")
@click.option("--between", "pair", metavar="A B", nargs=2, help="Vary nothing: name the package that makes two "
              "signers' outputs differ. A and B are reports, assertions or signers.")
@click.option("--release", metavar="REL", help="The release of those signers' assertions.")
@click.option("--destination", metavar="DIR", type=click.Path(path_type=Path), help="The directory that holds all "
              "releases [default: sigs/NAME].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page about all of it.")
@click.option("--diffoscope", "reports", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Where to keep the reports of diffoscope, if it is installed [default: var/vary/diffoscope].")
@click.option("--no-diffoscope", is_flag=True, help="Do not ask diffoscope.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@click.option("--allow-sudo", is_flag=True, help="Let the script use sudo, if the descriptor asks for it.")
@click.option("-j", "--num-make", metavar="N", type=click.IntRange(1, 4096), default=2, show_default=True,
              help="Number of processes for make, and of the guest's processors, when nothing is varied.")
@click.option("-m", "--memory", metavar="MIB", type=click.IntRange(64, 2**24), default=2000, show_default=True,
              help="Memory of the guest in MiB.")
@click.option("-c", "--commit", "commits", metavar="DIR=HASH,...", multiple=True,
              help="Commits or tags of remotes that have none in the descriptor.")
@click.option("-u", "--url", "urls", metavar="DIR=URL,...", multiple=True, help="Other URLs for remotes.")
@click.option("--skip-fetch", is_flag=True, help="Do not fetch remotes: what is in inputs/ must have the commit.")
@click.option("--no-layers", is_flag=True, help="Install the packages anew in the guest of each build.")
@click.option("--offline", is_flag=True, help="Start from the layer as it is; do not ask whether the archive has "
              "changed.")
@click.option("--no-network", is_flag=True, help="Run the script in guests without a network.")
@place_options
@guest_options
@click.option("-C", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="The workspace [default: $GITIAN_BASE, else the current directory].")
def command(descriptor: Path | None, words: tuple[str, ...], listed: bool, budget: str | None, html: Path | None,
            as_json: bool, directory: Path | None, guests: GuestOptions, quiet: bool,
            **more: Any) -> None:
    """Build DESCRIPTOR as usual, then in varied circumstances, and name what makes its outputs differ.

    \b
    Exit status: 0 every variation held, and nothing was random; 31 something differs, or nobody knows whether it does;
    2 a variation that was asked for by its name does not work here; those of gbuild when the usual build fails.
    """
    from gitian.cli import vary_text
    from gitian.errors import UsageError
    from gitian.host import progress
    from gitian.host.workspace import Workspace, give_to_caller, write_atomically
    from gitian.plan import Options, parse_assignments
    from gitian.vary import variations
    from gitian.vary.budget import Budget
    from gitian.vary.run import VaryRequest, prospects, vary

    pair = _pair(words, html, listed, more)
    names, peer = _packages(words)
    chosen = variations.choose(names)
    if descriptor is None:
        if not listed:
            raise UsageError("Which descriptor? None was given.", hint="Try: gitian vary DESCRIPTOR")
        for line in vary_text.listing(None, as_json=as_json):
            click.echo(line)
        return
    workspace = Workspace.locate(directory, os.environ)
    if html is not None:
        _check_page(html, workspace)  # better now than after all the builds
    progress.set_quiet(quiet)
    environment = guests.environment(os.environ)
    options = Options(
        commits=parse_assignments(more["commits"], "-c/--commit"), urls=parse_assignments(more["urls"], "-u/--url"),
        allow_sudo=more["allow_sudo"], num_make=more["num_make"], memory=more["memory"], quiet=quiet,
        skip_fetch=more["skip_fetch"], layers=not more["no_layers"], offline=more["offline"],
        no_network=more["no_network"], cache_read_only=True)
    limit = Budget.parse(budget) if budget is not None else None
    if listed:
        for line in vary_text.listing(prospects(VaryRequest(
                descriptor=descriptor, options=options, workspace=workspace, target=more["target"],
                backend=guests.backend(environment), chosen=variations.choose("all"))), as_json=as_json):
            click.echo(line)
        return
    if pair is not None:
        from gitian.cli.vary_between import BetweenOptions, between

        with workspace.lock():
            between(BetweenOptions(pair=pair, release=more["release"], destination=more["destination"],
                                   target=more["target"], budget=limit, places=more["places"], as_json=as_json),
                    descriptor=descriptor, options=options, workspace=workspace, environment=environment,
                    backend=guests.backend(environment))
        return
    with workspace.lock():
        wanted = _wanted(peer, descriptor, workspace, more["places"], environment, offline=options.offline)
        outcome = vary(VaryRequest(
            descriptor=descriptor, options=options, workspace=workspace, environment=environment, chosen=chosen,
            backend=guests.backend(environment), target=more["target"], repeats=more["repeat"], budget=limit,
            named=variations.named(names), asked=variations.asked(names), wanted=wanted,
            reports=None if more["no_diffoscope"] else more["reports"] or workspace.var / "vary" / "diffoscope"))
    text = json_text(vary_text.document(outcome))
    write_atomically(report := workspace.var / "vary" / "report.json", f"{text}\n".encode())
    give_to_caller(report, environment)
    if as_json:
        click.echo(text)
    else:
        for line in vary_text.lines(outcome):
            click.echo(line)
    if html is not None:
        from gitian.cli import vary_html

        write_atomically(html, vary_html.page(outcome).encode())
        give_to_caller(html, environment)
    _say_whether(outcome)


def _check_page(html: Path, workspace: Workspace) -> None:
    """Raises UsageError: a page cannot be written there, or would not stay there."""
    from gitian.errors import UsageError

    place = html.absolute().parent
    if not place.is_dir():
        raise UsageError(f"There is no directory for the page '{html}'.", hint="Make it first.")
    if place.resolve().is_relative_to((workspace.var / "vary").resolve()):
        raise UsageError(f"The page '{html}' would lie in '{workspace.var / 'vary'}', which each run empties.",
                         hint="Choose another place.")


def _pair(words: tuple[str, ...], html: Path | None, listed: bool, more: dict[str, Any]) -> tuple[str, str] | None:
    """What --between names. Raises UsageError for options that do not go together."""
    from gitian.errors import UsageError

    pair: tuple[str, str] | None = more["pair"]
    if pair is None and (more["release"] is not None or more["destination"] is not None):
        raise UsageError("--release and --destination say where signers' assertions are, and --between names none.")
    repeats = click.get_current_context().get_parameter_source("repeat") is not click.core.ParameterSource.DEFAULT
    for name, given in (("--vary", words), ("--html", html), ("--diffoscope", more["reports"]), ("--list", listed),
                        ("--repeat", repeats)):
        if pair is not None and given:
            raise UsageError(f"{name}: with --between nothing is varied but the packages.",
                             hint="Leave one of the two out.")
    return pair


def _packages(words: tuple[str, ...]) -> tuple[str, str | None]:
    """All words of --vary as one text, and the file of 'packages=FILE'. Raises UsageError."""
    from gitian.errors import UsageError

    peer, names = None, []
    for word in (word.strip() for text in words for word in text.split(",")):
        name, equals, value = word.partition("=")
        if equals:
            if name != "packages" or not value or peer is not None:
                raise UsageError(f"'--vary {word}': only the variation 'packages' takes a value, once.",
                                 hint="For example: --vary packages=result/other-res.yml")
            peer = value
        names.append(name)
    return ",".join(names), peer


def _wanted(peer: str | None, descriptor: Path, workspace: Workspace, places: PlaceOptions,
            environment: dict[str, str], *, offline: bool) -> Wanted | None:
    """The environment that 'packages=FILE' names; the inputs are not held to anything. Raises UsageError."""
    from gitian.build.exact import Wanted
    from gitian.cli.reference import Reference
    from gitian.errors import UsageError
    from gitian.formats.environment import EnvironmentFile, of_report

    if peer is None:
        if places.given:
            raise UsageError("--debs, --snapshot and --snapshot-time: there is no environment to be had.",
                             hint="Name one: --vary packages=REPORT.")
        return None
    if peer.endswith(".json"):
        origin, environments = peer, EnvironmentFile.read(Path(peer)).environments
    else:  # not 'wanted', which keeps a report that a rebuild is about to replace: nothing is replaced here
        origin, report = Reference(like=peer, environment=None, option="packages=").record(descriptor, workspace)
        environments = of_report(report, source=origin)
    return Wanted(origin=origin, environments=environments, places=places.places(environment, offline=offline))


def _say_whether(outcome: Outcome) -> None:
    """The end. Raises VariesError."""
    from gitian.errors import VariesError
    from gitian.host import progress
    from gitian.vary.outcome import State

    count = outcome.outputs
    if outcome.held:
        tried = sum(1 for one in outcome.variations if one.state is not State.NOT_TRIED)
        progress.say(f"Held: all {count} outputs stayed the same under {tried} variations.")
        return
    said = []
    if outcome.differing:
        said.append(f"{len(outcome.differing)} of {count} outputs differ")
    if outcome.random is not None and outcome.random.fails is not None:
        said.append("the build sometimes fails without any variation")
    if any(cause.fails is not None for cause in outcome.causes):
        said.append("the build fails in other circumstances")
    without = [one.name for one in outcome.variations if one.state is State.NO_EFFECT]
    if without:
        said.append(f"of {', '.join(without)} nothing is known, since nothing changed in the guest")
    if outcome.missed:
        said.append(f"{', '.join(outcome.missed)} could not be tried")
    if outcome.unfinished is not None:
        said.append("the search is not finished")
    raise VariesError(f"Not held: {'; '.join(said)}." if said else "Not held: not everything could be decided.",
                      hint=f"The outputs are in '{outcome.reference.parent}' until the next run."
                      if outcome.differing else None)
