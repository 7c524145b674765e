"""Ed25519 keys of OpenSSH and of minisign, and signatures by them.

Sources: OpenSSH's PROTOCOL (public key blob), ssh-keygen(1) (ALLOWED SIGNERS), minisign(1) with its file formats;
libsodium's crypto_pwhash_scryptsalsa208sha256 for the parameters of a minisign key's password.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gitian.errors import InputError, SigningError

_SSH = "ssh-ed25519"
_BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
FILE_LIMIT = 2**20
_KEYS_LIMIT = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that may sign attestations: for signers whose directory fits one of ``signers``, all when it is empty."""

    raw: bytes
    origin: str
    signers: tuple[str, ...] = ()

    @property
    def keyid(self) -> str:
        """Its fingerprint as OpenSSH writes it, 'SHA256:...'."""
        return keyid_of(self.raw)

    def may_sign_for(self, signer: str) -> bool:
        """Whether it counts in this signer's directory."""
        return not self.signers or any(fnmatch.fnmatchcase(signer, pattern) for pattern in self.signers)


def keyid_of(raw: bytes) -> str:
    """The fingerprint of a public key (32 bytes) as OpenSSH writes it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(_BLOB + raw).digest()).decode().rstrip("=")


def verify(key: PublicKey, sig: bytes, content: bytes) -> bool:
    """Whether this is the key's signature of ``content``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(sig, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_keys(data: bytes, origin: str, signers: tuple[str, ...] = ()) -> tuple[PublicKey, ...]:
    """The Ed25519 keys of a file: lines of OpenSSH's .pub, authorized_keys or allowed_signers, or minisign's.

    Keys of other kinds are passed over. ``signers`` is for keys whose line names nobody.
    """
    found = []
    for line in data[:FILE_LIMIT].decode("utf-8", errors="replace").splitlines()[:_KEYS_LIMIT]:
        words = line.split()
        if not words or words[0].startswith("#") or words[0] == "untrusted":
            continue
        if _SSH in words[:-1]:
            at = words.index(_SSH)
            blob = _decoded(words[at + 1])
            if len(blob) == len(_BLOB) + 32 and blob.startswith(_BLOB):
                named = tuple(words[0].split(",")) if at and "=" not in words[0] and '"' not in words[0] else signers
                found.append(PublicKey(raw=blob[len(_BLOB):], origin=origin, signers=named))
        elif len(words) == 1:
            blob = _decoded(words[0])
            if len(blob) == 42 and blob[:2] == b"Ed":
                found.append(PublicKey(raw=blob[10:], origin=origin, signers=signers))
    return tuple(found)


def given(paths: Iterable[Path]) -> tuple[PublicKey, ...]:
    """The keys of files that a user names. Raises InputError: unreadable, or no key in it."""
    found: list[PublicKey] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                keys = public_keys(file.read(FILE_LIMIT), str(path))
        except OSError as error:
            raise InputError(f"The key file '{path}' cannot be read: {error.strerror}.") from error
        if not keys:
            raise InputError(f"The file '{path}' holds no Ed25519 public key.",
                             hint="OpenSSH's .pub and allowed_signers files and minisign's .pub files are read.")
        found += keys
    return tuple(found)


class SecretKey:
    """A key to sign with."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, content: bytes) -> bytes:
        """The signature (64 bytes)."""
        return self._key.sign(content)


def secret_key(path: Path, password: Callable[[str], str]) -> SecretKey:
    """Read OpenSSH's, minisign's or a PEM file; ``password`` is asked when the key has one.

    Raises SigningError: not there, damaged, of another kind, a wrong password.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT)
    except OSError as error:
        raise SigningError(f"The key '{path}' cannot be read: {error.strerror}.",
                           hint="'ssh-keygen -t ed25519' makes one.") from error
    if data.startswith(b"untrusted comment:"):
        return _minisign(data, path, password)
    return _pem(data, path, password)


def _pem(data: bytes, path: Path, password: Callable[[str], str]) -> SecretKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        try:
            key = load(data, None)
        except (TypeError, ValueError) as error:
            if "password" not in str(error).lower() and "encrypted" not in str(error).lower():
                raise
            key = load(data, password(f"Password of '{path}': ").encode())
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(f"The key '{path}' cannot be used: {error}.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"The key '{path}' is no Ed25519 key.", hint="'ssh-keygen -t ed25519' makes one.")
    return SecretKey(key.private_bytes_raw())


def _minisign(data: bytes, path: Path, password: Callable[[str], str]) -> SecretKey:
    lines = data.splitlines()
    blob = _decoded(lines[1].decode("ascii", errors="replace")) if len(lines) > 1 else b""
    if len(blob) != 158 or blob[:2] != b"Ed" or blob[4:6] != b"B2" or blob[2:4] not in (b"Sc", b"\0\0"):
        raise SigningError(f"The key '{path}' is no secret key of minisign.")
    salt, operations, memory = blob[6:38], *(int.from_bytes(blob[at:at + 8], "little") for at in (38, 46))
    secret = blob[54:]
    if blob[2:4] == b"Sc":
        stream = _scrypt(password(f"Password of '{path}': ").encode(), salt, operations, memory, path)
        secret = bytes(one ^ other for one, other in zip(secret, stream, strict=True))
    # minisign writes no checksum (zeros) into a key without a password.
    known = hashlib.blake2b(blob[:2] + secret[:72], digest_size=32).digest()
    key = SecretKey(secret[8:40])
    if secret[72:] not in (known, *([bytes(32)] if blob[2:4] == b"\0\0" else [])) or key.public != secret[40:72]:
        raise SigningError(f"The password of '{path}' is wrong, or the key is damaged.")
    return key


def _scrypt(password: bytes, salt: bytes, operations: int, memory: int, path: Path) -> bytes:
    """libsodium's choice of scrypt's parameters for limits on operations and memory (bytes)."""
    operations = max(operations, 32768)
    r = 8
    if operations < memory // 32:
        p = 1
        most = operations // (r * 4)
    else:
        most = memory // (r * 128)
        p = 0
    log = next((power for power in range(1, 63) if 2**power > most // 2), 62)
    if not p:
        p = min((operations // 4) // 2**log, 0x3FFFFFFF) // r
    if 128 * r * 2**log > 2**31 - 2**20 or p < 1:
        raise SigningError(f"The key '{path}' asks for more memory than this program gives to a password.")
    return hashlib.scrypt(password, salt=salt, n=2**log, r=r, p=p, maxmem=2**31 - 1, dklen=104)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
