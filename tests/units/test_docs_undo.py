"""The commands of docs/how-to/undo.md do what the page says, in its order."""

import re
import shlex
from pathlib import Path

import pytest

from cli_here import hub_here, refused, runner

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "undo.md").read_text(encoding="utf-8")


@pytest.fixture
async def hub(tmp_path, monkeypatch):
    async with hub_here(tmp_path, monkeypatch) as api:
        yield api


async def test_every_command_of_the_page_works(hub, tmp_path, monkeypatch, capsys):
    transom = runner(monkeypatch, capsys)
    text = re.search(r"```yaml\n# orders.yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    labels = '  namespace: acme\n  labels: {transom.dev/protected: "true"}\n'
    (tmp_path / "orders.yaml").write_text(text)
    (tmp_path / "orders-moved.yaml").write_text(text.replace("kafka.example", "kafka-2.example"))
    (tmp_path / "orders-protected.yaml").write_text(text.replace("  namespace: acme\n", labels))
    said = {}
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            told = await transom(*shlex.split(line)[1:])
            assert told.code == 0, (line, told)
            said.setdefault(line, told.out)
            if "orders-protected" in line:
                refused(await transom("delete", "kafkacluster", "orders"), 1, "take the label away first")
    assert said["transom diff kafkacluster/orders@1 @2"].splitlines()[2:] == [
        '- spec.bootstrapServers: ["kafka.example:9092"]',
        '+ spec.bootstrapServers: ["kafka-2.example:9092"]',
    ]
    assert said["transom restore kafkacluster/orders --dry-run"] == "kafkacluster/orders would be restored\n"
    events = [item["event"] for item in (await transom("history", "kafkacluster/orders", "-o", "json")).json]
    assert events[0] == "PURGED"
    assert {"ADDED", "MODIFIED", "DELETED", "RESTORED"} <= set(events)
