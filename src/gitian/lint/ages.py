"""When suites and compilers were released, and until when they are looked after.

Suites: the package distro-info-data of Debian as of 2026 (debian.csv with the end of LTS where there is one, ubuntu.csv
with the end of standard support). GCC: the list of releases at gcc.gnu.org, where a series ends with its last release.
LLVM: the dates of tags of its repository; a series ends with its last release, when the next one begins.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """From when until when; ``end`` is None for what has none yet."""

    released: datetime.date
    end: datetime.date | None


def _ages(text: str) -> dict[str, Age]:
    found = {}
    for line in text.split("\n"):
        if line.strip():
            name, released, *end = line.split()
            found[name] = Age(released=datetime.date.fromisoformat(released),
                              end=datetime.date.fromisoformat(end[0]) if end else None)
    return found


#: Suites of Debian and Ubuntu.
SUITES = _ages("""
    lenny 2009-02-14 2012-02-06
    squeeze 2011-02-06 2016-02-29
    wheezy 2013-05-04 2018-05-31
    jessie 2015-04-26 2020-06-30
    stretch 2017-06-17 2022-06-30
    buster 2019-07-06 2024-06-30
    bullseye 2021-08-14 2026-08-31
    bookworm 2023-06-10 2028-06-30
    trixie 2025-08-09 2030-06-30
    hardy 2008-04-24 2013-05-09
    lucid 2010-04-29 2015-04-30
    maverick 2010-10-10 2012-04-10
    natty 2011-04-28 2012-10-28
    oneiric 2011-10-13 2013-05-09
    precise 2012-04-26 2017-04-28
    quantal 2012-10-18 2014-05-16
    raring 2013-04-25 2014-01-27
    saucy 2013-10-17 2014-07-17
    trusty 2014-04-17 2019-04-25
    utopic 2014-10-23 2015-07-23
    vivid 2015-04-23 2016-02-04
    wily 2015-10-22 2016-07-28
    xenial 2016-04-21 2021-04-30
    yakkety 2016-10-13 2017-07-20
    zesty 2017-04-13 2018-01-13
    artful 2017-10-19 2018-07-19
    bionic 2018-04-26 2023-05-31
    cosmic 2018-10-18 2019-07-18
    disco 2019-04-18 2020-01-23
    eoan 2019-10-17 2020-07-17
    focal 2020-04-23 2025-05-29
    groovy 2020-10-22 2021-07-22
    hirsute 2021-04-22 2022-01-20
    impish 2021-10-14 2022-07-14
    jammy 2022-04-21 2027-06-01
    kinetic 2022-10-20 2023-07-20
    lunar 2023-04-20 2024-01-25
    mantic 2023-10-12 2024-07-11
    noble 2024-04-25 2029-05-31
    oracular 2024-10-10 2025-07-10
    plucky 2025-04-17 2026-01-15
    questing 2025-10-09 2026-07-09
    resolute 2026-04-23 2031-05-29
""")

#: Names that mean another suite after each release.
MOVING = frozenset(("stable", "oldstable", "oldoldstable", "testing", "unstable", "sid", "experimental", "forky",
                    "duke", "devel"))

#: Series of GCC: first release, last release.
GCC = _ages("""
    4.4 2009-04-21 2012-03-13
    4.5 2010-04-14 2012-07-02
    4.6 2011-03-25 2013-04-12
    4.7 2012-03-22 2014-06-12
    4.8 2013-03-22 2015-06-23
    4.9 2014-04-22 2016-08-03
    5 2015-04-22 2017-10-10
    6 2016-04-27 2018-10-26
    7 2017-05-02 2019-11-14
    8 2018-05-02 2021-05-14
    9 2019-05-03 2022-05-27
    10 2020-05-07 2023-07-07
    11 2021-04-27 2024-07-19
    12 2022-05-06 2025-07-11
    13 2023-04-26
    14 2024-05-07
    15 2025-04-25
""")

#: Series of LLVM and clang: first release, last release.
LLVM = _ages("""
    3.4 2014-01-02 2014-06-19
    3.5 2014-09-03 2015-04-02
    3.6 2015-02-27 2015-07-14
    3.7 2015-09-01 2016-01-05
    3.8 2016-03-08 2016-07-11
    3.9 2016-09-02 2017-03-13
    4.0 2017-03-13 2017-06-28
    5.0 2017-09-07 2018-05-16
    6.0 2018-03-08 2018-07-05
    7 2018-09-19 2019-05-10
    8 2019-03-20 2019-07-19
    9 2019-09-19 2019-12-20
    10 2020-03-24 2020-08-06
    11 2020-10-12 2021-02-25
    12 2021-04-14 2021-07-08
    13 2021-10-04 2022-02-02
    14 2022-03-25 2022-06-24
    15 2022-09-06 2023-01-12
    16 2023-03-17 2023-06-17
    17 2023-09-19 2023-11-28
    18 2024-03-05 2024-06-18
    19 2024-09-17 2025-01-14
    20 2025-03-04
    21 2025-08-26
""")

#: Python 2, whose end was announced for all of it.
PYTHON2 = Age(released=datetime.date(2000, 10, 16), end=datetime.date(2020, 1, 1))

#: gzip writes no time for what it reads from a pipe since 1.10, of 2018-12-29 (its NEWS); all later suites have it.
_NEW_GZIP = datetime.date(2020, 1, 1)


def has_new_gzip(suite: str) -> bool:
    """Whether gzip in this suite writes no time for what it reads from a pipe. An unknown suite is taken for new."""
    age = SUITES.get(suite)
    return age is None or age.released > _NEW_GZIP


def years_before(day: datetime.date, years: int) -> datetime.date:
    """The same day so many years before; the 28th for a leap day."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)
