"""A descriptor, looked at key by key; its script is looked at by the rooms network, varying and archives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import GitianError
from gitian.formats import yamlio
from gitian.formats.descriptor import Descriptor, Remote
from gitian.formats.yamlio import MappingNode, Node, ScalarNode, SequenceNode
from gitian.inputs.repository import run_git
from gitian.lint import archives, network, rules, varying
from gitian.lint.environment import check_compiler, check_source, check_suite
from gitian.lint.facts import Facts
from gitian.lint.model import Circumstances, Findings, Severity

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BRANCHES = frozenset(("master", "main", "develop", "development", "dev", "trunk", "HEAD", "next", "stable", "default"))
_BUILDERS = frozenset(("make", "cmake", "ninja", "meson", "cargo", "go", "gcc", "g++", "cc", "c++", "clang", "clang++",
                       "configure", "tar", "zip", "javac", "gradle", "gradlew", "mvn", "ant", "scons", "qmake", "bazel",
                       "genisoimage", "makensis", "dpkg-buildpackage", "npm", "rpmbuild", "jar"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Where the keys of a descriptor stand."""

    top: MappingNode
    text: tuple[str, ...]

    def of(self, *way: str | int) -> int | None:
        """The line of a key, of an item of a list, or of a key of such an item; None when it is not there."""
        node: Node = self.top
        line = None
        for step in way:
            if isinstance(step, int):
                if not isinstance(node, SequenceNode) or step >= len(node.items):
                    return line
                node = node.items[step]
                line = node.line
            else:
                pair = next((pair for pair in reversed(node.pairs) if isinstance(pair[0], ScalarNode)
                             and pair[0].text == step), None) if isinstance(node, MappingNode) else None
                if pair is None:
                    return line
                line, node = pair[0].line, pair[1]
        return line

    def script(self) -> tuple[int, bool]:
        """The line that the script's first line stands on, and whether its lines are lines of the file."""
        node = next((value for key, value in reversed(self.top.pairs) if isinstance(key, ScalarNode)
                     and key.text == "script"), None)
        if not isinstance(node, ScalarNode):
            return 1, False
        literal = node.line <= len(self.text) and re.search(r"\|[-+0-9]*\s*(#.*)?$", self.text[node.line - 1])
        return (node.line + 1, True) if literal else (node.line, False)


def check_descriptor(data: bytes, source: str, circumstances: Circumstances, findings: Findings) -> Descriptor:
    """Apply every rule that is about descriptors. Raises DescriptorError when it is none."""
    descriptor = Descriptor.parse(data, source)
    top = yamlio.parse(data, source)
    assert isinstance(top, MappingNode)
    lines = Lines(top=top, text=tuple(data.decode("utf-8", "replace").splitlines()))
    for number, suite in enumerate(descriptor.suites):
        check_suite(suite, circumstances, findings, line=lines.of("suites", number), where=f"suites[{number}]")
    _check_packages(top, circumstances, findings)
    for number, repository in enumerate(descriptor.repositories):
        check_source(repository.source, findings, line=lines.of("repositories", number, "source"),
                     where=f"repositories[{number}]")
    for number, remote in enumerate(descriptor.remotes):
        _check_remote(remote, number, lines, circumstances, findings)
    first, exact = lines.script()
    facts = Facts(text=descriptor.script, first_line=first, suites=descriptor.suites)
    inner = findings if exact else Findings()
    for room in (network, varying, archives):
        room.check(facts, inner)
    _check_dates(descriptor, facts, lines.of("script"), findings)
    if not exact:  # a folded or quoted script: all that is known is where it begins
        for finding in inner.found.values():
            findings.add(finding.rule, finding.message, line=first, where="script", severity=finding.severity)
    return descriptor


def _check_packages(top: MappingNode, circumstances: Circumstances, findings: Findings) -> None:
    for key, value in top.pairs:
        if isinstance(key, ScalarNode) and key.text == "packages" and isinstance(value, SequenceNode):
            for number, item in enumerate(value.items):
                for name in item.text.split() if isinstance(item, ScalarNode) else ():
                    check_compiler(name, circumstances, findings, line=item.line, where=f"packages[{number}]")


def _check_remote(remote: Remote, number: int, lines: Lines, circumstances: Circumstances, findings: Findings) -> None:
    where = f"remotes[{number}]"
    url_line, line = lines.of("remotes", number, "url"), lines.of("remotes", number, "commit")
    if re.match(r"(http|git|ftp)://(?!localhost\b|127\.)", remote.url):
        findings.add(rules.REMOTE_INSECURE, f"'{remote.url}' is reached without TLS or SSH.", line=url_line,
                     where=where)
    if remote.commit is None:
        findings.add(rules.REMOTE_UNPINNED, f"Which commit of '{remote.dir}' is built is said by whoever builds "
                     "(--commit), not by the descriptor.", line=url_line, where=where)
    elif _HASH.fullmatch(remote.commit):
        return
    elif re.fullmatch(r"[0-9a-f]{7,39}", remote.commit):
        findings.add(rules.REMOTE_MOVES, f"'{remote.commit}' is the beginning of a commit's hash; another commit may "
                     "begin so too.", line=line, where=where)
    elif remote.commit in _BRANCHES or remote.commit.startswith(("refs/heads/", "origin/")):
        findings.add(rules.REMOTE_MOVES, f"'{remote.commit}' is a branch: what is built changes with it.", line=line,
                     where=where)
    else:
        _check_tag(remote, remote.commit, line, where, circumstances, findings)


def _check_tag(remote: Remote, name: str, line: int | None, where: str, circumstances: Circumstances,
               findings: Findings) -> None:
    """A tag, if a clone of the remote shows that it is one."""
    clone = circumstances.inputs / remote.dir / ".git" if circumstances.inputs is not None else None
    if clone is None or not clone.is_dir():
        findings.add(rules.TAG_NOT_CHECKED, f"'{name}' is a tag or a branch of '{remote.dir}'; there is no clone in "
                     "inputs/ to look at.", line=line, where=where)
        return
    tag = _read(clone, f"refs/tags/{name}")
    if tag is None:
        if any(_read(clone, f"refs/{kind}/{name}") for kind in ("heads", "remotes/origin")):
            findings.add(rules.REMOTE_MOVES, f"'{name}' is a branch: what is built changes with it.", line=line,
                         where=where)
        else:
            findings.add(rules.TAG_NOT_CHECKED, f"'{name}' is neither a tag nor a branch of the clone in inputs/.",
                         line=line, where=where)
        return
    kind, body = tag
    if kind != "tag":
        findings.add(rules.TAG_UNSIGNED, f"'{name}' is a bare tag: nobody signed it, and it can be moved unseen.",
                     line=line, where=where)
    elif not re.search(rb"^-----BEGIN (PGP|SSH|SIGNED) (SIGNATURE|MESSAGE)-----$", body, re.MULTILINE):
        findings.add(rules.TAG_UNSIGNED, f"'{name}' is a tag without a signature.", line=line, where=where)


def _read(clone: Path, name: str) -> tuple[str, bytes] | None:
    """The kind and the text of the object that a name means. Nothing in the clone is run: cat-file runs nothing."""
    try:
        done = run_git([f"--git-dir={clone}", "cat-file", "--batch"], input=name.encode() + b"\n", check=False,
                       limit=2**20)
    except GitianError:
        return None
    head, _, body = done.stdout.partition(b"\n")
    fields = head.split(b" ")
    return None if done.status or len(fields) != 3 else (fields[1].decode("ascii", "replace"), body)


def _check_dates(descriptor: Descriptor, facts: Facts, line: int | None, findings: Findings) -> None:
    commands = facts.script.commands
    if "SOURCE_DATE_EPOCH" in facts.assigned or not any(
            command.name in _BUILDERS or command.name.endswith(("-gcc", "-g++", "setup.py")) for command in commands):
        return
    if facts.all_faked or facts.faked or re.search(r"REFERENCE_(DATETIME|DATE|TIME)|faketime", facts.text):
        findings.add(rules.SOURCE_DATE_EPOCH, "SOURCE_DATE_EPOCH is not set; many compilers and packers take their "
                     "time from there, without faketime.", line=line, where="script")
    else:
        severity = Severity.NOTE if descriptor.reference_datetime is not None else None
        findings.add(rules.NO_REFERENCE_DATE, "The script builds, and uses neither SOURCE_DATE_EPOCH nor "
                     "REFERENCE_DATETIME.", line=line, where="script", severity=severity)
