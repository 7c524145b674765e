"""Throw-away signers: real GnuPG keys in a short private home, assertions and signatures made with them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

MANIFEST = "{}  pkg.tar.gz\n{}  src/pkg-1.0.tar.gz\n".format("a" * 64, "b" * 64)
OTHER = "{}  pkg.tar.gz\n{}  src/pkg-1.0.tar.gz\n".format("c" * 64, "b" * 64)


def assertion(release: str, name: str = "pkg", out: str = MANIFEST) -> bytes:
    """An assertion as gsign writes it (compare tests/fixtures/gverify-synthetic/sigs/all-ok)."""
    lines = "".join(f"    {line}\n" for line in out.splitlines())
    return (f"--- !!omap\n- out_manifest: |\n{lines}- in_manifest: |-\n    {'d' * 64}  pkg-desc.yml\n"
            f"- base_manifests: !!omap\n  - bookworm-amd64: |\n      {'e' * 64}  bash.deb\n"
            f"- cache_common_manifest: ''\n- cache_package_manifest: ''\n- release: {release}\n- name: {name}\n"
            "- type: build\n- optionals:\n").encode()


class Signers:
    """A GnuPG home under a short path (an agent's socket has to fit in 108 bytes), closed by the fixture."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
        self.fingerprints: dict[str, str] = {}

    def gpg(self, *words: str, data: bytes | None = None, check: bool = True) -> bytes:
        done = subprocess.run(["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--no-tty", "--yes",
                               "--pinentry-mode", "loopback", "--passphrase", "", *words], capture_output=True,
                              input=data if data is not None else b"", check=False)
        assert not check or done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def make(self, name: str, *, at: str = "20200101T000000", expire: str = "never", user: str | None = None) -> str:
        """A signing key made at a time (UTC); its fingerprint."""
        user = user or f"{name} <{name}@example.invalid>"
        self.gpg("--faked-system-time", at + "!", "--quick-generate-key", user, "ed25519", "sign", expire)
        listed = self.gpg("--with-colons", "--list-keys", user).decode()
        found = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        self.fingerprints[name] = found
        return found

    def sign(self, name: str, content: bytes, *, at: str = "20200601T000000", armour: bool = False) -> bytes:
        words = ["--faked-system-time", at + "!", "-u", self.fingerprints[name] + "!"]
        return self.gpg(*words, *(["--armor"] if armour else []), "--detach-sign", data=content)

    def export(self, *names: str) -> bytes:
        return self.gpg("--export", *(self.fingerprints[name] for name in names))

    def revoke(self, name: str, reason: int, at: str) -> None:
        """Revoke at a time; the reason by its number in GnuPG's menu: 0 none, 1 compromised, 2 superseded, 3 retired.

        A revoked key signs no more, so make the signatures first.
        """
        fingerprint = self.fingerprints[name]
        answers = f"y\n{reason}\n\ny\n".encode()
        made = subprocess.run(["gpg", "--homedir", str(self.home), "--no-tty", "--quiet", "--faked-system-time",
                               at + "!", "--pinentry-mode", "loopback", "--passphrase", "", "--command-fd", "0",
                               "--status-fd", "2", "--gen-revoke", fingerprint], input=answers, capture_output=True,
                              check=True)
        self.gpg("--import", data=made.stdout)

    def edit(self, name: str, at: str, *answers: str) -> None:
        """Answer GnuPG's questions of --edit-key, at a time."""
        subprocess.run(["gpg", "--homedir", str(self.home), "--no-tty", "--quiet", "--faked-system-time", at + "!",
                        "--pinentry-mode", "loopback", "--passphrase", "", "--command-fd", "0", "--status-fd", "2",
                        "--edit-key", self.fingerprints[name]], input="".join(f"{each}\n" for each in answers).encode(),
                       capture_output=True, check=True)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], capture_output=True, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


def put(tree: Path, release: str, signer: str, content: bytes, proof: bytes | None, name: str = "pkg") -> Path:
    """Lay a signer's files into a tree; the directory."""
    where = tree / release / signer
    where.mkdir(parents=True, exist_ok=True)
    (where / f"{name}-build.assert").write_bytes(content)
    if proof is not None:
        (where / f"{name}-build.assert.sig").write_bytes(proof)
    return where
