"""A plan's inputs, made ready: files hashed, remotes checked out, the input manifest written."""

from __future__ import annotations

from dataclasses import dataclass

from gitian.errors import InputError
from gitian.host.workspace import Workspace, make_directory
from gitian.inputs import git
from gitian.inputs.files import InputFile, find_files
from gitian.inputs.git import InputRemote
from gitian.plan import BuildPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInputs:
    """Everything that goes into a guest but packages.

    ``manifest_text`` is the report's in_manifest; ``reference_datetime`` the descriptor's text, or the author date of
    the last remote's commit, 'YYYY-MM-DD HH:MM:SS' in UTC.
    """

    files: tuple[InputFile, ...]
    remotes: tuple[InputRemote, ...]
    manifest_text: str
    reference_datetime: str


def prepare(plan: BuildPlan, workspace: Workspace) -> PreparedInputs:
    """Hash the plan's files and check its remotes out, in the workspace, which the caller has locked.

    Raises InputError, FetchError.
    """
    descriptor, options = plan.descriptor, plan.options
    make_directory(workspace.inputs)
    files = find_files(descriptor.files, workspace.inputs)
    git.sweep(workspace.inputs)
    fetching = git.Fetching(skip=options.skip_fetch, branches=options.fetch_branches, tags=options.fetch_tags)
    remotes = tuple(git.check_out(remote.url, remote.dir, remote.commit, inputs=workspace.inputs, fetching=fetching)
                    for remote in plan.remotes)
    reference = descriptor.reference_datetime
    if reference is None:
        if not remotes:
            raise InputError("The descriptor has no reference_datetime, and no remote to take one from.",
                             hint="Add a line like this: reference_datetime: \"2013-06-01 00:00:00\"")
        reference = remotes[-1].author_date
    return PreparedInputs(files=files, remotes=remotes, reference_datetime=reference,
                          manifest_text=manifest_text(descriptor.name, descriptor.sha256, files, remotes))


def manifest_text(name: str, descriptor_sha256: str, files: tuple[InputFile, ...],
                  remotes: tuple[InputRemote, ...]) -> str:
    """The in_manifest, as the classic writes it: no newline follows a remote, so two of them run together."""
    lines = [f"{descriptor_sha256}  {name}-desc.yml\n", *(f"{file.sha256}  {file.name}\n" for file in files)]
    return "".join(lines) + "".join(f"git:{remote.commit} {remote.dir}" for remote in remotes)
