"""What is built: descriptors that stand for what people build, each small enough to run often."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

#: Packages that real descriptors ask for, and that every suite of the last ten years has.
THIRTY = ("autoconf", "automake", "bison", "bsdmainutils", "ccache", "cmake", "curl", "faketime", "flex", "gawk",
          "gettext", "gperf", "help2man", "intltool", "libbz2-dev", "libcap-dev", "libevent-dev", "libncurses-dev",
          "libssl-dev", "libtool", "m4", "nasm", "ninja-build", "pkg-config", "rsync", "texinfo", "unzip", "yasm",
          "zip", "zlib1g-dev")

Target = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A descriptor, and what a build of it needs.

    ``seconds`` is how long its script does nothing; ``megabytes`` the size of an input which the script copies to its
    output; ``options`` are for gbuild alone, the classic does not know them. ``ways`` says how it is built (see
    benchmarks.runner); cases of one ``workspace`` share it, and so their layers.
    """

    name: str
    title: str
    targets: tuple[Target, ...]
    packages: tuple[str, ...] = ("git", "build-essential")
    seconds: float = 0.2
    megabytes: int = 0
    options: tuple[str, ...] = ()
    ways: tuple[str, ...] = ("cold", "warm", "no layers", "classic")
    workspace: str = ""

    @property
    def suites(self) -> list[str]:
        """In the order of the targets, each once."""
        return list(dict.fromkeys(suite for suite, _ in self.targets))

    @property
    def architectures(self) -> list[str]:
        """Likewise."""
        return list(dict.fromkeys(architecture for _, architecture in self.targets))

    @property
    def descriptor(self) -> str:
        """The YAML file's text."""
        def listed(words: list[str]) -> str:
            return "[" + ", ".join(f'"{word}"' for word in words) + "]"

        copying = "cat input.bin > $OUTDIR/output.bin\n  " if self.megabytes else ""
        return (f'---\nname: "{self.name}"\ndistro: "debian"\nsuites: {listed(self.suites)}\n'
                f'architectures: {listed(self.architectures)}\npackages: {listed(list(self.packages))}\n'
                f'reference_datetime: "2013-06-01 00:00:00"\nremotes: []\n'
                f'files: {listed(["input.bin"] if self.megabytes else [])}\nscript: |\n'
                f"  sleep {self.seconds:g}\n  {copying}echo hello > $OUTDIR/hello.txt\n")

    def lay_out(self, workspace: Path) -> Path:
        """Write the descriptor and its inputs into a workspace; the descriptor's path."""
        inputs = workspace / "inputs"
        inputs.mkdir(parents=True, exist_ok=True)
        if self.megabytes and not (inputs / "input.bin").exists():
            numbers = random.Random(self.megabytes)  # nothing that a layer below could compress, and always the same
            with (inputs / "input.bin").open("wb") as file:
                for _ in range(self.megabytes):
                    file.write(numbers.randbytes(10**6))
        path = workspace / f"{self.name}.yml"
        path.write_text(self.descriptor)
        return path


def cases(first: Target, available: tuple[Target, ...], *, quick: bool, processors: int = 2) -> list[Case]:
    """All cases, with the targets that there are base images for: ``first`` of them where one will do.

    More targets than gbuild takes at a time, with so many ``processors``, are also built all at once.
    """
    megabytes = 100 if quick else 500
    found = [
        Case(name="tiny", title="tiny", targets=(first,)),
        Case(name="packages", title="30 packages", targets=(first,), packages=THIRTY),
        Case(name="large", title=f"{megabytes} MB in, {megabytes} MB out", targets=(first,), megabytes=megabytes),
    ]
    whole = rectangle(available)
    if len(whole) > 1:
        suites, architectures = len({suite for suite, _ in whole}), len({architecture for _, architecture in whole})
        one = Case(name="one", title="one idle target", targets=(first,), packages=(), seconds=1, ways=("warm",),
                   workspace="matrix")
        title = f"{suites} suite{'s' * (suites > 1)} x {architectures} architecture{'s' * (architectures > 1)}, idle"
        found += [
            replace(one, name="matrix", title=title, targets=whole, ways=("cold", "warm")),
            one,
        ]
        if len(whole) > 2 * processors:
            found.append(replace(one, name="matrix-wide", title=f"{title}, --parallel {len(whole)}", targets=whole,
                                 options=("--parallel", str(len(whole)))))
    return found


def rectangle(available: tuple[Target, ...]) -> tuple[Target, ...]:
    """The largest set of at most two suites by at most two architectures all of which are available.

    A descriptor names suites and architectures, and every pair of them is built.
    """
    suites = sorted({suite for suite, _ in available})
    architectures = sorted({architecture for _, architecture in available})
    pairs = [[one] for one in suites] + [[one, two] for one in suites for two in suites if one < two]
    sides = [[one] for one in architectures] + [[one, two] for one in architectures for two in architectures
                                                if one < two]
    whole = [tuple((suite, architecture) for suite in some for architecture in side)
             for some in pairs for side in sides]
    return max((each for each in whole if set(each) <= set(available)), key=len, default=())
