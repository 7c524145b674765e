"""Building in a recorded environment: what was recorded is compared with what is here, and images are made of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gitian.errors import EnvironmentUnavailableError, FormatError, InputError
from gitian.formats.environment import Environment
from gitian.formats.fetched import Fetched
from gitian.formats.image_record import InstalledPackage
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report
from gitian.host import progress
from gitian.host.workspace import Workspace
from gitian.images import exact, obtain
from gitian.images.exact import ExactRequest
from gitian.images.lookup import BaseImage
from gitian.images.obtain import Missing, Places
from gitian.images.origins import with_sources
from gitian.inputs.files import find_files
from gitian.inputs.prepare import PreparedInputs
from gitian.names import shown
from gitian.plan import BuildPlan, Options, Target

_FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HINT_INPUTS = "A rebuild takes what was recorded, or proves nothing: check the descriptor out as it was, and put " \
               "that release's files into 'inputs'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The environments to build in, and where their packages may come from.

    ``origin`` is how messages call the file. With ``like``, the report that is rebuilt, inputs are held to it too.
    """

    origin: str
    environments: tuple[Environment, ...]
    places: Places
    like: Report | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The image that a target's guest is made from; ``exact`` when it holds the whole of that environment, for which
    ``fetched`` came over the network just now."""

    image: BaseImage
    exact: Environment | None = None
    fetched: tuple[Fetched, ...] = ()


def as_recorded(options: Options, wanted: Wanted, dirs: Sequence[str]) -> Options:
    """The options with the recorded commit of every remote for which none was given: a tag may have moved since."""
    recorded = _commits(wanted)
    return replace(options, pinned={name: recorded[name] for name in dirs
                                    if name in recorded and name not in options.commits})


def _commits(wanted: Wanted) -> dict[str, str]:
    if wanted.like is None:
        return {}
    return {remote.dir: remote.commit for remote in Manifest.parse(wanted.like.in_manifest).remotes}


def check_record(origin: str, report: Report) -> None:
    """See that a record says one thing: no output or input with two hashes, no line that means nothing.

    Whoever passed over such a line could call reproduced what is not. Raises FormatError.
    """
    for what, text in (("outputs", report.out_manifest), ("inputs", report.in_manifest)):
        manifest = Manifest.parse(text)
        if manifest.strange:
            raise FormatError(f"{origin}: among the {what} stands a line that is none of a manifest: "
                              f"{shown(manifest.strange[0])}.")
        names = [*(entry.path for entry in manifest.entries), *(f"git:{remote.dir}" for remote in manifest.remotes)]
        for name, times in Counter(names).items():
            if times > 1:
                raise FormatError(f"{origin}: {shown(name)} stands {times} times among the {what}.")


def images_of(wanted: Wanted, plan: BuildPlan, workspace: Workspace, backend: str) -> dict[str, Base]:
    """An image of each target's environment, by the target's label.

    Raises EnvironmentUnavailableError and InputError, with everything that is missing or differs at once; ImageError,
    HostError.
    """
    chosen = {target.label: environment_of(wanted, target) for target in plan.targets}
    problems = list(problems_of(wanted, plan, workspace))
    # Targets that have the same guest (amd64 and linux64) have one image.
    images = {environment.label: exact.find_exact(workspace.image_directory, environment, backend)
              for environment in chosen.values()}
    with workspace.scratch() as scratch:
        found: dict[str, obtain.Obtained] = {}
        for environment in chosen.values():
            if images[environment.label] is None and environment.label not in found:
                repositories = tuple(one.source for one in plan.descriptor.repositories)
                places = replace(wanted.places, sources=(*wanted.places.sources, *repositories))
                place = scratch / environment.label
                place.mkdir()
                found[environment.label] = _obtained(environment, places, place, workspace.image_directory, backend)
        refuse(wanted, problems, list(dict.fromkeys(one for some in found.values() for one in some.missing)))
        return {label: Base(
            image=images[environment.label] or _made(environment, found, images, workspace, backend), exact=environment,
            fetched=found[environment.label].fetched if environment.label in found else ())
            for label, environment in chosen.items()}


def base_of(environment: Environment, image: BaseImage, wanted: Wanted, workspace: Workspace,
            backend: str) -> str | None:
    """The digest of an environment's root filesystem, if it is the same when it is made once more; else None.

    Raises EnvironmentUnavailableError, ImageError, HostError.
    """
    with workspace.scratch() as scratch:
        found = _obtained(environment, wanted.places, scratch, workspace.image_directory, backend)
        obtain.require(found)
        progress.say(f"Is the root filesystem of {environment.label} the same when it is made once more?")
        request = ExactRequest(directory=workspace.image_directory, environment=environment, backend=backend,
                               debs=found.files)
        again = exact.remade(request)
        if again != image.record.tarball_sha256:
            # The image may be one of another day, made by another mmdebstrap: the digest of two that are new counts.
            once_more = exact.remade(request)
            if once_more != again:
                progress.warn(f"The root filesystem of {environment.label} is another one each time it is made: "
                              "packages leave random data behind when they are installed. Its digest is therefore not "
                              "stated.")
                return None
    return again


def _made(environment: Environment, found: Mapping[str, obtain.Obtained], images: dict[str, BaseImage | None],
          workspace: Workspace, backend: str) -> BaseImage:
    files = found[environment.label].files
    image = exact.make_exact(ExactRequest(
        directory=workspace.image_directory, environment=environment, backend=backend,
        debs={one: files[one] for one in environment.packages},
        kernel_debs={one: files[one] for one in _kernel_packages(environment, backend)}))
    images[environment.label] = image
    return image


def _kernel_packages(environment: Environment, backend: str) -> tuple[InstalledPackage, ...]:
    return environment.kernel.packages if backend == "kvm" and environment.kernel is not None else ()


def _obtained(environment: Environment, places: Places, place: Path, images: Path, backend: str) -> obtain.Obtained:
    wanted = list(dict.fromkeys([*environment.packages, *_kernel_packages(environment, backend)]))
    with progress.step(f"Looking for the {len(wanted)} packages of {environment.label}"):
        known = with_sources(places, environment, directory=images, scratch=place)
        return obtain.obtain(wanted, known, place / "debs", place / "work")


def environment_of(wanted: Wanted, target: Target) -> Environment:
    """The environment that is meant for a target. Raises EnvironmentUnavailableError."""
    for environment in wanted.environments:
        if (environment.suite, environment.architecture) == (target.suite, target.dpkg_arch):
            if environment.distro not in ("", target.distro):
                raise EnvironmentUnavailableError(
                    f"The environment of {target.label} in '{wanted.origin}' is one of {environment.distro}, not of "
                    f"{target.distro}.", hint="Does it belong to this descriptor?")
            return replace(environment, distro=target.distro)
    there = ", ".join(environment.label for environment in wanted.environments) or "none"
    raise EnvironmentUnavailableError(f"'{wanted.origin}' has no environment for {target.label}; it has: {there}.",
                                      hint="Does it belong to this descriptor?")


def problems_of(wanted: Wanted, plan: BuildPlan, workspace: Workspace) -> Iterator[str]:
    """In what the descriptor and the files at hand are not what was recorded."""
    if wanted.like is None:
        return
    descriptor = plan.descriptor
    here = {f"{descriptor.name}-desc.yml": descriptor.sha256}
    try:
        here |= {file.name: file.sha256 for file in find_files(descriptor.files, workspace.inputs)}
    except InputError as error:
        yield str(error)
        return
    yield from _differences(Manifest.parse(wanted.like.in_manifest).by_path(), here, "input file")
    recorded = _commits(wanted)
    for name in sorted(recorded.keys() ^ {remote.dir for remote in plan.remotes}):
        yield f"the remote '{name}' is {'recorded, but not in the descriptor' if name in recorded else 'not recorded'}"
    # What -c calls by another name than a full hash is known once the remote is there.
    asked = {remote.dir: remote.commit for remote in plan.remotes
             if remote.dir in recorded and _FULL.fullmatch(remote.commit)}
    yield from _differences({name: recorded[name] for name in asked}, asked, "remote")


def _differences(recorded: Mapping[str, str], here: Mapping[str, str], what: str) -> Iterator[str]:
    for name in sorted({*recorded, *here}):
        if recorded.get(name) != here.get(name):
            yield f"{what} '{name}': recorded {recorded.get(name, 'nothing')}, here {here.get(name, 'nothing')}"


def refuse(wanted: Wanted, problems: Sequence[str], missing: Sequence[Missing]) -> None:
    """Raises EnvironmentUnavailableError or InputError, when there is anything, with all of it."""
    if missing:
        error = obtain.unavailable(missing)
        if problems:
            error = EnvironmentUnavailableError(
                f"{error}\nNor are the inputs those of '{wanted.origin}':" + "\n  ".join(["", *problems]),
                hint=error.hint)
        raise error
    if problems:
        raise InputError(f"The inputs are not those of '{wanted.origin}':" + "\n  ".join(["", *problems]),
                         hint=_HINT_INPUTS)


def check_commits(wanted: Wanted, inputs: PreparedInputs) -> None:
    """See that the remotes are at the recorded commits. Raises InputError, which names all that are not."""
    if wanted.like is None:
        return
    problems = list(_differences(_commits(wanted), {remote.dir: remote.commit for remote in inputs.remotes}, "remote"))
    if problems:
        raise InputError(f"The inputs are not those of '{wanted.origin}':" + "\n  ".join(["", *problems]),
                         hint="Without -c the recorded commits are taken.")
