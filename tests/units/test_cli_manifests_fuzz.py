"""Spoilt files given to `transom apply`: read, or refused with the place that is wrong; never a trace."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifest_damage import SOUND, damaged, texts
from transom.catalog.kinds import shipped
from transom.cli.manifests import manifests_in, read_documents
from transom.client.kinds import Kinds
from transom.model.errors import InvalidError
from transom.model.schemas import schema_of

FACES = tuple(shipped().faces)
KINDS = Kinds(FACES)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of up to three documents, each spoilt or sound."""
    documents: list[bytes] = []
    for kind in draw(st.lists(st.sampled_from(FACES), max_size=3)):
        envelope = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": "a"}}
        value = draw(damaged({**envelope, **SOUND[kind.group, kind.name]}, schema_of(kind)))
        documents.append(draw(texts(value, as_yaml=draw(st.booleans()))))
    return b"\n---\n".join(documents)


def test_whatever_a_file_holds_is_read_or_refused_with_its_place(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path: Path = tmp_path_factory.mktemp("files") / "some.yaml"
    read, wrong = [0], [0]

    @settings(max_examples=150, derandomize=True, database=None)
    @given(files())
    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            manifests, errors = manifests_in(read_documents((str(path),)), KINDS)
        except InvalidError as error:
            errors, manifests = [error], []
        for error in errors:
            assert str(path) in str(error)
            assert error.problems
        for manifest in manifests:
            assert isinstance(manifest.body, dict)
            assert manifest.name == manifest.body["metadata"]["name"]
        read[0] += len(manifests)
        wrong[0] += len(errors)

    one()
    assert min(read[0], wrong[0]) > 20
