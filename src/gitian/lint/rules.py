"""The rules. docs/reference/lint.md explains each under a heading of its name; a test compares the two."""

from __future__ import annotations

from gitian.lint.model import Rule, Severity

_NOTE, _WARNING, _ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR

RULES: dict[str, Rule] = {}


def _rule(id: str, severity: Severity, title: str) -> Rule:
    RULES[id] = Rule(id=id, severity=severity, title=title)
    return RULES[id]


SUITE_END_OF_LIFE = _rule("suite-end-of-life", _WARNING, "A suite gets no security updates any more.")
SUITE_OLD = _rule("suite-old", _NOTE, "A suite was released more than five years ago.")
SUITE_MOVES = _rule("suite-moves", _WARNING, "The name of a suite means another one after the next release.")
SUITE_UNKNOWN = _rule("suite-unknown", _NOTE, "A suite is not in the table, so its age is not known.")
COMPILER_END_OF_LIFE = _rule("compiler-end-of-life", _WARNING, "A compiler's series has had its last release.")
COMPILER_OLD = _rule("compiler-old", _NOTE, "A compiler's series began more than five years ago.")
PACKAGE_OUTDATED = _rule("package-outdated", _WARNING, "The archive has a newer version of a package.")
PACKAGES_NOT_COMPARED = _rule("packages-not-compared", _NOTE, "No archive was asked for newer versions of packages.")
PACKAGES_UNAUTHENTICATED = _rule("packages-unauthenticated", _ERROR, "Packages are installed without their signatures.")
REPOSITORY_UNSIGNED = _rule("repository-unsigned", _ERROR, "Packages of a repository are installed unsigned.")
REPOSITORY_HTTP = _rule("repository-http", _WARNING, "A third party's repository is reached without TLS.")
ENVIRONMENT_NO_BASE = _rule("environment-no-base", _NOTE, "An environment states no root filesystem.")
ENVIRONMENT_NO_SOURCES = _rule("environment-no-sources", _NOTE, "An environment does not state where it came from.")
REMOTE_UNPINNED = _rule("remote-unpinned", _NOTE, "The descriptor does not say which commit of a remote is built.")
REMOTE_MOVES = _rule("remote-moves", _WARNING, "A remote's commit is a name that can mean another commit tomorrow.")
REMOTE_INSECURE = _rule("remote-insecure", _WARNING, "A remote is reached without TLS or SSH.")
TAG_UNSIGNED = _rule("tag-unsigned", _WARNING, "A tag that is built carries no signature.")
TAG_NOT_CHECKED = _rule("tag-not-checked", _NOTE, "Whether a tag is signed is not known without a clone.")
NETWORK_FETCH = _rule("network-fetch", _WARNING, "The script fetches from the network.")
NETWORK_NEWEST = _rule("network-newest", _WARNING, "The script fetches whatever is newest on the day of the build.")
NETWORK_UNCHECKED = _rule("network-unchecked", _ERROR, "What the script fetches is authenticated by nobody.")
NETWORK_RUN = _rule("network-run", _ERROR, "The script runs what it fetches, unseen.")
NO_REFERENCE_DATE = _rule("no-reference-date", _WARNING, "The script uses no date of reference.")
SOURCE_DATE_EPOCH = _rule("source-date-epoch", _NOTE, "SOURCE_DATE_EPOCH is not set.")
CLOCK = _rule("clock", _WARNING, "The script reads the clock.")
RANDOM = _rule("random", _WARNING, "The script uses random numbers.")
TEMPORARY_NAME = _rule("temporary-name", _NOTE, "A random name of a temporary file may get into what is built.")
MACHINE = _rule("machine", _WARNING, "What is built depends on the machine that it is built on.")
OUTPUT_VARIES = _rule("output-varies", _ERROR, "The clock or random numbers get into an output or its name.")
LOCALE = _rule("locale", _WARNING, "The script depends on a locale.")
SORT_LOCALE = _rule("sort-locale", _NOTE, "A sorted order depends on the locale.")
DIRECTORY_ORDER = _rule("directory-order", _WARNING, "The order in which a directory is listed gets into an output.")
ARCHIVE_TIMES = _rule("archive-times", _WARNING, "An archive is made with the times of its files or of the build.")
IGNORED_WITHOUT_REASON = _rule("ignored-without-reason", _WARNING, "A finding is suppressed and nobody says why.")
IGNORED_NOTHING = _rule("ignored-nothing", _NOTE, "A comment suppresses nothing, or a rule that does not exist.")
