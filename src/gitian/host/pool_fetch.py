"""Packages fetched into the pool: several at a time, each no larger than its index says and checked by its hash."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gitian.errors import HostError
from gitian.host import progress
from gitian.host.pool import Deb, PoolUse
from gitian.host.space import free
from gitian.host.web import Client, Refused, Stopped, side_by_side

#: Room that is left on the disk whatever is fetched (bytes).
RESERVE = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A package to be fetched from ``url``, as this machine reaches it."""

    deb: Deb
    url: str


def fetch(orders: Sequence[Order], use: PoolUse, directory: Path) -> set[Deb]:
    """Fetch packages into ``directory`` (on the pool's file system) and into the pool; those that came.

    What does not come is no error here: apt, asked for it, knows better what to say.
    """
    orders = [order for order in orders if urlsplit(order.url).scheme in ("http", "https")]
    if not orders or free(directory) < sum(order.deb.size for order in orders) + RESERVE:
        return set()

    def work(order: Order, client: Client) -> HostError | bool:
        try:
            client.save(order.url, directory / order.deb.name, sha256=order.deb.sha256, size=order.deb.size)
        except (Refused, Stopped):
            return False
        except HostError as error:
            return error
        return True

    good, unwritten = set(), []
    # The largest first, so that none is left alone at the end.
    with contextlib.closing(side_by_side(sorted(orders, key=lambda order: -order.deb.size), work)) as results:
        for order, came in results:
            if isinstance(came, HostError):
                unwritten.append(came)
            elif came:
                use.keep(directory / order.deb.name, order.deb)
                good.add(order.deb)
    if unwritten:
        progress.warn(f"{unwritten[0]} Packages that are lacking are left to apt.")
    return good
