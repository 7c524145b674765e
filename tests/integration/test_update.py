"""gitian update with real keys, real packages and, where it matters, the program as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitian.errors import (
    ContentError,
    DestinationError,
    DowngradeError,
    DownloadError,
    PackageError,
    UntrustedError,
    WaitingError,
    WrongPackageError,
)
from gitian.update import config, trust, updater
from tests.integration import update_kit as kit

FILES = {"bin/demo": b"#!/bin/sh\necho one\n", "share/demo/text": b"one\n", "README": b"read me\n"}
NEWER = {"bin/demo": b"#!/bin/sh\necho two\n", "share/demo/new": b"two\n", "README": b"read me\n"}
WEIGHTS = {"alice": 20, "bob": 20, "carol": 20}


@pytest.fixture(scope="module")
def keyring() -> Iterator[kit.Keys]:
    with kit.keys() as found:
        yield found


@pytest.fixture
def trusted(keyring: kit.Keys) -> config.Configuration:
    return kit.configuration(keyring, WEIGHTS, minimum=40)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[kit.Server]:
    found = kit.Server()
    found.start()
    yield found
    found.stop()


Do = Callable[..., updater.Outcome]


@pytest.fixture
def do(tmp_path: Path, trusted: config.Configuration) -> Do:
    """Run one update of tmp_path/'app'."""

    def run(*sources: str | Path, configuration: config.Configuration = trusted, now: float | None = None,
            **options: object) -> updater.Outcome:
        request = updater.Request(destination=tmp_path / "app", configuration=configuration,
                                  sources=tuple(map(str, sources)), **options)  # type: ignore[arg-type]
        return updater.update(request) if now is None else updater.update(request, now=lambda: now)

    return run


def test_install_and_update_from_a_zip(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    app = tmp_path / "app"
    first = kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "1.zip")
    outcome = do(first)
    assert outcome.result is updater.Result.INSTALLED
    assert outcome.agreed is not None and outcome.agreed.weight == 40
    assert kit.tree(app) == FILES
    assert os.access(app / "bin/demo", os.X_OK) and not (app / "README").stat().st_mode & 0o111
    # What the user keeps there stays, be it between the files of the release.
    (app / "wallet.dat").write_bytes(b"precious")
    (app / "share/demo/mine").write_bytes(b"mine")
    (app / "plugins/empty").mkdir(parents=True)
    (app / "link").symlink_to("/nowhere")
    identity = (app / "wallet.dat").stat().st_ino
    outcome = do(kit.package(keyring, NEWER, ["bob", "carol"], release="1.1").zip(tmp_path / "2.zip"))
    assert outcome.result is updater.Result.UPGRADED and outcome.before == "1.0"
    assert kit.tree(app) == {**NEWER, "wallet.dat": b"precious", "share/demo/mine": b"mine", "plugins/empty": "",
                             "link": "/nowhere"}
    assert (app / "wallet.dat").stat().st_ino == identity
    left = sorted(path.name for path in (tmp_path / ".app.gitian").iterdir())
    assert left == ["lock"]


def test_a_directory_is_a_package_too(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    source = kit.package(keyring, FILES, ["alice", "bob"]).directory(tmp_path / "package")
    (source / "bin/demo").chmod(0o755)
    assert do(f"file://{source}").result is updater.Result.INSTALLED
    assert kit.tree(tmp_path / "app") == FILES
    assert stat.S_IMODE((tmp_path / "app/bin/demo").stat().st_mode) & 0o111


def test_keys_may_lie_beside_the_configuration(keyring: kit.Keys, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    for name in WEIGHTS:
        (tmp_path / f"conf/{name}.asc").write_bytes(keyring.public(name))
    (tmp_path / "conf/update.yml").write_text(kit.configuration_text(keyring, WEIGHTS, minimum=60))
    parts = kit.package(keyring, FILES, list(WEIGHTS), carried=False)
    done = kit.gitian("update", "-c", tmp_path / "conf/update.yml", "-d", tmp_path / "app", "--json",
                      parts.zip(tmp_path / "p.zip"), HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["result"] == "installed" and said["weight"] == 60
    assert {signer["fingerprint"] for signer in said["signers"]} == {keyring.fingerprint(name) for name in WEIGHTS}
    assert kit.tree(tmp_path / "app") == FILES


def test_a_signing_subkey_may_be_what_the_configuration_names(keyring: kit.Keys, do: Do, tmp_path: Path) -> None:
    primary = keyring.fingerprint("sub")
    keyring.gpg("--quick-add-key", primary, "ed25519", "sign", "never")
    listed = keyring.gpg("--with-colons", "--list-keys", primary).decode().splitlines()
    subkey = [line.split(":")[9] for line in listed if line.startswith("fpr")][1]
    text = f"minimum_weight: 1\nsigners:\n  '{subkey}': {{weight: 1, name: Sub, key: sub}}\n"
    outcome = do(kit.package(keyring, FILES, ["sub"]).zip(tmp_path / "p.zip"),
                 configuration=config.parse(text.encode(), "test"))
    assert outcome.agreed is not None
    assert [witness.fingerprint for witness in outcome.agreed.witnesses] == [primary]


# What must not be installed. Each case gets a destination with release 1.0, which must stay as it is.


@pytest.fixture
def settled(do: Do, keyring: kit.Keys, tmp_path: Path) -> Iterator[kit.Parts]:
    """A destination with 1.0 and a file of the user's; yields a good package of 1.1 for the test to spoil."""
    do(kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "settled.zip"))
    (tmp_path / "app/mine").write_bytes(b"mine")
    before = kit.tree(tmp_path / "app")
    inode = (tmp_path / "app").stat().st_ino
    yield kit.package(keyring, NEWER, ["alice", "bob"], release="1.1")
    assert kit.tree(tmp_path / "app") == before
    assert (tmp_path / "app").stat().st_ino == inode
    assert json.loads((tmp_path / "app/.gitian-manifest").read_bytes())["release"] == "1.0"
    assert not (tmp_path / ".app.gitian/stage").exists()


def test_too_little_weight(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    del settled.files["gitian/bob-build.assert.sig"]
    with pytest.raises(UntrustedError, match=r"weigh 20, less than the 40(.|\n)*bob-build.assert': there is no sig"):
        do(settled.zip(tmp_path / "p.zip"))


def test_one_signer_twice_counts_once(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    for suffix in ("", ".sig"):
        settled.files[f"gitian/bob-build.assert{suffix}"] = settled.files[f"gitian/alice-build.assert{suffix}"]
    with pytest.raises(UntrustedError, match="weigh 20"):
        do(settled.zip(tmp_path / "p.zip"))


def test_strangers_do_not_count(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    other = kit.package(keyring, NEWER, ["alice", "mallory"], release="1.1")
    with pytest.raises(UntrustedError, match="weigh 20"):
        do(other.zip(tmp_path / "p.zip"))


def test_a_key_file_with_another_key(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    """Mallory's key under Bob's name, with Mallory's signature: the full fingerprint decides."""
    content = settled.files["gitian/bob-build.assert"]
    settled.files["gitian/bob-build.assert.sig"] = keyring.sign("mallory", content)
    settled.files["gitian/bob-key.pgp"] = keyring.public("mallory")
    with pytest.raises(UntrustedError, match="does not hold the key of bob"):
        do(settled.zip(tmp_path / "p.zip"))


def test_a_changed_assertion(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    settled.files["gitian/bob-build.assert"] += b"\n"
    with pytest.raises(UntrustedError, match="does not belong to this file"):
        do(settled.zip(tmp_path / "p.zip"))


def test_a_revoked_key(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    parts = kit.package(keyring, NEWER, ["alice", "rev"], release="1.1")
    fingerprint = keyring.fingerprint("rev")
    certificate = (keyring.home / f"openpgp-revocs.d/{fingerprint}.rev").read_bytes().replace(b":-----", b"-----")
    configuration = kit.configuration(keyring, {"alice": 20, "rev": 20}, minimum=40)
    parts.files["gitian/rev-key.pgp"] += certificate
    with pytest.raises(UntrustedError, match="is revoked"):
        do(parts.zip(tmp_path / "p.zip"), configuration=configuration)


def test_a_key_that_expired(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    """What was signed before counts, with a remark."""
    keyring.fingerprint("old", expire="20210101T000000")
    configuration = kit.configuration(keyring, {"old": 1}, minimum=1)
    outcome = do(kit.package(keyring, FILES, ["old"], when="20200601T000000").zip(tmp_path / "p.zip"),
                 configuration=configuration)
    assert outcome.agreed is not None
    assert outcome.agreed.witnesses[0].remark == "the key has expired since"


def test_signers_that_contradict_each_other(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    other = kit.package(keyring, {**NEWER, "README": b"evil"}, ["carol"], release="1.1")
    settled.files.update({path: data for path, data in other.files.items() if "carol" in path})
    with pytest.raises(UntrustedError, match="contradict each other"):
        do(settled.zip(tmp_path / "p.zip"))


def test_signatures_of_an_old_release_put_to_a_new_one(settled: kit.Parts, do: Do, keyring: kit.Keys,
                                                       tmp_path: Path) -> None:
    other = kit.package(keyring, FILES, ["bob"])
    settled.files.update({path: data for path, data in other.files.items() if "bob" in path})
    with pytest.raises(UntrustedError, match="contradict each other"):
        do(settled.zip(tmp_path / "p.zip"))


def test_another_program(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    other = kit.package(keyring, NEWER, ["alice", "bob"], name="other", release="1.1").zip(tmp_path / "p.zip")
    with pytest.raises(WrongPackageError, match="'other', not 'demo'"):
        do(other)
    nameless = kit.configuration_text(keyring, WEIGHTS, minimum=40).replace("name: demo\n", "", 1)
    with pytest.raises(WrongPackageError, match="'demo' is installed"):
        do(other, configuration=config.parse(nameless.encode(), "test"), force=True)


def test_an_old_release_replayed(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    old = kit.package(keyring, NEWER, ["alice", "bob"], release="0.9").zip(tmp_path / "p.zip")
    with pytest.raises(DowngradeError, match=r"'0\.9' is older than the installed '1\.0'"):
        do(old)
    early = kit.package(keyring, NEWER, ["alice", "bob"], release="1.0rc3").zip(tmp_path / "rc.zip")
    with pytest.raises(DowngradeError):
        do(early)
    unclear = kit.package(keyring, NEWER, ["alice", "bob"], release="test").zip(tmp_path / "unclear.zip")
    with pytest.raises(DowngradeError, match="Nobody can tell"):
        do(unclear)
    assert do(old, force=True, dry_run=True).result is updater.Result.DOWNGRADED


def test_an_old_build_of_the_same_release_replayed(settled: kit.Parts, do: Do, keyring: kit.Keys,
                                                   tmp_path: Path) -> None:
    early = kit.package(keyring, NEWER, ["alice", "bob"], when="20200601T000000").zip(tmp_path / "p.zip")
    with pytest.raises(DowngradeError, match="Another build of release"):
        do(early)
    late = kit.package(keyring, NEWER, ["alice", "bob"], when="20990601T000000").zip(tmp_path / "q.zip")
    assert do(late, dry_run=True).result is updater.Result.REINSTALLED


def test_a_changed_file(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    settled.files["bin/demo"] += b"evil"
    with pytest.raises(ContentError, match="'bin/demo' is not what was signed"):
        do(settled.zip(tmp_path / "p.zip"))


def test_a_missing_file(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    del settled.files["bin/demo"]
    with pytest.raises(ContentError, match="'bin/demo' is missing"):
        do(settled.zip(tmp_path / "p.zip"))


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", "C:/evil", "a\\evil", "a//b", "./x",
                                  ".gitian-manifest", "new\nline"])
def test_paths_that_lead_out(settled: kit.Parts, do: Do, tmp_path: Path, path: str) -> None:
    settled.files[path] = b"evil"
    with pytest.raises(PackageError, match="which is refused"):
        do(settled.zip(tmp_path / "p.zip"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", ".gitian-manifest"])
def test_a_manifest_that_leads_out(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path, path: str) -> None:
    """Even when all signers agree on it."""
    parts = kit.package(keyring, {**NEWER, path: b"evil"}, ["alice", "bob"], release="1.1")
    del parts.files[path]
    with pytest.raises(PackageError, match="which is refused"):
        do(parts.zip(tmp_path / "p.zip"))


def test_names_that_differ_only_in_case(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    settled.files["readme"] = b"evil"
    with pytest.raises(PackageError, match="get into each other's way"):
        do(settled.zip(tmp_path / "p.zip"))


def test_a_member_twice(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    source = settled.zip(tmp_path / "p.zip")
    with zipfile.ZipFile(source, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("README", b"evil")
    with pytest.raises(PackageError, match="get into each other's way"):
        do(source)


def test_a_symbolic_link_in_a_zip(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    source = settled.zip(tmp_path / "p.zip")
    with zipfile.ZipFile(source, "a") as archive:
        link = zipfile.ZipInfo("passwd")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"/etc/passwd")
    with pytest.raises(PackageError, match="symbolic link"):
        do(source)


def test_a_symbolic_link_in_a_directory(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    source = settled.directory(tmp_path / "package")
    (source / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(PackageError, match="symbolic link"):
        do(source)


def test_a_zip_bomb(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    bomb = bytes(8 * 2**20)
    parts = kit.package(keyring, {**NEWER, "bomb": bomb}, ["alice", "bob"], release="1.1")
    small = kit.configuration(keyring, WEIGHTS, minimum=40, maximum_size="4")
    with pytest.raises(PackageError, match="at most 4194304 are accepted"):
        do(parts.zip(tmp_path / "p.zip"), configuration=small)


def test_a_zip_bomb_of_assertions(settled: kit.Parts, do: Do, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are small in the zip, and were all held in memory at once."""
    monkeypatch.setattr(trust, "LARGEST_EVIDENCE", 2**20)
    for number in range(20):
        settled.files[f"gitian/z{number}-build.assert"] = b" " * 2**17
        settled.files[f"gitian/z{number}-build.assert.sig"] = settled.files["gitian/bob-build.assert.sig"]
    with pytest.raises(PackageError, match="have more than 1048576 bytes together"):
        do(settled.zip(tmp_path / "p.zip"))


def test_a_zip_bomb_that_lies_about_its_size(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    """README is said to have 8 bytes and swells to 64 MiB; reading stops at once."""
    source = settled.zip(tmp_path / "p.zip")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(64 * 2**20)) + packer.flush()
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        directory = archive.start_dir
    at = data.index(b"PK\1\2", directory)
    while data[at + 46:at + 46 + 6] != b"README":
        at = data.index(b"PK\1\2", at + 4)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, 0, len(packed), 8, 6, 0) + b"README" + packed
    struct.pack_into("<HL", data, at + 8, 0, 0)
    struct.pack_into("<H3L", data, at + 10, 8, 0, 0, len(packed))
    struct.pack_into("<L", data, at + 24, 8)
    struct.pack_into("<L", data, at + 42, directory)
    data[directory:directory] = local
    end = data.rindex(b"PK\5\6")
    struct.pack_into("<L", data, end + 16, directory + len(local))
    source.write_bytes(data)
    with pytest.raises(PackageError, match="is damaged|longer than"):
        do(source)


def test_members_that_overlap(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    source = settled.zip(tmp_path / "p.zip")
    data = bytearray(source.read_bytes())
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42:second + 46] = data[first + 42:first + 46]
    source.write_bytes(data)
    with pytest.raises(PackageError, match="overlap"):
        do(source)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_zip_that_was_cut_off(settled: kit.Parts, do: Do, tmp_path: Path, share: float) -> None:
    source = settled.zip(tmp_path / "p.zip")
    data = source.read_bytes()
    source.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(PackageError, match="not a whole zip file"):
        do(source)


def test_an_error_page_instead_of_a_zip(settled: kit.Parts, do: Do, server: kit.Server) -> None:
    server.documents["/p.zip"] = kit.Served(b"<html>not here any more</html>" * 9)
    with pytest.raises(PackageError, match="not a whole zip file"):
        do(f"{server.url}/p.zip")


def test_flipped_bits_anywhere(settled: kit.Parts, do: Do, tmp_path: Path) -> None:
    """Whatever is damaged, it is an error of ours, and nothing is installed."""
    from gitian.errors import GitianError

    data = settled.zip(tmp_path / "good.zip").read_bytes()
    for position in range(0, len(data), len(data) // 60):
        bad = bytearray(data)
        bad[position] ^= 0x41
        (tmp_path / "p.zip").write_bytes(bad)
        try:
            outcome = do(tmp_path / "p.zip", dry_run=True)
        except GitianError as error:
            assert 20 <= error.exit_code <= 29
        else:  # a bit that means nothing: a time, an attribute
            assert outcome.agreed is not None and outcome.agreed.sums == {p: kit.digest(d) for p, d in NEWER.items()}


def test_a_file_of_the_users_in_the_way(settled: kit.Parts, do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    clash = kit.package(keyring, {**NEWER, "mine": b"theirs"}, ["alice", "bob"], release="1.1")
    with pytest.raises(DestinationError, match="'mine' in .* was not installed by us"):
        do(clash.zip(tmp_path / "p.zip"))
    below = kit.package(keyring, {**NEWER, "mine/deep": b"theirs"}, ["alice", "bob"], release="1.1")
    with pytest.raises(DestinationError, match="in the way of"):
        do(below.zip(tmp_path / "q.zip"))


def test_dry_run(settled: kit.Parts, tmp_path: Path, keyring: kit.Keys) -> None:
    (tmp_path / "update.yml").write_text(kit.configuration_text(keyring, WEIGHTS, minimum=40))
    done = kit.gitian("update", "-c", tmp_path / "update.yml", "-d", tmp_path / "app", "--dry-run",
                      "--post", f"touch {tmp_path}/ran", settled.zip(tmp_path / "p.zip"))
    assert done.returncode == 0, done.stderr
    assert "would be updated from 1.0 to 1.1" in done.stdout
    assert not (tmp_path / "ran").exists()


# What is allowed, and what happens around it


def test_unlisted_files_are_not_installed(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    parts = kit.package(keyring, FILES, ["alice", "bob"])
    parts.files["bin/extra"] = b"evil"
    outcome = do(parts.zip(tmp_path / "p.zip"))
    assert outcome.unlisted == ("bin/extra",)
    assert kit.tree(tmp_path / "app") == FILES


def test_optionals_may_be_missing(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    parts = kit.package(keyring, {**FILES, "debug": b"symbols"}, ["alice", "bob"], optionals=["debug"])
    del parts.files["debug"]
    outcome = do(parts.zip(tmp_path / "p.zip"))
    assert outcome.missing == ("debug",)
    assert kit.tree(tmp_path / "app") == FILES


def test_a_damaged_optional_is_not_a_missing_one(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    parts = kit.package(keyring, {**FILES, "debug": b"symbols"}, ["alice", "bob"], optionals=["debug"])
    parts.files["debug"] = b"evil"
    with pytest.raises(ContentError):
        do(parts.zip(tmp_path / "p.zip"))
    assert not (tmp_path / "app").exists()


def test_the_same_again_is_nothing_to_do_and_repairs(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    source = kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "p.zip")
    do(source)
    inode = (tmp_path / "app").stat().st_ino
    assert do(source).result is updater.Result.CURRENT
    assert (tmp_path / "app").stat().st_ino == inode
    (tmp_path / "app/bin/demo").write_bytes(b"damaged")
    assert do(source).result is updater.Result.REINSTALLED
    assert kit.tree(tmp_path / "app") == FILES


def test_force_goes_back(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    do(kit.package(keyring, NEWER, ["alice", "bob"], release="1.10").zip(tmp_path / "new.zip"))
    old = kit.package(keyring, FILES, ["alice", "bob"], release="1.9").zip(tmp_path / "old.zip")
    with pytest.raises(DowngradeError):
        do(old)
    assert do(old, force=True).result is updater.Result.DOWNGRADED
    assert kit.tree(tmp_path / "app") == FILES


def test_what_the_classic_updater_installed_is_updated(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    app = tmp_path / "app"
    kit.Parts({**FILES, "gitian/alice-build.assert": b"x", "mine": b"mine"}).directory(app)
    sums = "".join(f"  {path}: {kit.digest(data)}\n" for path, data in FILES.items())
    (app / ".gitian-manifest").write_text("name: demo\noptionals: []\nrelease: '0.8'\nsums:\n" + sums
                                          + "  gitian/alice-build.assert: abc\n")
    outcome = do(kit.package(keyring, NEWER, ["alice", "bob"]).zip(tmp_path / "p.zip"))
    assert outcome.before == "0.8"
    assert kit.tree(app) == {**NEWER, "mine": b"mine"}


def test_a_destination_with_something_else_in_it(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/thesis.tex").write_bytes(b"years of work")
    source = kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "p.zip")
    with pytest.raises(DestinationError, match="is not empty"):
        do(source, force=True)
    assert kit.tree(tmp_path / "app") == {"thesis.tex": b"years of work"}


def test_a_destination_that_is_a_link(do: Do, keyring: kit.Keys, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "app").symlink_to("real")
    do(kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "p.zip"))
    assert (tmp_path / "app").is_symlink()
    assert kit.tree(tmp_path / "real") == FILES


def test_post_is_a_list_of_words_and_no_shell(keyring: kit.Keys, tmp_path: Path) -> None:
    (tmp_path / "update.yml").write_text(kit.configuration_text(keyring, WEIGHTS, minimum=40))
    source = kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "p.zip")
    tool = tmp_path / "post.sh"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$GITIAN_RELEASE" "$@" > "$0.out"\n')
    tool.chmod(0o755)
    words: list[str | Path] = ["update", "-c", tmp_path / "update.yml", "-d", tmp_path / "app", source]
    done = kit.gitian(*words, "--post", f"{tool} 'two words' ;touch $(id) &")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "post.sh.out").read_text().splitlines() == [
        str(tmp_path / "app"), "1.0", "two words", ";touch", "$(id)", "&"]
    again = kit.gitian(*words, "--force", "--post", "false")
    assert again.returncode == 29
    assert "is installed all the same" in again.stderr
    assert kit.tree(tmp_path / "app") == FILES


def test_control_characters_do_not_reach_the_terminal(keyring: kit.Keys, tmp_path: Path) -> None:
    (tmp_path / "update.yml").write_text(kit.configuration_text(keyring, WEIGHTS, minimum=40))
    parts = kit.package(keyring, FILES, ["alice", "bob"])
    parts.files["gitian/\x9b2Jx.assert"] = b"x"
    parts.files["un\u202elisted"] = b"x"
    done = kit.gitian("update", "-c", tmp_path / "update.yml", "-d", tmp_path / "app", parts.zip(tmp_path / "p.zip"))
    assert done.returncode == 21
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()


def test_two_at_a_time(keyring: kit.Keys, do: Do, tmp_path: Path) -> None:
    from gitian.errors import BusyError
    from gitian.update.destination import Destination

    source = kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "p.zip")
    with Destination.held(tmp_path / "app"), pytest.raises(BusyError):
        do(source)


# Waiting


def test_the_waiting_period(keyring: kit.Keys, do: Do, tmp_path: Path) -> None:
    careful = kit.configuration(keyring, WEIGHTS, minimum=40, waiting_period="24")
    first = kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "1.zip")
    assert do(first, configuration=careful, now=0).result is updater.Result.INSTALLED  # nothing to be careful about yet
    second = kit.package(keyring, NEWER, ["alice", "bob"], release="1.1").zip(tmp_path / "2.zip")
    with pytest.raises(WaitingError, match=r"'1\.1' is good. It waits for 24\.00 hours"):
        do(second, configuration=careful, now=1000)
    second.unlink()  # it was kept
    with pytest.raises(WaitingError, match=r"another 12\.00 hours"):
        do(second, configuration=careful, now=1000 + 12 * 3600)
    assert kit.tree(tmp_path / "app") == FILES
    outcome = do(second, configuration=careful, now=1000 + 24 * 3600)
    assert outcome.result is updater.Result.UPGRADED
    assert kit.tree(tmp_path / "app") == NEWER
    assert not (tmp_path / ".app.gitian/waiting").exists()


def test_what_waited_is_checked_again(keyring: kit.Keys, do: Do, tmp_path: Path) -> None:
    careful = kit.configuration(keyring, WEIGHTS, minimum=40, waiting_period="24")
    do(kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "1.zip"), configuration=careful)
    second = kit.package(keyring, NEWER, ["alice", "bob"], release="1.1").zip(tmp_path / "2.zip")
    with pytest.raises(WaitingError):
        do(second, configuration=careful, now=0)
    (tmp_path / ".app.gitian/waiting/package/README").write_bytes(b"evil")
    with pytest.raises(ContentError):
        do(second, configuration=careful, now=25 * 3600)
    assert kit.tree(tmp_path / "app") == FILES
    assert do(second, configuration=careful, wait=0).result is updater.Result.UPGRADED


def test_a_clock_that_was_set_back_starts_the_wait_again(keyring: kit.Keys, do: Do, tmp_path: Path) -> None:
    careful = kit.configuration(keyring, WEIGHTS, minimum=40, waiting_period="24")
    do(kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "1.zip"), configuration=careful)
    second = kit.package(keyring, NEWER, ["alice", "bob"], release="1.1").zip(tmp_path / "2.zip")
    for now, hours in ((100 * 3600, "24.00"), (50 * 3600, "24.00"), (60 * 3600, "14.00")):
        with pytest.raises(WaitingError, match=hours):
            do(second, configuration=careful, now=now)


# Places


def test_urls_and_version_urls(keyring: kit.Keys, do: Do, server: kit.Server, tmp_path: Path) -> None:
    text = kit.configuration_text(keyring, WEIGHTS, minimum=40) + (
        f"urls:\n- url: {server.url}/gone.zip\n- url: {server.url}/p.zip\n  version_url: {server.url}/version\n")
    places = config.parse(text.encode(), "test")
    server.documents["/p.zip"] = kit.Served(
        kit.package(keyring, FILES, ["alice", "bob"]).zip(tmp_path / "1.zip").read_bytes())
    server.documents["/version"] = kit.Served(b"1.0\n")
    assert do(configuration=places).result is updater.Result.INSTALLED
    assert [path for path, _ in server.requests] == ["/gone.zip", "/version", "/p.zip"]
    server.requests.clear()
    assert do(configuration=places).result is updater.Result.CURRENT
    assert [path for path, _ in server.requests] == ["/gone.zip", "/version"]
    # It is not known that there is anything newer at the place that is gone; if it were, that would be an error.
    # The announcement promises a newer release, and the package is the old one: a replay.
    server.documents["/version"] = kit.Served(b"1.1\n")
    with pytest.raises(WrongPackageError, match=r"announced as release '1\.1', and is '1\.0'"):
        do(configuration=places)
    server.documents["/p.zip"] = kit.Served(
        kit.package(keyring, NEWER, ["alice", "bob"], release="1.1").zip(tmp_path / "2.zip").read_bytes())
    assert do(configuration=places).result is updater.Result.UPGRADED


def test_a_bad_mirror_does_not_keep_us_from_a_good_one(keyring: kit.Keys, do: Do, server: kit.Server,
                                                       tmp_path: Path) -> None:
    text = kit.configuration_text(keyring, WEIGHTS, minimum=40) + f"urls: ['{server.url}/bad', '{server.url}/good']\n"
    good = kit.package(keyring, FILES, ["alice", "bob"])
    server.documents["/good"] = kit.Served(good.zip(tmp_path / "1.zip").read_bytes())
    good.files["README"] = b"evil"
    server.documents["/bad"] = kit.Served(good.zip(tmp_path / "2.zip").read_bytes())
    assert do(configuration=config.parse(text.encode(), "test")).result is updater.Result.INSTALLED
    assert kit.tree(tmp_path / "app") == FILES


RSS = """<?xml version="1.0"?><rss version="2.0"><channel><title>files</title>
<item><title>x</title><link>{url}/demo-1.0-src.zip</link></item>
<item><title>x</title><link><![CDATA[{url}/demo-1.0-linux.zip]]></link></item>
<item><title>x</title><link>{url}/demo-1.10-linux.zip</link></item>
<item><title>x</title><link>{url}/demo-1.9-linux.zip</link></item></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><entry><link rel="alternate" href="demo-1.10-linux.zip"/></entry>
<entry><link href="demo-1.9-linux.zip"/></entry></feed>"""


@pytest.mark.parametrize("body, xpath", [(RSS, "//item/link/text()"), (RSS, None), (ATOM, "//entry/link/@href"),
                                         (ATOM, None)])
def test_feeds(keyring: kit.Keys, do: Do, server: kit.Server, tmp_path: Path, body: str, xpath: str | None) -> None:
    server.documents["/feed"] = kit.Served(body.format(url=server.url).encode())
    server.documents["/demo-1.10-linux.zip"] = kit.Served(
        kit.package(keyring, FILES, ["alice", "bob"], release="1.10").zip(tmp_path / "p.zip").read_bytes())
    text = kit.configuration_text(keyring, WEIGHTS, minimum=40) + (
        f"rss:\n- url: {server.url}/feed\n  pattern: demo-(\\d+.\\d+)-linux.zip\n"
        + (f"  xpath: {xpath}\n" if xpath else ""))
    outcome = do(configuration=config.parse(text.encode(), "test"))
    assert outcome.release == "1.10"
    assert do(configuration=config.parse(text.encode(), "test")).result is updater.Result.CURRENT
    assert len([path for path, _ in server.requests if path.endswith(".zip")]) == 1


def test_a_feed_with_entities_is_refused(keyring: kit.Keys, do: Do, server: kit.Server) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 30))
    server.documents["/feed"] = kit.Served(
        f'<!DOCTYPE rss [<!ENTITY l0 "ha">{laughs}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        "<rss><item><link>&l29;&f;</link></item></rss>".encode())
    text = kit.configuration_text(keyring, WEIGHTS, minimum=40) + (
        f"rss:\n- url: {server.url}/feed\n  pattern: .\n")
    with pytest.raises(DownloadError, match="document type"):
        do(configuration=config.parse(text.encode(), "test"))


# Downloads


def test_a_download_that_is_cut_off_goes_on(keyring: kit.Keys, do: Do, server: kit.Server, tmp_path: Path) -> None:
    parts = kit.package(keyring, {**FILES, "big": os.urandom(300_000)}, ["alice", "bob"])
    body = parts.zip(tmp_path / "p.zip").read_bytes()
    server.documents["/p.zip"] = kit.Served(body, cut=[100_000, 70_000], etag='"one"')
    assert do(f"{server.url}/p.zip").result is updater.Result.INSTALLED
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=170000-"]


def test_a_download_goes_on_in_a_later_run(keyring: kit.Keys, do: Do, server: kit.Server, tmp_path: Path) -> None:
    parts = kit.package(keyring, {**FILES, "big": os.urandom(300_000)}, ["alice", "bob"])
    body = parts.zip(tmp_path / "p.zip").read_bytes()
    server.documents["/p.zip"] = kit.Served(body, cut=[100_000, 0], etag='"one"')
    with pytest.raises(DownloadError, match="cut off after 100000 of"):
        do(f"{server.url}/p.zip")
    assert not (tmp_path / "app").exists()
    assert do(f"{server.url}/p.zip").result is updater.Result.INSTALLED
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_downloaded_afresh(keyring: kit.Keys, do: Do, server: kit.Server,
                                                            tmp_path: Path) -> None:
    parts = kit.package(keyring, {**FILES, "big": os.urandom(300_000)}, ["alice", "bob"])
    server.documents["/p.zip"] = kit.Served(parts.zip(tmp_path / "p.zip").read_bytes(), cut=[100_000, 0], etag='"one"')
    with pytest.raises(DownloadError):
        do(f"{server.url}/p.zip")
    parts = kit.package(keyring, {**FILES, "big": os.urandom(50_000)}, ["alice", "bob"], release="1.1")
    server.documents["/p.zip"] = kit.Served(parts.zip(tmp_path / "p.zip").read_bytes(), etag='"two"')
    assert do(f"{server.url}/p.zip").release == "1.1"


def test_a_bad_rest_is_not_kept(keyring: kit.Keys, do: Do, server: kit.Server, tmp_path: Path) -> None:
    """A server that puts another file's rest to what we have: refused, and the next run starts afresh."""
    parts = kit.package(keyring, {**FILES, "big": os.urandom(300_000)}, ["alice", "bob"])
    body = parts.zip(tmp_path / "p.zip").read_bytes()
    server.documents["/p.zip"] = kit.Served(bytes(len(body)), cut=[100_000, 0], etag='"one"')
    with pytest.raises(DownloadError):
        do(f"{server.url}/p.zip")
    server.documents["/p.zip"] = kit.Served(body, etag='"one"')
    with pytest.raises(PackageError):
        do(f"{server.url}/p.zip")
    assert do(f"{server.url}/p.zip").result is updater.Result.INSTALLED


def test_servers_that_send_what_was_not_asked_for(keyring: kit.Keys, do: Do, server: kit.Server) -> None:
    small = kit.configuration(keyring, WEIGHTS, minimum=40, maximum_size="1")
    server.documents["/big"] = kit.Served(bytes(2**21))
    server.documents["/endless"] = kit.Served(bytes(2**21), length=False)
    server.documents["/packed"] = kit.Served(b"x", headers={"Content-Encoding": "gzip"})
    server.documents["/file"] = kit.Served(b"", status=302, headers={"Location": "file:///etc/passwd"})
    server.documents["/loop"] = kit.Served(b"", status=302, headers={"Location": "/loop"})
    for path, said in (("/big", "at most 1048576"), ("/endless", "1048576"), ("/packed", "encoding 'gzip'"),
                       ("/file", "status 302"), ("/loop", "status 302"), ("/none", "status 404")):
        with pytest.raises(DownloadError, match=said):
            do(f"{server.url}{path}", configuration=small)


def test_a_redirection_keeps_the_range(keyring: kit.Keys, do: Do, server: kit.Server, tmp_path: Path) -> None:
    parts = kit.package(keyring, {**FILES, "big": os.urandom(300_000)}, ["alice", "bob"])
    server.documents["/p.zip"] = kit.Served(parts.zip(tmp_path / "p.zip").read_bytes(), cut=[100_000], etag='"one"')
    server.documents["/latest"] = kit.Served(b"", status=302, headers={"Location": "/p.zip"})
    assert do(f"{server.url}/latest").result is updater.Result.INSTALLED
    assert [asked for path, asked in server.requests if path == "/p.zip"] == [None, "bytes=100000-"]


def test_no_answer(do: Do) -> None:
    with pytest.raises(DownloadError, match="cannot be fetched"):
        do("http://127.0.0.1:9/p.zip")


def test_no_place_at_all(keyring: kit.Keys, tmp_path: Path) -> None:
    (tmp_path / "update.yml").write_text(kit.configuration_text(keyring, WEIGHTS, minimum=40))
    done = kit.gitian("update", "-c", tmp_path / "update.yml", "-d", tmp_path / "app")
    assert done.returncode == 2 and "nowhere to get a package" in done.stderr
    shutil.rmtree(tmp_path / ".app.gitian")
