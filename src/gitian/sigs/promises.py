"""Does a report hold what its descriptor promises? What a signer should know before signing."""

from __future__ import annotations

from pathlib import Path

from gitian.errors import DescriptorError
from gitian.formats.descriptor import Descriptor
from gitian.formats.manifest import Manifest
from gitian.formats.report import Report


def broken(report: Report, name: str, descriptor_sha256: str, descriptor: Path) -> tuple[str, ...]:
    """What the report and the descriptor do not agree on, a sentence each; nothing when all is well."""
    found: list[str] = []
    inputs = Manifest.parse(report.in_manifest)
    files = inputs.by_path()
    own = files.get(f"{name}-desc.yml")
    if own is None:
        found.append(f"The report names no descriptor '{name}-desc.yml' among its inputs.")
    elif own != descriptor_sha256:
        found.append(f"The report was made with another version of the descriptor: it says {own}, "
                     f"the file '{descriptor}' has {descriptor_sha256}.")
    outputs = Manifest.parse(report.out_manifest)
    if not outputs.entries:
        found.append("The report lists no output.")
    found += [f"The report's {which} has a line that is no line of a manifest: '{line[:80]}'."
              for which, manifest in (("out_manifest", outputs), ("in_manifest", inputs))
              for line in manifest.strange[:1]]
    try:
        wanted = Descriptor.read(descriptor)
    except DescriptorError as error:
        return (*found, f"The descriptor could not be compared with the report: {str(error).splitlines()[0]}")
    found += [f"The input file '{file}' of the descriptor is not in the report." for file in wanted.files
              if file not in files]
    commits = {remote.dir: remote.commit for remote in inputs.remotes}
    for remote in wanted.remotes:
        if remote.dir not in commits:
            found.append(f"The remote '{remote.dir}' of the descriptor is not in the report.")
        elif remote.commit and len(remote.commit) == 40 and commits[remote.dir] != remote.commit:
            found.append(f"The remote '{remote.dir}' was built at {commits[remote.dir]}; the descriptor asks for "
                         f"{remote.commit}.")
    built = {target for target, _ in report.base_manifests or ()}
    found += [f"The report has no environment for '{suite}-{architecture}', which the descriptor asks for."
              for suite in wanted.suites for architecture in wanted.architectures
              if f"{suite}-{architecture}" not in built]
    return tuple(found)
