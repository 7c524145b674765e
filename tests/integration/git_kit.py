"""Git repositories made for tests: real git, nobody's configuration, always the same dates and persons."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_AUTHOR_DATE": "2020-01-02T03:04:05+0300",
    "GIT_COMMITTER_DATE": "2021-01-01T00:00:00+0000", "GIT_ALLOW_PROTOCOL": "file", "LC_ALL": "C.UTF-8",
}


def git(place: Path, *words: str | Path, input: bytes | None = None) -> str:
    """Run git in a directory; what it prints, without the newline."""
    done = subprocess.run(["git", "-c", "init.defaultBranch=master", *words], cwd=place, env=ENVIRONMENT, input=input,
                          stdin=subprocess.DEVNULL if input is None else None, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode().rstrip("\n")


def make(place: Path, files: dict[str, str | bytes], *, tag: str | None = None, sha256: bool = False) -> str:
    """A repository with one commit; its hash. A tag is an annotated one."""
    place.mkdir(parents=True)
    git(place, "init", "-q", "--object-format=sha256" if sha256 else "--object-format=sha1")
    return commit(place, files, tag=tag)


def commit(place: Path, files: dict[str, str | bytes], *, tag: str | None = None) -> str:
    """One more commit."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        git(place, "add", "-f", "--", name)
    git(place, "commit", "-q", "--allow-empty", "-m", "a commit")
    if tag:
        git(place, "tag", "-a", "-m", tag, tag)
    return git(place, "rev-parse", "HEAD")


def with_submodule(place: Path, path: str, url: str, pointing: str, *, name: str | None = None,
                   settings: str = "") -> str:
    """One more commit, in which ``path`` is a submodule at the commit ``pointing``; nothing is checked."""
    modules = place / ".gitmodules"
    before = modules.read_text() if modules.exists() else ""
    modules.write_text(f'{before}[submodule "{name or path}"]\n\tpath = {path}\n\turl = {url}\n{settings}')
    git(place, "add", ".gitmodules")
    git(place, "update-index", "--add", "--cacheinfo", f"160000,{pointing},{path}")
    git(place, "commit", "-q", "-m", "a submodule")
    return git(place, "rev-parse", "HEAD")
