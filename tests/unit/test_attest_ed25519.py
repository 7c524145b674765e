"""Ed25519 keys of OpenSSH and minisign: read as those programs write them, and nothing else taken for one."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from gitian.attest import ed25519
from gitian.errors import InputError, SigningError

# RFC 8032, 7.1, TEST 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                          "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00")

# Made with libsodium's own scrypt (PyNaCl 1.6.2) in the layout of minisign 0.11, for the seed 00 01 02 .. 1f and the
# password 'correct horse', with three limits that choose scrypt's parameters in three ways.
HEAD = "RWRTY0IyICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8A"
MINISIGN = [HEAD + rest for rest in (
    "gAAAAAAAAAAAAAEAAAAAQR921OzZoRwlrnwS4yazGP8WbTSvwLprS312Q8n1gYPKKGBwIOrGfHV0p9Sb6MauX2oP/yAdjAO2YUPQafRPvUphydMwbpq"
    "JAibItpeTRYT2qhJdMD4qUgba09LUPnBjluy+3GFhK0U=",
    "ABAAAAAAAAAAAAEAAAAAzaDC3KHjeVV2s1sOAGLN0/+qra0yQhlNhmoq+z8vOtsFZZ7LbYoWCeJJ0mffmX5feiu/68xrllzeRHez+/bGrMSM/DCxzuj"
    "bSmLf1QVdZ526k2ZrOZRvOUWcYgv4lCE6D/RJl78iQUo=",
    "AAACAAAAAAAAAAIAAAAAKIFj8EFnb0vLIQ2Hzj6sQtpJogA2ABNyigWKUPMirNR4Bjzzr7HGZkbCtqLeect5mPZ7e17tO1fQgTEqbVcCzQddWx0mM1T"
    "gzgz3SfORVuQez3xknTUo1YcGfH3YeX8xfJe3CU6EDFw=")]
MINISIGN_PUBLIC = "RWRHSVRJQU5LWQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
#: minisign 0.11 wrote this pair with -G -W (no password, no checksum).
BARE = ("RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHYRr1uAvBpa7ZhHuZWzJmSEqVXopPmLKKU7gyX"
        "Sp5t0YHJ7Vx5VKnsLG+Ba+vL7Obcit6GiJMX6Y7/bfln5D/IEzhPpxzuSJAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
BARE_PUBLIC = "RWQdhGvW4C8GlsLG+Ba+vL7Obcit6GiJMX6Y7/bfln5D/IEzhPpxzuSJ"


def nobody(prompt: str) -> str:
    raise AssertionError(f"asked '{prompt}'")


def minisign(where: Path, line: str) -> Path:
    (where / "key").write_text(f"untrusted comment: minisign encrypted secret key\n{line}\n")
    return where / "key"


def test_signatures_are_those_of_the_standard() -> None:
    key = ed25519.SecretKey(SEED)
    assert key.public == PUBLIC
    assert key.sign(b"\x72") == SIGNATURE
    assert ed25519.verify(ed25519.PublicKey(raw=PUBLIC, origin=""), SIGNATURE, b"\x72")
    assert not ed25519.verify(ed25519.PublicKey(raw=PUBLIC, origin=""), SIGNATURE, b"\x73")
    assert not ed25519.verify(ed25519.PublicKey(raw=PUBLIC, origin=""), b"short", b"\x72")
    assert not ed25519.verify(ed25519.PublicKey(raw=b"\xff" * 32, origin=""), SIGNATURE, b"\x72")


@pytest.mark.parametrize("line", MINISIGN, ids=["few operations", "usual", "sensitive"])
def test_a_minisign_key_with_a_password(tmp_path: Path, line: str) -> None:
    path = minisign(tmp_path, line)
    public, = ed25519.public_keys(f"untrusted comment: x\n{MINISIGN_PUBLIC}\n".encode(), "f")
    assert ed25519.secret_key(path, lambda prompt: "correct horse").public == public.raw
    with pytest.raises(SigningError, match="password"):
        ed25519.secret_key(path, lambda prompt: "wrong")


def test_a_minisign_key_without_a_password(tmp_path: Path) -> None:
    public, = ed25519.public_keys(f"untrusted comment: x\n{BARE_PUBLIC}\n".encode(), "f")
    assert ed25519.secret_key(minisign(tmp_path, BARE), nobody).public == public.raw
    damaged = bytearray(base64.b64decode(BARE))
    damaged[70] ^= 1
    with pytest.raises(SigningError, match="damaged"):
        ed25519.secret_key(minisign(tmp_path, base64.b64encode(damaged).decode()), nobody)


def test_a_key_that_asks_for_all_of_the_memory_is_refused(tmp_path: Path) -> None:
    blob = bytearray(base64.b64decode(MINISIGN[0]))
    blob[38:54] = b"\xff" * 15 + b"\x0f"
    with pytest.raises(SigningError, match="memory"):
        ed25519.secret_key(minisign(tmp_path, base64.b64encode(blob).decode()), lambda prompt: "x")


@pytest.mark.parametrize("password", ["", "correct horse"])
def test_an_openssh_key(tmp_path: Path, password: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", password, "-C", "", "-f", str(tmp_path / "key")],
                   check=True, stdin=subprocess.DEVNULL)
    key = ed25519.secret_key(tmp_path / "key", (lambda prompt: password) if password else nobody)
    public, = ed25519.given([tmp_path / "key.pub"])
    assert key.public == public.raw
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")], check=True, capture_output=True,
                           text=True).stdout
    assert shown.split()[1] == public.keyid
    if password:
        with pytest.raises(SigningError):
            ed25519.secret_key(tmp_path / "key", lambda prompt: "wrong")


LINE = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + PUBLIC).decode()


@pytest.mark.parametrize(("text", "signers"), [
    (LINE, [()]), (f"{LINE} alice@example.invalid", [()]), (f"# comment\n\n{LINE}\n{LINE}", [(), ()]),
    (f"alice,bob {LINE}", [("alice", "bob")]), (f'alice namespaces="file" {LINE} c', [("alice",)]),
    (f'restrict,command="x" {LINE}', [()]), ("ssh-rsa AAAAB3NzaC1yc2E= x", []), ("ssh-ed25519", []),
    ("ssh-ed25519 AAAA", []), ("ssh-ed25519 !!!", []), ("", []), ("RWQ", []), ("\0\xff", []),
    ("untrusted comment: minisign public key\n" + MINISIGN_PUBLIC, [()]),
])
def test_public_keys_are_read_from_lines(text: str, signers: list[tuple[str, ...]]) -> None:
    found = ed25519.public_keys(text.encode("utf-8"), "f")
    assert [key.signers for key in found] == signers


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("nothing\n")
    for path in (tmp_path / "f", tmp_path / "absent"):
        with pytest.raises(InputError):
            ed25519.given([path])
