"""canon inside a guest: 'gitian canon --script FILE' packs this and gitian's canon room into one file for python3.

    python3 canon [--date DATE] [--keep times|order|owners|modes] [--limit BYTES] [--check] FILE...

The date is $SOURCE_DATE_EPOCH where --date does not say another. Needs Python 3.7 or newer.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gitian.canon.archive import canonicalize
from gitian.canon.model import DEFAULT_DATE, KEEPABLE, PIECE, Settings, parse_date
from gitian.errors import FormatError, GitianError, MissingToolError


def run_zstd(arguments, source, write):
    source.seek(0)
    with tempfile.TemporaryFile() as said:
        try:
            running = subprocess.Popen(["zstd", *arguments], stdin=source, stdout=subprocess.PIPE, stderr=said)
        except OSError as error:
            raise MissingToolError(f"The program 'zstd' cannot be started: {error.strerror}.") from error
        try:
            for data in iter(lambda: running.stdout.read(PIECE), b""):
                write(data)
        except BaseException:
            running.kill()
            raise
        finally:
            running.stdout.close()
            running.wait()
        if running.returncode:
            said.seek(0)
            raise FormatError("zstd failed: " + said.read(500).decode(errors="replace").strip())


def main():
    parser = argparse.ArgumentParser(prog="canon", description="Make archives canonical, in place.")
    parser.add_argument("--date", default=os.environ.get("SOURCE_DATE_EPOCH"), help="the date of every member")
    parser.add_argument("--keep", action="append", choices=KEEPABLE, default=[], help="what stays as it is")
    parser.add_argument("--limit", type=int, help="bytes that a compressed file may grow to")
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when a file is not canonical")
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
    given = parser.parse_args()
    changed = False
    try:
        settings = Settings(date=parse_date(given.date) if given.date else DEFAULT_DATE, keep=frozenset(given.keep),
                            limit=given.limit, zstd=run_zstd)
        for path in given.files:
            outcome = canonicalize(path, settings, write=not given.check)
            changed = changed or outcome.changed
            state = "canonical" if not outcome.changed else "not canonical" if given.check else "rewritten"
            print(f"{ascii(str(path))[1:-1]} ({outcome.kind}): {state}")
    except GitianError as error:
        print(f"canon: {error}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    return 1 if changed and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
