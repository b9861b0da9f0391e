"""`transom kubeconfig`: what it writes, what clients make of it, and which files it leaves alone."""

import base64
import stat

import pytest
import yaml

from api_parts import KEY, served
from cli_here import transom
from hub_parts import put, tenant
from tls_parts import TRUST, say_where
from transom.client.config import ClientConfig
from transom.client.kubeconfig import kubeconfig, write_kubeconfig
from transom.model.errors import InvalidError


@pytest.fixture
async def hub(tmp_path):
    """A served API, and a folder from which the command line finds it."""
    async with served(tmp_path / "hub") as api:
        say_where(tmp_path, api.address, KEY)
        api.folder = tmp_path
        yield api


async def test_it_leads_to_the_hub_with_its_only_tenant_as_namespace(hub):
    written = await transom("kubeconfig", "-o", "kube.yaml", cwd=hub.folder)
    assert (written.code, written.out) == (0, "")
    assert "KUBECONFIG=kube.yaml kubectl" in written.err
    file = hub.folder / "kube.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = yaml.safe_load(file.read_text())
    (cluster,), (user,), (context,) = document["clusters"], document["users"], document["contexts"]
    assert cluster["cluster"]["server"] == hub.address
    trusted = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    assert trusted == TRUST.ca_file.read_bytes()
    assert user["user"] == {"token": KEY}
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"], "namespace": "acme"}
    assert document["current-context"] == context["name"]
    shown = await transom("kubeconfig", cwd=hub.folder)
    assert (shown.code, shown.out) == (0, file.read_text())


async def test_of_several_tenants_one_must_be_said(hub):
    await hub.store.write(put(tenant("other")))
    none = await transom("kubeconfig", cwd=hub.folder)
    assert "namespace" not in yaml.safe_load(none.out)["contexts"][0]["context"]
    assert "say which tenant" in none.err
    one = await transom("kubeconfig", "--tenant", "other", cwd=hub.folder)
    assert yaml.safe_load(one.out)["contexts"][0]["context"]["namespace"] == "other"
    unknown = await transom("kubeconfig", "-n", "nobody", "-o", "kube.yaml", cwd=hub.folder)
    assert unknown.code == 1
    assert "nobody" in unknown.err
    assert not (hub.folder / "kube.yaml").exists()


async def test_a_hub_that_refuses_or_is_away_leaves_no_file(hub):
    (hub.folder / ".transom" / "admin.key").write_text("another key\n")
    refused = await transom("kubeconfig", "-o", "kube.yaml", cwd=hub.folder)
    say_where(hub.folder, "https://127.0.0.1:1", KEY)
    away = await transom("kubeconfig", "-o", "kube.yaml", cwd=hub.folder)
    assert (refused.code, away.code) == (1, 3)
    assert not (hub.folder / "kube.yaml").exists()


OTHERS = {
    "nothing": "",
    "no YAML": "a: [",
    "a list": "- 1",
    "another cluster": "clusters: [{name: prod, cluster: {server: https://prod}}]",
    "no cluster": "clusters: []",
    "ours and another": "clusters: [{name: a, cluster: {extensions: [{name: transom.dev}]}}, "
    "{name: prod, cluster: {server: https://prod}}]",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_that_is_not_ours_is_left_alone_unless_forced(tmp_path, what):
    file = tmp_path / "config"
    held = OTHERS[what] if isinstance(OTHERS[what], bytes) else OTHERS[what].encode()
    file.write_bytes(held)
    text = kubeconfig(ClientConfig(hub="https://h:1", key_file=tmp_path), "the-key", "")
    with pytest.raises(InvalidError, match="--force"):
        write_kubeconfig(file, text, force=False)
    assert file.read_bytes() == held
    write_kubeconfig(file, text, force=True)
    file.chmod(0o644)
    write_kubeconfig(file, text.replace("the-key", "the-next"), force=False)
    assert "the-next" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_cannot_be_written_or_trusted_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidError, match="cannot be written"):
        write_kubeconfig(tmp_path / "file" / "config", "", force=False)
    config = ClientConfig(hub="https://h:1", key_file=tmp_path, ca_file=tmp_path / "ca.pem")
    with pytest.raises(InvalidError, match=r"ca_file: cannot be read"):
        kubeconfig(config, "key", "")
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InvalidError, match="holds no certificate"):
        kubeconfig(config, "key", "")


def test_a_private_key_beside_the_certificate_stays_where_it_is(tmp_path):
    both = TRUST.ca_file.with_name("authority.pem").read_text()
    (tmp_path / "both.pem").write_text(both)
    config = ClientConfig(hub="https://h:1", key_file=tmp_path, ca_file=tmp_path / "both.pem")
    (cluster,) = yaml.safe_load(kubeconfig(config, "key", ""))["clusters"]
    text = base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode()
    assert text.count("CERTIFICATE") == 2
    assert "PRIVATE" not in text


def test_without_an_authority_of_its_own_the_systems_is_trusted(tmp_path):
    document = yaml.safe_load(kubeconfig(ClientConfig(hub="https://h", key_file=tmp_path), "key", "acme"))
    assert "certificate-authority-data" not in document["clusters"][0]["cluster"]
    assert document["clusters"][0]["name"] == "transom-h"
