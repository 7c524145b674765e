"""Make the initial RAM disk that every KVM guest starts with. What it does: docs/explanation/kvm-images.md."""

from __future__ import annotations

from gitian.formats import cpio
from gitian.host.workspace import data_directory
from gitian.images.kernel import Kernel

#: What initrd-init calls besides the shell's own commands.
_APPLETS = ("chmod", "cp", "date", "hostname", "insmod", "ip", "mkdir", "mount", "poweroff", "rm", "sh", "sleep",
            "switch_root", "sync", "umount")


def build(*, kernel: Kernel, busybox: bytes) -> bytes:
    """The archive's bytes: the same for the same kernel, busybox and scripts."""
    scripts = data_directory("target-bin")
    entries = [cpio.directory(name) for name in ("dev", "proc", "sys", "newroot", "modules")]
    entries += [
        cpio.file("bin/busybox", busybox, 0o755),
        *(cpio.symlink(f"bin/{applet}", "busybox") for applet in _APPLETS),
        cpio.file("init", (scripts / "initrd-init").read_bytes(), 0o755),
        cpio.file("gitian/init", (scripts / "guest-init").read_bytes(), 0o755),
        cpio.file("gitian/poweroff", (scripts / "guest-poweroff").read_bytes(), 0o755),
        cpio.file("gitian/sshd_config", (scripts / "guest-sshd_config").read_bytes()),
    ]
    # The shell's 'modules/*' is sorted by name, so the number in front is the order of loading.
    entries += [cpio.file(f"modules/{number:02}-{name}.ko", data)
                for number, (name, data) in enumerate(kernel.modules.items())]
    return cpio.pack(entries)
