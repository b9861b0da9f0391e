"""The context kind of docs/explanation/contexts.md does what the page says."""

import re
from pathlib import Path

import pytest

from transom.catalog.contexts import shipped_contexts
from transom.catalog.kinds import shipped
from transom.model.contexts import contexts_in
from transom.model.errors import InvalidError
from transom.model.resources import Metadata, Resource

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "contexts.md"


def test_the_example_is_a_context_kind_that_a_module_can_bring(tmp_path, monkeypatch):
    (tmp_path / "acme_contexts.py").write_text(
        re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    )
    monkeypatch.syspath_prepend(tmp_path)
    (kind,) = contexts_in(["acme_contexts"])
    tenant = Resource("Tenant", Metadata("acme"), spec={"title": "Acme"})
    assert kind.encode(kind.build(tenant, None)) == b'{"title":"Acme"}'
    with pytest.raises(InvalidError, match="title"):
        kind.build(Resource("Tenant", Metadata("acme"), spec={}), None)
    assert shipped_contexts(["acme_contexts"])["title"] is kind
    with pytest.raises(InvalidError, match="no_such_module"):
        contexts_in(["no_such_module"])


def test_the_page_names_every_kind_that_ships():
    told = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| `\1/", PAGE.read_text(), re.MULTILINE))
    assert set(told) == {kind.name for kind in shipped_contexts()}
    for kind in shipped_contexts():
        assert kind.subject in told[kind.name]
        assert kind.subject in {each.name for each in shipped()}
