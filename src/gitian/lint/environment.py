"""Environments: suites and compilers past their time, packages that are outdated, sources that nobody vouches for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gitian.formats.deblines import own_lines
from gitian.formats.environment import Environment
from gitian.lint import ages, rules
from gitian.lint.ages import Age
from gitian.lint.debian import Deb, compare
from gitian.lint.model import Circumstances, Findings, Rule

#: So many years make a suite or compiler old.
OLD = 5

_GCC = re.compile(r"(?:gcc|g\+\+|gfortran|gobjc|gnat|gccgo|cpp)-(\d+(?:\.\d)?)(?:-(?!doc|base|locales|source).*)?")
_LLVM = re.compile(r"(?:clang|llvm|lld)-(\d+(?:\.\d)?)(?:-(?!doc|examples).*)?")
_PYTHON2 = re.compile(r"python2(?:\.\d)?(?:-minimal|-dev)?")


def check_suite(suite: str, circumstances: Circumstances, findings: Findings, *, line: int | None = None,
                where: str) -> None:
    """Apply the rules suite-*."""
    age, today = ages.SUITES.get(suite), circumstances.today
    if suite in ages.MOVING:
        findings.add(rules.SUITE_MOVES, f"'{suite}' is another suite after the next release; its packages change every "
                     "day.", line=line, where=where)
    elif age is None:
        findings.add(rules.SUITE_UNKNOWN, f"'{suite}' is not in the table of suites, so its age is not known.",
                     line=line, where=where)
    elif age.end is not None and age.end < today:
        findings.add(rules.SUITE_END_OF_LIFE, f"'{suite}' (released {age.released}) gets no security updates since "
                     f"{age.end}.", line=line, where=where)
    elif age.released < ages.years_before(today, OLD):
        findings.add(rules.SUITE_OLD, f"'{suite}' was released on {age.released}; its updates end on {age.end}.",
                     line=line, where=where)


def check_compiler(package: str, circumstances: Circumstances, findings: Findings, *, line: int | None = None,
                   where: str) -> None:
    """Apply the rules compiler-* to the name of a package."""
    package = package.partition(":")[0]
    for pattern, table, what in ((_GCC, ages.GCC, "GCC"), (_LLVM, ages.LLVM, "LLVM")):
        if (found := pattern.fullmatch(package)) and found[1] in table:
            _check_age(table[found[1]], f"{what} {found[1]}", package, circumstances, findings, line, where)
    if _PYTHON2.fullmatch(package):
        _check_age(ages.PYTHON2, "Python 2", package, circumstances, findings, line, where)


def _check_age(age: Age, what: str, package: str, circumstances: Circumstances, findings: Findings, line: int | None,
               where: str) -> None:
    rule: Rule
    if age.end is not None and age.end < circumstances.today:
        rule, why = rules.COMPILER_END_OF_LIFE, f"had its last release on {age.end}"
    elif age.released < ages.years_before(circumstances.today, OLD):
        rule, why = rules.COMPILER_OLD, f"began on {age.released}"
    else:
        return
    findings.add(rule, f"{what} ('{package}') {why}.", line=line, where=where)


def check_packages(packages: Iterable[Deb], suite: str, architecture: str, circumstances: Circumstances,
                   findings: Findings, *, where: str) -> None:
    """Apply the rules package-outdated and compiler-* to what was installed in a target."""
    for package in packages:
        check_compiler(package.name, circumstances, findings, where=where)
        offer = None if circumstances.offers is None else circumstances.offers.get((suite, architecture, package.name))
        if offer is not None and compare(package.version, offer.version) < 0:
            security = ", a security update" if offer.security else ""
            findings.add(rules.PACKAGE_OUTDATED, f"'{package.name}' is {package.version}; the archive has "
                         f"{offer.version}{security}.", where=where)


def check_environment(environment: Environment, findings: Findings) -> None:
    """Apply the rules environment-* and repository-* to what an environment states besides its packages."""
    where = environment.label
    if environment.base is None:
        findings.add(rules.ENVIRONMENT_NO_BASE, "No root filesystem is stated, so a build is held to the packages "
                     "only.", where=where)
    if not environment.sources:
        findings.add(rules.ENVIRONMENT_NO_SOURCES, "It is not stated where the packages came from, so that nobody "
                     "knows where to look for them.", where=where)
    own, others = own_lines(environment.sources, environment.suite)
    for lines, is_own in ((own, True), (others, False)):
        for line in lines:
            check_source(line, findings, where=where, own=is_own)


def check_source(source: str, findings: Findings, *, line: int | None = None, where: str, own: bool = False) -> None:
    """Apply the rules repository-* to a line of sources.list (sources.list(5)); ``own`` ones are the distro's."""
    found = re.match(r"\s*(?:deb(?:-src)?\s+)?(?:\[([^\]]*)\]\s*)?(\S+)", source)
    options, uri = (found[1] or "", found[2]) if found else ("", source)
    for option in options.split():
        name, _, value = option.partition("=")
        if name in ("trusted", "allow-insecure", "allow-weak") and value.lower() in ("yes", "true", "1"):
            findings.add(rules.REPOSITORY_UNSIGNED, f"'{option}' has packages of '{uri}' installed whoever made them.",
                         line=line, where=where)
    if not own and re.match(r"(http|ftp)://", uri) and not _is_near(uri):
        findings.add(rules.REPOSITORY_HTTP, f"'{uri}' is reached without TLS: others see what is fetched, and can keep "
                     "updates back.", line=line, where=where)


def _is_near(uri: str) -> bool:
    """Whether it is the guest itself, the host, or a proxy there."""
    return re.match(r"[a-z]+://(localhost|127\.|10\.0\.2\.|\[::1\])", uri) is not None
