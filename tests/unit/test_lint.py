"""gitian lint: every planted fault is found, careful scripts raise nothing, and real descriptors no false error."""

from __future__ import annotations

import datetime
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitian.cli.common import status_of
from gitian.cli.main import load
from gitian.errors import FormatError
from gitian.formats.environment import Environment, EnvironmentFile
from gitian.formats.image_record import InstalledPackage
from gitian.lint import run
from gitian.lint.ages import GCC, LLVM, SUITES
from gitian.lint.comments import find_comments
from gitian.lint.debian import Deb, compare, deb_of
from gitian.lint.model import Circumstances, Finding, Offer, Severity
from gitian.lint.rules import RULES
from tests.shared import FIXTURES, needs_shared

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.date(2026, 11, 22)
HASH = "b084cbbf44d5330448ffce0c7d118f75781b64bd"

GOOD = f"""---
name: "x"
distro: "debian"
suites:
- "trixie"
architectures:
- "amd64"
packages:
- "make"
remotes:
- "url": "https://example.org/x.git"
  "dir": "x"
  "commit": "{HASH}"
files: []
script: |
  export SOURCE_DATE_EPOCH="$(date -u -d "$REFERENCE_DATETIME" +%s)"
  export LC_ALL=C
  cd x
  make
"""


def findings_of(text: str, **circumstances: Any) -> list[Finding]:
    document = run.Document(path=Path("x.yml"), kind="descriptor", data=text.encode())
    return list(run.lint(document, Circumstances(today=TODAY, **circumstances)).findings)


def found(text: str, **circumstances: Any) -> set[str]:
    return {finding.rule.id for finding in findings_of(text, **circumstances)}


def with_script(*lines: str, suite: str = "trixie", base: str = GOOD) -> str:
    return base.replace("trixie", suite) + "".join(f"  {line}\n" for line in "\n".join(lines).split("\n"))


def test_a_careful_descriptor_raises_nothing() -> None:
    assert found(GOOD) == set()


#: (the fault, as lines of a script, the rule that finds it, how grave it is)
SCRIPT_FAULTS = [
    # from the network
    ("wget https://example.org/x.tar.gz", "network-fetch", "warning"),
    ("curl -LO https://example.org/x.tar.gz", "network-fetch", "warning"),
    ("git clone https://example.org/y.git", "network-newest", "warning"),
    ("git -C y pull", "network-newest", "warning"),
    ("git submodule update --init", "network-fetch", "warning"),
    ("sudo apt-get -y install libfoo", "network-fetch", "warning"),
    ("pip install requests", "network-newest", "warning"),
    ("python3 -m pip install -U pip", "network-newest", "warning"),
    ("pip3 install lief==0.11.5", "network-fetch", "warning"),
    ("npm install left-pad", "network-newest", "warning"),
    ("npm ci", "network-fetch", "warning"),
    ("go get example.org/x", "network-newest", "warning"),
    ("go install example.org/x@latest", "network-newest", "warning"),
    ("cargo install ripgrep", "network-newest", "warning"),
    ("for u in a b; do wget https://example.org/$u; done", "network-fetch", "warning"),
    ("x=$(curl -s https://example.org/version)", "network-fetch", "warning"),
    ("wget http://example.org/x.tar.gz", "network-unchecked", "error"),
    ("curl -kLO https://example.org/x.tar.gz", "network-unchecked", "error"),
    ("wget --no-check-certificate https://example.org/x", "network-unchecked", "error"),
    ("git -c http.sslVerify=false clone https://example.org/y", "network-unchecked", "error"),
    ("curl -sSf https://example.org/install.sh | sh", "network-run", "error"),
    ("curl https://example.org/install.sh | sudo bash -s", "network-run", "error"),
    ("bash <(curl -s https://example.org/install.sh)", "network-run", "error"),
    ("eval \"$(wget -qO- https://example.org/env)\"", "network-run", "error"),
    ("bash -c 'curl https://example.org/x | python3'", "network-run", "error"),
    ("sudo apt-get install --allow-unauthenticated foo", "packages-unauthenticated", "error"),
    ("echo 'deb [trusted=yes] http://example.org/ ./' > /etc/apt/sources.list.d/x.list", "packages-unauthenticated",
     "error"),
    # the clock
    ("NOW=$(date)", "clock", "warning"),
    ("echo `date +%Y%m%d` > version.h", "clock", "warning"),
    ("VERSION=1.0-$(date -u +%F)", "clock", "warning"),
    ("sed -i \"s/@DATE@/$(date)/\" config.h", "clock", "warning"),
    ("echo $EPOCHSECONDS > stamp", "clock", "warning"),
    ("python3 -c 'import time; print(time.time())' > stamp", "clock", "warning"),
    ("date -d now +%s > stamp", "clock", "warning"),
    ("python3 - > stamp <<'E'\nimport datetime\nprint(datetime.datetime.now())\nE", "clock", "warning"),
    ("export SOURCE_DATE_EPOCH=$(date +%s)", "output-varies", "error"),
    ("date > $OUTDIR/built", "output-varies", "error"),
    ("cp x.tar.gz ${OUTDIR}/x-$(date +%Y%m%d).tar.gz", "output-varies", "error"),
    ("D=`date +%F`\nN=x-$D\ncp x \"$OUTDIR/$N.exe\"", "output-varies", "error"),
    # random numbers
    ("KEY=$RANDOM", "random", "warning"),
    ("head -c 16 /dev/urandom > seed", "random", "warning"),
    ("uuidgen > id", "random", "warning"),
    ("openssl rand -hex 16 > seed", "random", "warning"),
    ("openssl genrsa -out key.pem 2048", "random", "warning"),
    ("shuf words > list", "random", "warning"),
    ("sort -R words > list", "random", "warning"),
    ("ssh-keygen -t ed25519 -f key", "random", "warning"),
    ("python3 -c 'import uuid; print(uuid.uuid4())' > id", "random", "warning"),
    ("cp x $OUTDIR/x-$RANDOM", "output-varies", "error"),
    ("uuidgen > $OUTDIR/id", "output-varies", "error"),
    ("T=$(mktemp -d)", "temporary-name", "note"),
    ("echo built $(date)", "clock", "note"),
    # the machine and the locale
    ("make CFLAGS='-O2 -march=native'", "machine", "warning"),
    ("uname -r > built-on", "machine", "note"),
    ("LC_ALL=de_DE.UTF-8 make", "locale", "warning"),
    ("export LANG=tr_TR.UTF-8", "locale", "warning"),
    # the order of directories
    ("find x | tar -c --no-recursion --mtime=@0 -T - > x.tar", "directory-order", "warning"),
    ("find x -type f -print0 | xargs -0 sha256sum > sums", "directory-order", "warning"),
    ("find x -type f -exec cat {} + > all", "directory-order", "warning"),
    ("tar --mtime=@0 -cf x.tar x", "directory-order", "warning"),
    ("tar cf x.tar --mtime=@0 -C dir .", "directory-order", "warning"),
    ("ls -U > list", "directory-order", "warning"),
    ("touch -d @0 x; zip -Xr x.zip x", "directory-order", "warning"),
    ("cat $(find x -type f) > all", "directory-order", "warning"),
    ("find x | cpio -o > x.cpio", "directory-order", "warning"),
    # the times in archives
    ("tar -cf x.tar --sort=name x", "archive-times", "warning"),
    ("tar czf x.tgz a.txt", "archive-times", "warning"),
    ("find x | sort | tar -cf x.tar --no-recursion -T -", "archive-times", "warning"),
    ("find x | sort | zip -X@ x.zip", "archive-times", "warning"),
    ("find x -exec touch -d @0 {} +; find x | sort | zip -@ x.zip", "archive-times", "warning"),
    ("gzip -9 x.tar", "archive-times", "warning"),
    ("jar cf x.jar a.class", "archive-times", "warning"),
    ("7z a x.7z a.exe", "archive-times", "warning"),
]


@pytest.mark.parametrize(("lines", "rule", "severity"), SCRIPT_FAULTS, ids=[row[0][:60] for row in SCRIPT_FAULTS])
def test_planted_faults_of_scripts(lines: str, rule: str, severity: str) -> None:
    text = with_script(lines)
    matching = [finding for finding in findings_of(text) if finding.rule.id == rule]
    assert matching, found(text)
    assert severity in {finding.severity.word for finding in matching}
    first = GOOD.count("\n") + 1
    lines_of_it = {finding.line for finding in matching}
    assert lines_of_it <= set(range(first, first + lines.count("\n") + 1)), "and it names the line"


#: What careful scripts do, which raises nothing of these rules.
CAREFUL = [
    ("NOW=$(date -d \"$REFERENCE_DATETIME\" +%s)", "clock"),
    ("date -u --date=@1300000000 > stamp", "clock"),
    ("date -r file > stamp", "clock"),
    ("FAKETIME_PROGS=\"date tar\"\nX=$(date)", "clock"),
    ("export LD_PRELOAD=/usr/lib/faketime/libfaketime.so.1\nX=$(date)", "clock"),
    ("X=$(faketime '2011-01-01' date)", "clock"),
    ("echo 'the date is unknown'", "clock"),
    ("# date\ncat > f <<'E'\ndate\nE", "clock"),
    ("shuf --random-source=seed words > list", "random"),
    ("echo \"\\$RANDOM\" > text", "random"),
    ("cp x $OUTDIR/x-$VERSION", "output-varies"),
    ("T=$(mktemp -d)\ncp $T/x $OUTDIR/x", "output-varies"),
    ("find x | sort | tar -c --no-recursion --mtime=@0 -T - | gzip -9n > x.tar.gz", "directory-order"),
    ("find x -type f | LC_ALL=C sort | xargs sha256sum > sums", "directory-order"),
    ("find x -name '*.la' -delete; find x -exec strip {} +", "directory-order"),
    ("tar --sort=name --mtime=@0 -czf x.tgz x", "directory-order"),
    ("tar --mtime=@0 -czf x.tgz a.txt b.txt", "directory-order"),
    ("tar xf x.tar", "archive-times"),
    ("tar -cf - x | tar -xf - -C y", "archive-times"),
    ("export TAR_OPTIONS=--mtime=@0\ntar --sort=name -cf x.tar x", "archive-times"),
    ("find x -print0 | xargs -0 touch -d @0\nfind x | sort | zip -X@ x.zip", "archive-times"),
    ("FAKETIME_PROGS=zip\nfind x | sort | zip -X@ x.zip", "archive-times"),
    ("gzip -dc x.gz > x; gzip -9n y", "archive-times"),
    ("tar --sort=name -cf x.tar x; python3 ~/build/canon x.tar", "archive-times"),
    ("git archive --output=x.tar.gz HEAD", "archive-times"),
    ("pip install --no-index ./x.whl", "network-fetch"),
    ("git clone ./x y; git -C x log", "network-fetch"),
    ("go build ./...", "network-fetch"),
    ("echo 'use curl or wget'", "network-fetch"),
    ("wget() { :; }\nwget x", "network-fetch"),
    ("wget http://example.org/x; echo \"$SUM  x\" | sha256sum -c", "network-unchecked"),
    ("curl -LO https://example.org/x; ./x | sh", "network-run"),
    ("LC_ALL=C sort x > y; export LC_ALL=C.UTF-8", "locale"),
    ("make -j$(nproc)", "machine"),
]


@pytest.mark.parametrize(("lines", "rule"), CAREFUL, ids=[row[0][:60] for row in CAREFUL])
def test_careful_scripts_raise_nothing(lines: str, rule: str) -> None:
    assert [finding for finding in findings_of(with_script(lines)) if finding.rule.id == rule] == []


def test_old_gzip_writes_the_time_even_of_a_pipe() -> None:
    assert "archive-times" in found(with_script("cat x | gzip -9 > x.gz", suite="bionic"))
    assert "archive-times" not in found(with_script("cat x | gzip -9 > x.gz", suite="bookworm"))
    assert "archive-times" not in found(with_script("export GZIP=-9n\ncat x | gzip > x.gz", suite="bionic"))


#: (what is replaced, by what, the rule that finds it, the text of the line that it names)
DESCRIPTOR_FAULTS = [
    ('"trixie"', '"stretch"', "suite-end-of-life", '- "stretch"'),
    ('"trixie"', '"jammy"\n- "trixie"', None, ""),
    ('"trixie"', '"sid"', "suite-moves", '- "sid"'),
    ('"trixie"', '"potato"', "suite-unknown", '- "potato"'),
    ('- "make"', '- "make"\n- "gcc-4.8"', "compiler-end-of-life", '- "gcc-4.8"'),
    ('- "make"', '- "g++-7-arm-linux-gnueabihf"', "compiler-end-of-life", '- "g++-7-arm-linux-gnueabihf"'),
    ('- "make"', '- "clang-11"', "compiler-end-of-life", '- "clang-11"'),
    ('- "make"', '- "python2.7"', "compiler-end-of-life", '- "python2.7"'),
    ('- "make"', '- "gcc-14"', None, ""),
    ("files: []", 'repositories:\n- distribution: "x"\n  source: "deb http://example.org/x x main"\n  packages: ["y"]\n'
     "files: []", "repository-http", '  source: "deb http://example.org/x x main"'),
    ("files: []", 'repositories:\n- distribution: "x"\n  source: "deb [trusted=yes] https://example.org/x x main"\n'
     '  packages: ["y"]\nfiles: []', "repository-unsigned",
     '  source: "deb [trusted=yes] https://example.org/x x main"'),
    (f'  "commit": "{HASH}"\n', "", "remote-unpinned", '- "url": "https://example.org/x.git"'),
    (HASH, "master", "remote-moves", '  "commit": "master"'),
    (HASH, HASH[:12], "remote-moves", f'  "commit": "{HASH[:12]}"'),
    (HASH, "v1.0", "tag-not-checked", '  "commit": "v1.0"'),
    ("https://example.org/x.git", "git://example.org/x.git", "remote-insecure", '- "url": "git://example.org/x.git"'),
    ('  export SOURCE_DATE_EPOCH="$(date -u -d "$REFERENCE_DATETIME" +%s)"\n', "", "no-reference-date", "script: |"),
    ('  export SOURCE_DATE_EPOCH="$(date -u -d "$REFERENCE_DATETIME" +%s)"', '  export FAKETIME="$REFERENCE_DATETIME"',
     "source-date-epoch", "script: |"),
]


@pytest.mark.parametrize(("old", "new", "rule", "line"), DESCRIPTOR_FAULTS)
def test_planted_faults_of_descriptors(old: str, new: str, rule: str | None, line: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    matching = [finding for finding in findings_of(text) if finding.rule.id == rule]
    if rule is None:
        assert found(text) == set()
    else:
        assert [text.splitlines()[finding.line - 1] for finding in matching if finding.line] == [line]


def test_old_is_five_years() -> None:
    text = GOOD.replace('"trixie"', '"jammy"').replace('"make"', '"gcc-13"')
    document = run.Document(path=Path("x.yml"), kind="descriptor", data=text.encode())
    for day, expected in (("2027-04-20", set()), ("2027-04-22", {"suite-old"}), ("2027-06-02", {"suite-end-of-life"})):
        outcome = run.lint(document, Circumstances(today=datetime.date.fromisoformat(day)))
        assert {finding.rule.id for finding in outcome.findings} == expected, day
    outcome = run.lint(document, Circumstances(today=datetime.date(2028, 4, 27)))
    assert "compiler-old" in {finding.rule.id for finding in outcome.findings}


@pytest.mark.parametrize("script", ["sort|tar c x|" * 3000, "A=$(echo $(date $(x)))\n  " * 2000,
                                    "date -d " + "now" * 20000 + "!",
                                    "sudo " * 3000 + "date", "apt-get install " + "[" * 50000, '"$(' * 20000,
                                    "find x -exec find y -exec date {} + | xargs cat\n  " * 2000])
def test_hostile_scripts_end(script: str) -> None:
    findings_of(GOOD + f"  {script}\n")


def test_scripts_that_are_no_literal_block_are_named_as_a_whole() -> None:
    head = GOOD[:GOOD.index("script:")]
    for script in ('script: "make; export SOURCE_DATE_EPOCH=1; NOW=$(date)"\n',
                   "script: >\n  export SOURCE_DATE_EPOCH=1;\n  NOW=$(date)\n"):
        (finding,) = findings_of(head + script)
        assert (finding.rule.id, finding.line) == ("clock", GOOD[:GOOD.index("script:")].count("\n") + 1)


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[Path]:
    clone = tmp_path / "inputs" / "x"
    clone.mkdir(parents=True)
    who = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
           "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
           "GIT_COMMITTER_EMAIL": "a@example.org"}

    def git(*words: str, stdin: str | None = None) -> str:
        return subprocess.run(["git", *words], cwd=clone, env=who, check=True, stdout=subprocess.PIPE, text=True,
                              input=stdin if stdin is not None else "").stdout.strip()

    git("init", "-q", "-b", "release")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("tag", "bare")
    git("tag", "-a", "-m", "plain", "annotated")
    head = git("rev-parse", "HEAD")
    # Whether a tag carries a signature is asked, not whose: a real one is made as git makes it, by ssh-keygen.
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True,
                   stdin=subprocess.DEVNULL) if shutil.which("ssh-keygen") else None
    if (tmp_path / "key").exists():
        git("-c", "gpg.format=ssh", "-c", f"user.signingkey={tmp_path / 'key'}", "tag", "-s", "-m", "signed", "signed")
    made = git("mktag", stdin=f"object {head}\ntype commit\ntag pgp\ntagger a <a@example.org> 1300000000 +0000\n\nx\n"
               "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n")
    git("update-ref", "refs/tags/pgp", made)
    yield tmp_path / "inputs"


def test_tags_of_clones_are_looked_at(inputs: Path) -> None:
    expected = {"bare": {"tag-unsigned"}, "annotated": {"tag-unsigned"}, "pgp": set(), "release": {"remote-moves"},
                "nowhere": {"tag-not-checked"}}
    if shutil.which("ssh-keygen"):
        expected["signed"] = set()
    for name, rules in expected.items():
        assert found(GOOD.replace(HASH, name), inputs=inputs) == rules, name


def test_suppression() -> None:
    def one(text: str) -> list[tuple[str, str | None]]:
        return [(finding.rule.id, finding.suppressed) for finding in findings_of(text)]

    why = "# gitian-lint: ignore=clock only for the log"
    assert one(with_script(f"NOW=$(date)  {why}")) == [("clock", "only for the log")]
    assert one(with_script(f"{why}\n\nNOW=$(date)")) == [("clock", "only for the log")]
    assert one(GOOD + f"  {why}\n  true\n  NOW=$(date)\n") == [("clock", None), ("ignored-nothing", None)]
    assert one(with_script("NOW=$(date) # gitian-lint: ignore=clock")) == [
        ("clock", "no reason is given"), ("ignored-without-reason", None)]
    assert one(with_script("NOW=$(date) # gitian-lint: ignore=clok because")) == [
        ("clock", None), ("ignored-nothing", None)]
    assert one("# gitian-lint: ignore-file=clock,random we know\n" + with_script("A=$(date)", "B=$RANDOM")) == [
        ("clock", "we know"), ("random", "we know")]
    assert one(GOOD.replace('- "trixie"', '- "sid" # gitian-lint: ignore=suite-moves it is a trial')) == [
        ("suite-moves", "it is a trial")]
    # A command that goes on over lines is covered by a comment above it.
    long = ("# gitian-lint: ignore=network-fetch for a test", "wget -q \\", "  https://example.org/x")
    assert one(with_script(*long)) == [("network-fetch", "for a test")]
    assert find_comments("x # gitian-lint: ignore = a , b c d")[0].ids == ("a", "b")


def test_versions_sort_as_dpkg_sorts_them() -> None:
    # Debian policy 5.6.12, and what its examples say.
    ordered = ["~~", "~~a", "~", "", "0.9", "1.0~rc1", "1.0", "1.0-0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+dfsg", "1.0.1",
               "1.2", "1.10", "10", "a", "a+", "1:0.1", "2:0~a"]
    for number, one in enumerate(ordered):
        for other_number, other in enumerate(ordered):
            expected = (number > other_number) - (number < other_number)
            if {one, other} in ({"1.0", "1.0-0"},):
                expected = 0  # no revision is the revision 0
            got = compare(one, other)
            assert (got > 0) - (got < 0) == expected, (one, other)
    if shutil.which("dpkg"):
        pairs = [("1.0-1", "1.0-1ubuntu1"), ("7.5.0-3ubuntu1~18.04", "7.5.0-3ubuntu1"), ("2.31-13+deb11u5", "2.31-13"),
                 ("1.2.3-4", "1:1.0"), ("0.0.1", "00.00.1"), ("1.a", "1.+")]
        for one, other in pairs:
            older = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0
            assert (compare(one, other) < 0) == older, (one, other)


def test_names_of_packages() -> None:
    assert deb_of("g++-7_7.5.0-3ubuntu1~18.04_amd64.deb") == Deb(
        name="g++-7", version="7.5.0-3ubuntu1~18.04", architecture="amd64")
    assert deb_of("git_1%3a2.39.5-0_amd64.deb") == Deb(name="git", version="1:2.39.5-0", architecture="amd64")
    assert deb_of("nothing.deb") is None


MANIFEST = "".join(f"{'0' * 64}  {name}\n" for name in (
    "bash_5.0-4_amd64.deb", "gcc-8_8.3.0-6_amd64.deb", "git_1%3a2.20.1-2_amd64.deb"))
REPORT = f"""--- !!omap
- out_manifest: ''
- in_manifest: ''
- base_manifests: !!omap
  - buster-amd64: |
{''.join(f'      {line}' + chr(10) for line in MANIFEST.splitlines())}"""


def test_reports_and_environments(tmp_path: Path) -> None:
    record = {"version": 1, "suite": "buster", "architecture": "amd64", "sources": ["deb [trusted=yes] file:/x x main"],
              "packages": [{"name": "gcc-8", "version": "8.3.0-6", "architecture": "amd64", "sha256": "0" * 64},
                           {"name": "git", "version": "1:2.20.1-2", "architecture": "amd64", "sha256": "0" * 64}]}
    (tmp_path / "r.yml").write_text(REPORT)
    (tmp_path / "base-buster-amd64.manifest").write_text(MANIFEST)
    (tmp_path / "base-buster-amd64.json").write_text(json.dumps(record))
    offers = {("buster", "amd64", "git"): Offer(version="1:2.20.1-2+deb10u9", security=True),
              ("buster", "amd64", "bash"): Offer(version="5.0-4", security=False)}
    for name in ("r.yml", "base-buster-amd64.manifest", "base-buster-amd64.json"):
        document = run.read(tmp_path / name)
        assert document.kind == ("report" if name == "r.yml" else "environment")
        more = {"repository-unsigned"} if name.endswith("json") else set()
        outcome = run.lint(document, Circumstances(today=TODAY))
        assert {finding.rule.id for finding in outcome.findings} == {
            "suite-end-of-life", "compiler-end-of-life", "packages-not-compared"} | more
        outcome = run.lint(document, Circumstances(today=TODAY, offers=offers))
        outdated = [finding.message for finding in outcome.findings if finding.rule.id == "package-outdated"]
        assert outdated == ["'git' is 1:2.20.1-2; the archive has 1:2.20.1-2+deb10u9, a security update."]


def environment(*sources: str, base: str | None = "b" * 64) -> bytes:
    package = InstalledPackage(name="gcc-8", version="8.3.0-6", architecture="amd64", sha256="0" * 64)
    return EnvironmentFile(environments=(Environment(
        distro="debian", suite="buster", architecture="amd64", packages=(package,), base=base,
        sources=sources),)).to_json()


OWN = ("deb http://archive.example/debian buster main", "deb http://archive.example/debian buster-updates main",
       "deb http://security.example/debian-security buster/updates main")


@pytest.mark.parametrize("data, more", [
    (environment(*OWN), set()),
    (environment(*OWN, base=None), {"environment-no-base"}),
    (environment(), {"environment-no-sources"}),
    (environment(*OWN, "deb http://ppa.example/x buster main"), {"repository-http"}),
    (environment(*OWN, "deb https://ppa.example/x buster main"), set()),
    (environment(OWN[0], "deb [trusted=yes] https://ppa.example/x other main"), {"repository-unsigned"}),
    (environment(OWN[0].replace("deb ", "deb [arch=amd64 trusted=yes] ")), {"repository-unsigned"}),
    (environment("deb-src http://archive.example/debian buster main"), {"repository-http"}),
])
def test_environment_files(tmp_path: Path, data: bytes, more: set[str]) -> None:
    (tmp_path / "blessed").write_bytes(data)
    outcome = run.lint(run.read(tmp_path / "blessed"), Circumstances(today=TODAY, offers={}))
    assert {finding.rule.id for finding in outcome.findings} == {"suite-end-of-life", "compiler-end-of-life"} | more
    assert {finding.where for finding in outcome.findings} == {"buster-amd64"}


@pytest.mark.parametrize("data", [
    environment(*OWN).replace(b"/1", b"/2"), environment(*OWN).replace(b'"base"', b'"more": 1, "base"'),
    environment(*OWN).replace(b'"gcc-8"', b'"GCC"'), b'{"format": null}', b'{"environments": []}', b"{", b"{}",
    b'{"suite": "buster", "architecture": "amd64", "packages": [], "packages": []}', b'{"a":' * 100_000])
def test_what_is_no_environment_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "blessed").write_bytes(data)
    with pytest.raises(FormatError, match="blessed"):
        run.read(tmp_path / "blessed")


def lint(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    status = status_of(load("lint"), "lint", [str(word) for word in words])
    return status, capsys.readouterr().out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, worse = tmp_path / "good.yml", tmp_path / "bad.yml", tmp_path / "worse.yml"
    good.write_text(GOOD)
    bad.write_text(with_script("NOW=$(date)"))
    worse.write_text(with_script("curl https://example.org/x | sh"))
    where = ("-C", tmp_path, "--today", "2026-11-22")
    assert lint(capsys, good, *where) == (0, "0 errors, 0 warnings, 0 notes\n")
    status, said = lint(capsys, bad, *where)
    assert status == 0
    assert said.startswith(f"{bad}:20: warning: 'date' without a date to show reads the clock. [clock]\n")
    assert lint(capsys, bad, "--fail-on", "warning", *where)[0] == 1
    assert lint(capsys, bad, "--fail-on", "warning", "--ignore", "clock", *where)[0] == 0
    assert lint(capsys, good, worse, *where)[0] == 1
    assert lint(capsys, worse, "--fail-on", "never", *where)[0] == 0
    assert lint(capsys, bad, "--ignore", "nothing", *where)[0] == 2
    assert lint(capsys, *where)[0] == 2
    status, said = lint(capsys, worse, "--json", *where)
    (document,) = json.loads(said)
    assert {finding["rule"] for finding in document["findings"]} == {"network-fetch", "network-run"}
    (tmp_path / "not.yml").write_text("a: [")
    assert lint(capsys, tmp_path / "not.yml", *where)[0] == 16
    (tmp_path / "half.yml").write_text("name: x\n")
    assert lint(capsys, tmp_path / "half.yml", *where)[0] == 3
    assert len(lint(capsys, "--rules")[1].splitlines()) == len(RULES)


def test_indices_at_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yml").write_text(REPORT)
    index = tmp_path / "security_Packages.gz"
    index.write_bytes(gzip.compress(
        b"Package: git\nArchitecture: amd64\nVersion: 1:2.20.1-2+deb10u9\nDescription: x\n y\n\n"
        b"Package: bash\nArchitecture: i386\nVersion: 9\n"))
    status, said = lint(capsys, tmp_path / "r.yml", "--index", index, "--today", "2026-11-22", "--fail-on", "warning")
    assert status == 1
    assert "the archive has 1:2.20.1-2+deb10u9, a security update" in said
    assert "'bash'" not in said


def test_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The objects and properties that SARIF 2.1.0 requires: sections 3.13, 3.14, 3.19, 3.27, 3.28, 3.30, 3.35, 3.49."""
    path = tmp_path / "a descriptor.yml"
    lines = ("NOW=$(date) # gitian-lint: ignore=clock why not", "curl https://example.org/x |", "  sh")
    path.write_text(with_script(*lines))
    assert lint(capsys, path, "--sarif", tmp_path / "x.sarif", "--today", "2026-11-22")[0] == 1
    document = json.loads((tmp_path / "x.sarif").read_text())
    assert json.loads(lint(capsys, path, "--sarif", "-", "--today", "2026-11-22")[1]) == document
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-schema-2.1.0.json")
    (one,) = document["runs"]
    rules = one["tool"]["driver"]["rules"]
    assert one["tool"]["driver"]["name"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert {result["ruleId"] for result in one["results"]} == {"clock", "network-fetch", "network-run"}
    for result in one["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"].endswith("a%20descriptor.yml")
        artifact = one["artifacts"][place["artifactLocation"]["index"]]
        assert artifact["location"]["uri"] == place["artifactLocation"]["uri"]
        assert 1 <= place["region"]["startLine"] <= place["region"]["endLine"]
        suppressed = result.get("suppressions", [])
        assert [entry["kind"] for entry in suppressed] == (["inSource"] if result["ruleId"] == "clock" else [])
    assert {result["partialFingerprints"]["gitian/v1"] for result in one["results"]} != set()


PAGE = (ROOT / "docs" / "reference" / "lint.md").read_text()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_is_explained_where_it_says(rule: Any) -> None:
    assert rule.anchor == f"docs/reference/lint.md#{rule.id}"
    section = re.search(rf"^### {rule.id}\n+(.+?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert re.match(rf"\*{rule.severity.word}\*", section[1]), "its severity stands first"


def test_every_option_is_explained() -> None:
    for parameter in load("lint").params:
        for name in parameter.opts:
            if name.startswith("--"):
                assert f"`{name}" in PAGE, name


def test_the_tables_of_ages_are_in_order() -> None:
    for table in (SUITES, GCC, LLVM):
        for name, age in table.items():
            assert age.end is None or age.released < age.end, name
    for series in (GCC, LLVM):
        dates = [age.released for age in series.values()]
        assert dates == sorted(dates)


@needs_shared
def test_real_descriptors_raise_no_false_error() -> None:
    """All findings of these were reviewed by hand: docs/explanation/lint-review.md. None is an error."""
    counted = 0
    for project in ("zcash", "monero", "bitcoin"):
        for path in sorted((FIXTURES / "descriptors" / project).rglob("*.yml")):
            outcome = run.lint(run.read(path), Circumstances(today=TODAY))
            assert [finding for finding in outcome.findings if finding.severity == Severity.ERROR] == [], path
            counted += 1
    assert counted > 40


@needs_shared
@pytest.mark.parametrize(("name", "expected"), [
    ("zcash/v6.12.0/gitian-linux-parallel.yml", {"suite-end-of-life"}),
    ("monero/v0.18.0.0/gitian-android.yml", {"suite-end-of-life", "compiler-end-of-life"}),
    ("bitcoin/2021-06-10-8732f7b6/gitian-linux.yml", {"suite-end-of-life", "compiler-end-of-life", "network-fetch"}),
    ("bitcoin/v0.21.2rc1/gitian-osx-signer.yml", {"suite-end-of-life", "network-fetch", "network-newest"}),
])
def test_the_last_releases_raise_the_warnings_that_were_reviewed(name: str, expected: set[str]) -> None:
    outcome = run.lint(run.read(FIXTURES / "descriptors" / name), Circumstances(today=TODAY))
    assert {finding.rule.id for finding in outcome.findings if finding.severity >= Severity.WARNING} == expected


@needs_shared
def test_real_assertions_can_be_linted() -> None:
    paths = sorted((FIXTURES / "sigs").rglob("*-build.assert"))[::12]
    assert len(paths) > 5
    for path in paths:
        outcome = run.lint(run.read(path), Circumstances(today=TODAY))
        assert {finding.rule.id for finding in outcome.findings} & {"suite-end-of-life", "packages-not-compared"}, path
