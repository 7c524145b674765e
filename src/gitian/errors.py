"""Every error that a user can meet: one class per kind, each with its exit status and, often, what to do next.

The exit statuses are documented in docs/reference/exit-codes.md; a test compares the two.
"""

from __future__ import annotations


class GitianError(Exception):
    """Something that a user can understand and act upon.

    ``str(error)`` is a full sentence; ``hint`` says what to do next. Neither is escaped for a terminal: that is done
    where they are printed.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ExistsError(GitianError):
    """What should be made is there already. The classic ends with 1 here, and so do we."""

    exit_code = 1


class UsageError(GitianError):
    """Options or arguments that make no sense together."""

    exit_code = 2


class DescriptorError(GitianError):
    """A descriptor that cannot be used; the message names file, line and key of every problem."""

    exit_code = 3


class InputError(GitianError):
    """A file, commit, submodule or other input that is missing or is not what was asked for."""

    exit_code = 4


class MissingToolError(GitianError):
    """A program that is not installed; the hint names its package."""

    exit_code = 5


class HostError(GitianError):
    """This machine cannot do it: no user namespaces, no subordinate ids, no room on the disk."""

    exit_code = 6


class ImageError(GitianError):
    """A base image that is missing, unusable, or cannot be made."""

    exit_code = 7


class GuestError(GitianError):
    """A guest that does not start, dies, hangs or answers nonsense."""

    exit_code = 8


class NotVariedError(GuestError):
    """A guest in which circumstances could not be changed: of the variations ``names`` nothing is known, by ``why``."""

    def __init__(self, message: str, *, names: frozenset[str], why: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.names, self.why = names, why


class BuildError(GitianError):
    """The descriptor's script failed."""

    exit_code = 9


class HangError(BuildError):
    """The descriptor's script did not come to an end in time."""


class OutputError(GitianError):
    """What came out of a guest was refused: a path that leads out, a device, a size beyond bounds."""

    exit_code = 10


class OutputSizeError(OutputError):
    """More came out of a guest than there is room for: it says nothing of what came."""


class BusyError(GitianError):
    """Another command works in this workspace, or with this image, right now."""

    exit_code = 11


class FetchError(GitianError):
    """The network or an archive failed: a mirror that is out of step, a remote that does not answer."""

    exit_code = 12


class PolicyError(GitianError):
    """Signatures are good and agree, but fewer or lighter than was required."""

    exit_code = 13


class NothingToVerifyError(GitianError):
    """No valid signature for what was asked."""

    exit_code = 14


class SigningError(GitianError):
    """The signing program failed, or signing was refused."""

    exit_code = 15


class FormatError(GitianError):
    """A document on disk that cannot be read as what it should be."""

    exit_code = 16


class ProgramError(GitianError):
    """A program that we started failed in a way that no one foresaw."""

    exit_code = 17


class InitialBuildError(GitianError):
    """Rebuilders agree with each other, and the build that everybody uses is another one."""

    exit_code = 18


class EnvironmentUnavailableError(GitianError):
    """An environment that cannot be had: packages that nobody has any more, or a guest that turned out another one."""

    exit_code = 19


class NotReproducedError(GitianError):
    """A rebuild in a recorded environment gave something else than what was recorded."""

    exit_code = 30


class VariesError(GitianError):
    """Outputs that hang on circumstances or on chance, or nobody knows whether they do (gitian vary)."""

    exit_code = 31


# gitian update


class UpdateConfigurationError(GitianError):
    """A configuration of 'gitian update' that cannot be used."""

    exit_code = 20


class PackageError(GitianError):
    """A package that is broken, hostile or beyond bounds: a zip bomb, a path that leads out, a name twice."""

    exit_code = 21


class UntrustedError(GitianError):
    """Too little weight of valid signatures, or trusted signers that contradict each other."""

    exit_code = 22


class ContentError(GitianError):
    """A file of the package is missing, or is not what the signers agreed on."""

    exit_code = 23


class WrongPackageError(GitianError):
    """Rightly signed, but another program or another release than was asked for, announced or installed."""

    exit_code = 24


class DowngradeError(GitianError):
    """The package is older than what is installed."""

    exit_code = 25


class WaitingError(GitianError):
    """Everything is good, and the waiting period is not over."""

    exit_code = 26


class DestinationError(GitianError):
    """The destination cannot take the release: it holds something else, or cannot be switched."""

    exit_code = 27


class DownloadError(GitianError):
    """No place gave the package: nothing answers, too big, too slow, cut off."""

    exit_code = 28


class PostCommandError(GitianError):
    """The release is installed; the command that should run afterwards failed."""

    exit_code = 29


class Interrupted(BaseException):
    """A signal asked us to stop. Not an ``Exception``, so that no broad handler swallows it.

    ``number`` is the signal's; the exit status is 128 + number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        return 128 + self.number
