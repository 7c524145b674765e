from __future__ import annotations

from pathlib import Path

import pytest

from gitian.cli import common, main
from gitian.errors import UpdateConfigurationError
from gitian.update import config

ONE = "A" * 40
TWO = "0123456789" * 4  # digits alone: YAML would make a number of it

#: In the form that real projects had in contrib/gitian-downloader/.
CLASSIC = f"""---
name: demo
urls:
- http://example.org/demo-latest-linux-gitian.zip
- url: https://example.org/demo.zip
  version_url: https://example.org/demo.ver
rss:
- url:
  xpath: //item/link/text()
  pattern: never
- url: http://example.org/rss
  xpath: //item/link/text()
  pattern: demo-\\d+.\\d+.\\d+-linux-gitian.zip
signers:
  {ONE}:
    weight: 40
    name: "Pieter Pan"
    key: pan
  {TWO}:
    weight: "40"
    name: 1984
    key: orwell-key
minimum_weight: 80
"""


def test_a_classic_configuration() -> None:
    found = config.parse(CLASSIC.encode(), "test")
    assert found == config.Configuration(
        name="demo", minimum_weight=80, waiting_period=0.0, release_suffix="", maximum_size=8192 * 2**20,
        directory=None,
        signers=(config.Signer(fingerprints=(ONE,), weight=40, name="Pieter Pan", key="pan"),
                 config.Signer(fingerprints=(TWO,), weight=40, name="1984", key="orwell-key")),
        urls=(config.Place(url="http://example.org/demo-latest-linux-gitian.zip"),
              config.Place(url="https://example.org/demo.zip", version_url="https://example.org/demo.ver")),
        feeds=(config.Feed(url="http://example.org/rss", pattern=r"demo-\d+.\d+.\d+-linux-gitian.zip",
                           xpath="//item/link/text()"),))


def test_the_sample_is_a_configuration() -> None:
    sample = Path(__file__).resolve().parents[2] / "share" / "update-sample.yml"
    found = config.read(sample)
    assert len(found.signers) > 1 and found.urls and found.feeds and found.waiting_period
    assert found.minimum_weight <= sum(signer.weight for signer in found.signers)


def test_fingerprints_may_be_written_as_people_write_them() -> None:
    spaced = " ".join(ONE[at:at + 4].lower() for at in range(0, 40, 4))
    found = config.parse(f"minimum_weight: 1\nsigners:\n  '{spaced}':\n    weight: 1\n".encode(), "test")
    assert found.signer(ONE) is found.signers[0]
    assert found.signer("B" * 40) is None


def changed(old: str, new: str) -> bytes:
    assert old in CLASSIC
    return CLASSIC.replace(old, new).encode()


@pytest.mark.parametrize("data, said", [
    (b"", "not a list of keys"),
    (b"- x", "not a list of keys"),
    (b"{", "not YAML"),
    (b"a: &x 1\nb: *x", "alias"),
    (changed("minimum_weight: 80", ""), "minimum_weight: is missing"),
    (changed("minimum_weight: 80", "minimum_weight: 0"), "at least 1"),
    (changed("minimum_weight: 80", "minimum_weight: -1"), "not negative"),
    (changed("minimum_weight: 80", "minimum_weight: 81"), "more than all signers together"),
    (changed("weight: 40", "weight: .inf"), "must be a number"),
    (changed("weight: 40", "weight: forty"), "must be a number"),
    (changed("weight: 40", "weight: .nan"), "must be a number"),
    (changed("weight: 40", "weight: 4_0"), "must be a number"),
    (changed("weight: 40", "weight: \uff14\uff10"), "must be a number"),
    (changed("name: demo", "waiting_period: -1"), "waiting_period: must be a number"),
    (changed("name: demo", "waiting_period: nan"), "waiting_period: must be a number"),
    (changed("    weight: 40\n", ""), "weight: is missing"),
    (changed(ONE, "2346C9A6"), "short key id"),
    (changed(ONE, "74810B012346C9A6"), "short key id"),
    (changed(ONE, "alice"), "not a full fingerprint"),
    (changed(TWO, ONE), "stands there twice"),
    (changed("key: pan", "key: ../pan"), "'..'"),
    (changed("key: pan", "key: pan\n    keyid: " + TWO), "is the key of"),
    (changed("name: demo", "nmae: demo"), "nmae: is not a key that we know"),
    (changed("name: demo", "waiting_period: soon"), "waiting_period: must be a number"),
    (changed("https://example.org/demo.zip", "ftp://example.org/demo.zip"), "not an http, https or file URL"),
    (changed("pattern: demo-", "pattern: demo-("), "not a regular expression"),
    (changed("- url: http://example.org/rss\n  xpath: //item/link/text()", "- url: http://example.org/rss\n  xpath: x"),
     "is not understood"),
    (b"x" * (2**20 + 1), "more than 1048576 bytes"),
])
def test_configurations_that_cannot_be_used(data: bytes, said: str) -> None:
    with pytest.raises(UpdateConfigurationError) as caught:
        config.parse(data, "test")
    assert said in str(caught.value)


def test_all_problems_at_once() -> None:
    with pytest.raises(UpdateConfigurationError) as caught:
        config.parse(b"signers: {abc: {weight: x}}\nurls: 5\nrss: [1]\nfoo: 1\n", "test")
    text = str(caught.value)
    for where in ("signers.abc", "signers.abc.weight", "urls", "rss[0]", "foo", "minimum_weight"):
        assert f"\n  {where}: " in text


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "1_0", "\uff11", "", "1e3"])
def test_waiting_periods_that_are_none(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    """'nan' is in every range, and no time at all would be less than it."""
    status = common.status_of(main.load("update"), "update", ["-c", "c.yml", "-d", "app", "--wait", hours])
    assert status == 2 and "--wait" in capsys.readouterr().err
