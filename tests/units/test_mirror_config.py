"""A mirror's configuration and its verbs, as far as no broker is needed."""

import asyncio

import pytest

from cli_here import transom
from transom.links.kafka.config import MirrorConfig
from transom.model.errors import InvalidError
from transom.runtime.config import load

GOOD = """
name = "orders"
listen = "127.0.0.1:9405"
[source]
name = "eu"
address = "kafka://127.0.0.1:9092"
[target]
name = "us"
address = "kafka://127.0.0.1:9192"
[topics]
include = ["orders"]
"""


def read(folder, text):
    (folder / "mirror.toml").write_text(text)
    return load(folder / "mirror.toml", MirrorConfig)


def test_what_is_not_said_has_a_default(tmp_path):
    config = read(tmp_path, GOOD)
    assert (config.topics.names, config.topics.when_lost, config.topics.when_recreated) == (
        "prefix",
        "stop",
        "stop",
    )
    assert (config.groups.include, config.groups.every_seconds) == ((".*",), 0.5)
    assert (config.bytes_per_second, config.log_level) == (0, "info")


@pytest.mark.parametrize(
    ("good", "bad", "path"),
    [
        ('name = "orders"', 'name = "no label!"', "name"),
        ("127.0.0.1:9405", "0.0.0.0:9405", "listen"),
        ("127.0.0.1:9405", "127.0.0.1", "listen"),
        ("127.0.0.1:9405", "127.0.0.1:70000", "listen"),
        ("kafka://127.0.0.1:9092", "127.0.0.1:9092", "source.address"),
        ("kafka://127.0.0.1:9092", "kafka://kafka.example.com:9092", "source.address"),
        ('include = ["orders"]', "include = []", "topics.include"),
        ('include = ["orders"]', "", "topics.include"),
        ('include = ["orders"]', 'include = ["a"]\nnames = "alias"', "topics.names"),
        ('include = ["orders"]', 'include = ["a"]\nreplication_factor = 0', "topics.replication_factor"),
        ('include = ["orders"]', 'include = ["a"]\nwhen_lost = "ignore"', "topics.when_lost"),
        ('include = ["orders"]', 'include = ["a"]\npatterns = 1', "topics.patterns"),
        ('include = ["orders"]', 'include = ["a"]\n[groups]\nevery_seconds = 0', "groups.every_seconds"),
        ('name = "us"', 'name = "eu"', ""),
    ],
)
def test_a_mistake_is_told_with_its_path(tmp_path, good, bad, path):
    assert good in GOOD
    with pytest.raises(InvalidError) as told:
        read(tmp_path, GOOD.replace(good, bad))
    assert path in [problem.path for problem in told.value.problems]


@pytest.mark.parametrize(("bad", "said"), [('"orders"', "should be a list"), ("[]", "List should have")])
def test_a_list_is_called_a_list(tmp_path, bad, said):
    with pytest.raises(InvalidError, match=said):
        read(tmp_path, GOOD.replace('["orders"]', bad))


def test_all_mistakes_are_told_at_once(tmp_path):
    text = (
        'name = "?"\nlisten = "x"\nspeed = 1\n[source]\nname = "eu"\naddress = "x"\n[topics]\ninclude = 1\n'
    )
    with pytest.raises(InvalidError) as told:
        read(tmp_path, text)
    found = {problem.path for problem in told.value.problems}
    assert {"name", "listen", "speed", "source.address", "target", "topics.include"} <= found


WRONG = (
    ["mirror", "-c", "missing.toml"],
    ["mirror", "-c", "broken.toml"],
    ["mirror", "status", "-c", "broken.toml"],
    ["mirror", "-c", "broken.toml", "status"],
    ["mirror", "--dry-run", "pause", "orders", "-c", "broken.toml"],
    ["mirror", "status", "-o", "yaml"],
    ["mirror", "skip", "orders/0", "-1"],
    ["offsets", "translate", "orders", "5"],
)


async def test_wrong_usage_is_exit_code_2_and_one_clear_error(tmp_path):
    (tmp_path / "broken.toml").write_text(GOOD.replace("orders", "?", 1) + "speed = 1\n")
    ran = await asyncio.gather(*(transom(*arguments, cwd=tmp_path) for arguments in WRONG))
    for arguments, told in zip(WRONG, ran, strict=True):
        assert told.code == 2, (arguments, told)
        assert "Traceback" not in told.err
        if "--dry-run" in arguments:
            assert "--dry-run is not for 'pause'" in told.err
        elif "broken.toml" in arguments:
            assert "name" in told.err
            assert "topics.speed" in told.err
