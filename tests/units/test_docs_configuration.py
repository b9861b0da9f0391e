"""The reference names every field of every configuration, and every status of the gateway, and no other."""

import re
from pathlib import Path

import pytest

from transom.hub.access.limits import LimitsConfig
from transom.hub.access.tokens import OidcConfig
from transom.hub.config import ContextsConfig, HubConfig
from transom.links.kafka.config import ClusterConfig, GroupsConfig, MirrorConfig, TopicsConfig
from transom.region.config import RegionConfig, ZoneConfig
from transom.region.gateway.config import GatewayConfig

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"


def tables(page):
    """The names in the first column of each table whose head is `field`."""
    found = re.findall(r"^\| field .*\n\|-.*\n((?:\|.*\n)+)", (PAGES / page).read_text(), re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
            for table in found]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "models"),
    [
        ("gateway.md", [GatewayConfig]),
        (
            "configuration.md",
            [
                HubConfig,
                ContextsConfig,
                OidcConfig,
                LimitsConfig,
                RegionConfig,
                ZoneConfig,
                MirrorConfig,
                ClusterConfig,
                TopicsConfig,
                GroupsConfig,
            ],
        ),
    ],
)
def test_the_reference_names_every_field(page, models):
    assert tables(page) == [set(model.model_fields) for model in models]


def test_the_reference_names_every_refusal_of_a_gateway():
    page = (PAGES / "gateway.md").read_text()
    told = set(re.findall(r"^\| (\d{3}) \| .*? \| `(\w+)` \|$", page, re.MULTILINE))
    sources = "".join(file.read_text() for file in (ROOT / "src/transom/region/gateway").glob("[!f]*.py"))
    pattern = r'(?:RefusedError|\brefuse|_refuse|refusal|Refusal)\(\s*(?:(\d{3})|_UNAVAILABLE),[^"()]*"(\w+)"'
    said = {(status or "503", error) for status, error in re.findall(pattern, sources)}
    assert said - told == {("500", "internal")}, "told in a sentence"
    assert ("400", "invalid_request") in told
