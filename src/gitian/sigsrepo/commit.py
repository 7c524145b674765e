"""``gsign --commit``: exactly the assertion and its signature, in a commit of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import SigningError, UsageError
from gitian.inputs.gittree import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where a signer's files are going to be committed, looked at before anything is signed."""

    repository: Repository
    paths: tuple[str, ...]
    message: str

    @property
    def detached(self) -> bool:
        """Whether the commit will belong to no branch."""
        return self.repository.detached()


@contextlib.contextmanager
def planned(assertion: Path, signature: Path, *others: Path, name: str, release: str, signer: str) -> Iterator[Plan]:
    """See whether the files can be committed; they need not exist yet.

    Raises UsageError when they lie in no work tree, SigningError when something else is staged or half done there.
    """
    with Repository.opened(assertion) as repository:
        if repository.work_tree is None:
            raise UsageError(f"'{assertion}' lies in a git repository without a work tree.")
        found = []
        for path in (assertion, signature, *others):
            real = path.parent.resolve() / path.name
            if not real.is_relative_to(repository.work_tree) or real.is_relative_to(repository.git_dir):
                raise UsageError(f"'{path}' does not lie in the work tree '{repository.work_tree}'.")
            found.append(str(real.relative_to(repository.work_tree)))
        if (busy := repository.unfinished()) is not None:
            raise SigningError(f"'{repository.work_tree}' is in the middle of {busy}.",
                               hint="Finish or abort it first. Nothing was signed.")
        if strange := [path for path in repository.staged() if path not in found]:
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            names = ", ".join(f"'{path}'" for path in strange[:5])
            raise SigningError(f"Something else is staged in '{repository.work_tree}': {names}{more}.",
                               hint="Commit or unstage it first ('git restore --staged .'). Nothing was signed.")
        yield Plan(repository=repository, paths=tuple(found),
                   message=f"{name} {release}: signature of {signer}\n\nname: {name}\nrelease: {release}\n"
                           f"signer: {signer}\n")


def carry_out(plan: Plan) -> str | None:
    """Commit the files; the commit's id, or None when it has been committed before just so.

    When it fails nothing stays staged, and the files stay. Raises SigningError (git, or a hook, would commit other
    bytes or other files), InputError with git's own words.
    """
    repository = plan.repository
    assert repository.work_tree is not None
    ids = {path: repository.id_of(str(repository.work_tree / path)) for path in plan.paths}
    try:
        staged = repository.stage(plan.paths)
        if changed := [path for path in plan.paths if staged.get(path) != ids[path]]:
            raise SigningError(f"git would not store '{changed[0]}' as it is, so the signature would not fit it.",
                               hint="Line endings or filters are configured for it. Put a line '* -text -filter' into "
                                    "'.gitattributes' there, and sign again.")
        if not set(repository.staged()) & set(plan.paths):
            return None
        before = repository.head()
        made = repository.commit(plan.paths, plan.message)
        # The user's hooks have run, and a hook may change and add what it likes.
        if strange := [path for path, found in repository.changed(before).items() if ids.get(path) != found]:
            repository.take_back(before)
            raise SigningError(f"A hook of '{repository.work_tree}' changed what is committed: '{strange[0]}'. "
                               "The commit was taken back.",
                               hint="A signature fits its file only as it is: let the hook leave these files alone, "
                                    "and sign again.")
        return made
    except BaseException:
        repository.unstage(plan.paths)
        raise
