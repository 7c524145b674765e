"""What a build is held to: --like (a report, an assertion, or a signer's) and --environment (a file)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gitian.build.exact import Wanted
    from gitian.formats.report import Report
    from gitian.host.workspace import Workspace
    from gitian.images.obtain import Places

#: Signatures that nobody here can check: worth a warning. All others that are not valid are refused.
_UNCHECKED = ("NO KEY", "MISSING SIGNATURE", "EXPIRED KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The options that say it. ``like`` is a path, or a signer's name; ``release`` and ``destination`` say where that
    signer's assertion is. ``option`` is how messages call the option before its value."""

    like: str | None
    environment: Path | None
    release: str | None = None
    destination: Path | None = None
    option: str = "--like "

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        from gitian.errors import UsageError

        if self.like is not None and self.environment is not None:
            raise UsageError("--like and --environment both say in which environment to build.",
                             hint="Leave one of them out.")
        if self.like is None and (self.release is not None or self.destination is not None):
            raise UsageError("--release and --destination say where a signer's assertion is, and --like names none.",
                             hint="For example: gbuild --like SIGNER --release 1.0 DESCRIPTOR")

    @property
    def takes_release(self) -> bool:
        """Whether --release and --destination go with the option: 'packages=FILE' has none."""
        return not self.option.endswith("=")

    @property
    def given(self) -> bool:
        """Whether the build is held to anything."""
        return self.like is not None or self.environment is not None

    def wanted(self, descriptor: Path, workspace: Workspace, places: Places) -> Wanted:
        """What is meant. Raises FormatError, UsageError, DescriptorError."""
        from gitian.build.exact import Wanted
        from gitian.formats.environment import EnvironmentFile, of_report

        if self.environment is not None:
            return Wanted(origin=str(self.environment), places=places,
                          environments=EnvironmentFile.read(self.environment).environments)
        origin, report = self.record(descriptor, workspace)
        if origin == self.like:
            _keep(Path(self.like), workspace)
        return Wanted(origin=origin, environments=of_report(report, source=origin), places=places, like=report)

    def record(self, descriptor: Path, workspace: Workspace) -> tuple[str, Report]:
        """What ``like`` names: where it is, and what it says. Raises FormatError, UsageError, DescriptorError."""
        from gitian.build.exact import check_record
        from gitian.errors import UsageError
        from gitian.formats.report import Report

        assert self.like is not None
        path = Path(self.like)
        if path.is_file():
            if self.release is not None or self.destination is not None:
                raise UsageError(f"'{self.like}' is a file, so --release and --destination say nothing.",
                                 hint="Leave them out.")
            report = Report.read(path)
            check_record(self.like, report)
            return self.like, report
        if "/" in self.like or not self.like:
            raise UsageError(f"There is no file '{self.like}'.",
                             hint=f"{self.option.strip(' =')} names a report, an assertion, or a signer.")
        origin, report = _signers(self, descriptor, workspace)
        check_record(origin, report)
        return origin, report


def _keep(path: Path, workspace: Workspace) -> None:
    """The report of this very workspace is about to be replaced: what is rebuilt stays beside it.

    The same command a second time would compare the rebuild with itself. Raises UsageError.
    """
    from gitian.errors import UsageError
    from gitian.host import progress
    from gitian.host.workspace import write_atomically

    if path.resolve().parent == workspace.result.resolve() and path.name.endswith("-res.yml"):
        data, kept = path.read_bytes(), path.with_name(path.name.removesuffix("-res.yml") + "-like.yml")
        if kept.is_file() and kept.read_bytes() != data:
            raise UsageError(f"'{path.name}' may be what a rebuild has left: another report is kept as "
                             f"'result/{kept.name}'.",
                             hint=f"Rebuild that one (--like {kept}), or remove it.")
        write_atomically(kept, data)
        progress.say(f"'{path.name}' is kept as 'result/{kept.name}'; the rebuild writes a new one.")


def _signers(asked: Reference, descriptor: Path, workspace: Workspace) -> tuple[str, Report]:
    """A signer's assertion, whose signature is checked if there is a key for it. Raises UsageError."""
    from gitian.cli import gverify
    from gitian.errors import UsageError
    from gitian.formats.descriptor import Identity
    from gitian.host import progress
    from gitian.sigs import survey, tree, verify

    assert asked.like is not None
    signer, release, option = asked.like, asked.release, asked.option
    name = Identity.read(descriptor).name
    place = asked.destination if asked.destination is not None else workspace.sigs / name
    hint = f"{option.strip(' =')} names a report, an assertion, or a signer."
    if asked.takes_release:
        hint = f"{hint.rstrip('.')}; --release and --destination say where the latter's assertion is."
    with gverify.tree_of(place, None) as where:
        if release is None:
            try:
                pairs = survey.discover(where, name=name).pairs
            except tree.TreeError as error:
                raise UsageError(f"'{signer}' is no file, and '{place}' has no signers: {error}.",
                                 hint=hint) from error
            path = f"{signer}/{name}-build.assert"
            found = [pair.release for pair in pairs if (place / pair.release / path).is_file()]
            if not found:
                raise UsageError(f"'{signer}' is no file, and no signer of '{name}' in '{place}'.", hint=hint)
            if len(found) > 1:
                raise UsageError(f"'{signer}' has signed several releases of '{name}': {', '.join(found[-10:])}.",
                                 hint=f"Say which one is meant: --release {found[-1]}" if asked.takes_release else
                                 f"Say which one is meant: {option}{place / found[-1] / path}")
            release = found[0]
        gverify.check_release(release)
        with gverify.prepare(where, keyrings=(), only_keyring=False, require=1, policy_file=None, compare_to=None,
                             program=None, words=False, use_cache=True) as request:
            outcome = verify.verify_release(request, release, name).signer(signer)
            if outcome is None or outcome.assertion is None:
                raise UsageError(f"'{signer}' has no assertion for '{name}' {release} in '{place}' that can be read.",
                                 hint=hint)
            words = outcome.outcome.value + (f" ({outcome.detail})" if outcome.detail else "")
            if not outcome.valid:
                if outcome.outcome.value not in _UNCHECKED:
                    raise UsageError(f"The assertion of '{signer}' is not to be built from: {words}.",
                                     hint=f"See 'gverify -r {release} {descriptor}'. A file is taken as it is: "
                                          f"{option}{place / outcome.path}")
                progress.warn(f"The signature of '{signer}' does not count: {words}.")
            return str(place / outcome.path), outcome.assertion.report
