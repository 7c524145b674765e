"""Scripts that fetch from the network: what, and whether anybody vouches for it."""

from __future__ import annotations

import re

from gitian.lint import rules
from gitian.lint.commands import Command
from gitian.lint.facts import Facts
from gitian.lint.model import Findings, Severity

#: Programs that fetch: always (None), or with one of these words as their first.
_FETCHERS: dict[str, frozenset[str] | None] = {
    "curl": None, "wget": None, "wget2": None, "aria2c": None, "axel": None, "lftp": None, "ftp": None, "scp": None,
    "sftp": None, "rsync": None, "apt-add-repository": None, "add-apt-repository": None, "debootstrap": None,
    "rustup": None, "nvm": None, "apt-key": frozenset(("adv",)),
    "git": frozenset(("clone", "fetch", "pull", "ls-remote", "submodule", "lfs")),
    "hg": frozenset(("clone", "pull")), "svn": frozenset(("checkout", "co", "export", "update", "up")),
    "bzr": frozenset(("branch", "checkout")), "cvs": frozenset(("checkout", "co", "update")),
    "pip": frozenset(("install", "download", "wheel")), "pipx": frozenset(("install",)),
    "conda": frozenset(("install",)),
    "easy_install": None, "poetry": frozenset(("install",)), "uv": frozenset(("pip", "sync")),
    "npm": frozenset(("install", "i", "ci", "update", "add")), "npx": None, "bower": frozenset(("install",)),
    "yarn": frozenset(("install", "add", "upgrade")), "pnpm": frozenset(("install", "i", "add", "update")),
    "go": frozenset(("get", "install", "mod")), "cargo": frozenset(("install", "fetch", "update", "add", "vendor")),
    "gem": frozenset(("install", "update")), "bundle": frozenset(("install", "update")), "cpan": None, "cpanm": None,
    "apt-get": frozenset(("install", "update", "upgrade", "dist-upgrade", "source", "build-dep", "download")),
    "apt": frozenset(("install", "update", "upgrade", "full-upgrade", "source", "build-dep", "download")),
    "aptitude": frozenset(("install", "update", "upgrade", "safe-upgrade")),
    "docker": frozenset(("pull", "run", "build")), "podman": frozenset(("pull", "run", "build")),
    "conan": frozenset(("install", "download")), "sdkmanager": None, "composer": frozenset(("install", "update")),
    "cabal": frozenset(("update", "install")), "stack": frozenset(("update", "setup")),
    "opam": frozenset(("install", "update")),
}
_RUNNERS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "python", "python2", "python3", "perl", "ruby", "node", "php",
                      "source", ".", "eval"))
_PLAIN = re.compile(r"\b(?:http|ftp)://(?!localhost\b|127\.|10\.0\.2\.2\b|\[::1\])", re.IGNORECASE)
_INSECURE = {"curl": ("-k", "--insecure"), "wget": ("--no-check-certificate",), "wget2": ("--no-check-certificate",),
             "pip": ("--trusted-host",), "aria2c": ("--check-certificate=false",)}
_NO_SIGNATURES = re.compile(r"--allow-unauthenticated|--force-yes|--allow-insecure-repositories"
                            r"|AllowUnauthenticated|AllowInsecureRepositories|--no-check-gpg|--nogpgcheck"
                            r"|\[[^]\[]{0,200}\b(?:trusted|allow-insecure)=yes", re.IGNORECASE)


def check(facts: Facts, findings: Findings) -> None:
    """Apply the rules network-* and packages-unauthenticated."""
    for command in facts.script.commands:
        _check_signatures(command, findings)
        if command.name in facts.script.functions or command.name in ("echo", "printf"):
            continue
        seen = _normal(command)
        if seen is not None:
            _check_fetch(facts, command, *seen, findings)


def _check_signatures(command: Command, findings: Findings) -> None:
    for text in (*command.texts, *command.documents, *(word.text for _, word in command.redirections)):
        if found := _NO_SIGNATURES.search(text):
            if command.name in ("sudo", "env"):
                return  # said of the command that it runs
            findings.add(rules.PACKAGES_UNAUTHENTICATED, f"'{found[0]}' installs packages that nobody has signed.",
                         line=command.line, end_line=command.end_line, where="script")
            return


def _normal(command: Command) -> tuple[str, tuple[str, ...]] | None:
    """The fetching program and its words; 'python3 -m pip install' is 'pip', 'git -C x fetch' is 'git fetch'."""
    name, words = command.name, command.texts
    if re.fullmatch(r"python[0-9.]*", name) and words[:2] and words[0] == "-m" and words[1] in ("pip", "easy_install"):
        name, words = words[1], words[2:]
    if re.fullmatch(r"pip[0-9.]+", name):
        name = "pip"
    if name not in _FETCHERS or "--version" in words or "--help" in words:
        return None
    wanted = _FETCHERS[name]
    if wanted is None:
        return name, words
    rest = list(words)
    while rest and rest[0].startswith(("-", "+")):
        takes = {"git": ("-C", "-c", "--git-dir", "--work-tree"), "apt-get": ("-o", "-t", "-c"), "apt": ("-o", "-t"),
                 "npm": ("--prefix",), "cargo": ("--manifest-path", "--config")}.get(name, ())
        del rest[:2 if rest[0] in takes else 1]
    if not rest or rest[0] not in wanted:
        return None
    return (name, tuple(rest)) if not _is_local(name, rest) else None


def _is_local(name: str, rest: list[str]) -> bool:
    """Whether the words say that nothing is fetched."""
    sub, options = rest[0], rest[1:]
    operands = [text for text in options if not text.startswith("-")]
    if name in ("pip", "gem", "npm", "yarn", "pnpm", "cargo", "go", "conan") and any(
            text in ("--no-index", "--offline", "--local", "-mod=vendor", "--frozen-offline", "--prefer-offline=only")
            for text in rest):
        return True
    if name == "git" and sub == "submodule":
        return not any(text in ("update", "add") for text in options)
    if name == "git" and sub == "lfs":
        return not any(text in ("pull", "fetch") for text in options)
    if name == "git" and sub in ("clone", "fetch", "pull"):
        # A clone of what lies in the guest: a path, and no other machine.
        return bool(operands) and re.match(r"[./~]|\$\{?(PWD|HOME|BUILD_DIR)\b|file:", operands[0]) is not None
    if name == "go":
        # Without a version 'go install' builds what is there, from the path or the module that it stands in.
        return (sub == "mod" and "download" not in options) or (sub == "install" and "@" not in " ".join(operands))
    return False


def _check_fetch(facts: Facts, command: Command, name: str, words: tuple[str, ...], findings: Findings) -> None:
    shown = " ".join((name, *words[:1])) if _FETCHERS[name] is not None else name
    line, end = command.line, command.end_line
    if (name in ("curl", "wget", "rsync", "scp") and all(re.match(r"-|file:", text) for text in words)
            and not command.redirections and not command.under):
        return  # nothing that it could fetch
    if name == "rsync" and not any(re.match(r"[^/]*:", text) for text in words if not text.startswith("-")):
        return
    insecure = [option for option in _INSECURE.get(name, ()) if command.has(option)]
    insecure += [variable for variable, _ in command.assignments
                 if variable in ("GIT_SSL_NO_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED")]
    insecure += [text for text in command.texts if re.match(r"http\.sslVerify=(false|0|no)", text, re.IGNORECASE)]
    if insecure:
        findings.add(rules.NETWORK_UNCHECKED, f"With '{insecure[0]}' {shown} believes whoever answers.", line=line,
                     end_line=end, where="script")
    plain = next((text for text in command.texts if _PLAIN.search(text)), None)
    if plain is not None and not facts.checks:
        findings.add(rules.NETWORK_UNCHECKED, f"{shown} fetches '{plain}' without TLS, and the script checks no "
                     "checksum or signature.", line=line, end_line=end, where="script")
    runner = _runner(facts, command)
    if runner is not None:
        findings.add(rules.NETWORK_RUN, f"What {shown} fetches is run by '{runner}', whatever it is that day.",
                     line=line, end_line=end, where="script")
    newest = _newest(name, words)
    if newest is not None:
        findings.add(rules.NETWORK_NEWEST, newest, line=line, end_line=end, where="script")
    checked = name in ("curl", "wget", "wget2", "aria2c", "axel") and facts.checks
    findings.add(rules.NETWORK_FETCH, f"The script fetches from the network: {shown}"
                 + (" (a checksum or signature is checked)." if checked else "."),
                 line=line, end_line=end, where="script", severity=Severity.NOTE if checked else None)


def _runner(facts: Facts, command: Command) -> str | None:
    """The interpreter that gets what is fetched."""
    for other in facts.script.pipeline_of(command):
        if other.position > command.position and other.name in _RUNNERS:
            return other.name
    outer = command.outer
    while outer is not None:
        if outer.name in _RUNNERS and any(inner for word in outer.words for inner in word.inner):
            return outer.name
        outer = outer.outer
    return None


def _newest(name: str, words: tuple[str, ...]) -> str | None:
    """What is not pinned, in a sentence."""
    operands = [text for text in words[1:] if not text.startswith("-")]
    if name == "pip" and words[0] == "install":
        if any(re.match(r"-r|--require", text) for text in words):
            return None
        # A directory or file of the guest's is known; the name of a package without a version is not.
        loose = [text for text in operands if "==" not in text and "@" not in text and not re.match(r"[./$~]", text)
                 and not text.endswith((".whl", ".tar.gz", ".zip"))]
        if loose:
            return "pip install takes the newest " + ", ".join(f"'{text}'" for text in loose[:5]) + "."
    loose = [text for text in operands if "@" not in text[1:] and not re.match(r"[./$~]", text)]
    if name in ("npm", "yarn", "pnpm", "bower") and (
            words[0] in ("update", "upgrade") or (loose and words[0] in ("install", "i", "add"))):
        return f"{name} {words[0]} takes whatever versions are newest."
    if name in ("go", "cargo", "gem") and words[0] in ("install", "get", "update"):
        pinned = any("@v" in text or re.match(r"--(vers|rev|tag|locked|path)|-v", text) for text in words)
        if not pinned and (operands or words[0] == "update"):
            return f"{name} {words[0]} takes whatever version is newest."
    if name == "git" and words[0] in ("pull", "clone") and not any(
            text in ("-b", "--branch") or text.startswith("--branch=") or text == "--no-checkout" for text in words):
        return f"git {words[0]} takes whatever is at the tip of a branch that day."
    if (name == "rustup" or (name == "nvm" and "install" in words)) and not re.search(r"\d\.\d", " ".join(words)):
        return f"{name} takes whatever version is newest."
    return None
