"""What docs/how-to/kubectl.md says is done as it says, and what it quotes of errors is what kubectl says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

from cli_parts import environment
from clients_parts import PATIENCE_SECONDS
from tls_parts import TRUST

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "kubectl.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.*?) \|", PAGE.partition("## When it does not work")[2], re.MULTILINE)


@pytest.fixture
def folder(hub, tmp_path):
    """A folder as `transom up` leaves one."""
    kept = tmp_path / ".transom" / "hub"
    kept.mkdir(parents=True)
    shutil.copy(hub.plant.hub.folder / "ca.pem", kept)
    shutil.copy(hub.plant.hub.folder / "data" / "admin.key", kept)
    way = f'hub = "{hub.plant.hub.address}"\nkey_file = "hub/admin.key"\nca_file = "hub/ca.pem"\n'
    (kept.parent / "client.toml").write_text(way)
    return tmp_path


def done(folder, *words):
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    ran = subprocess.run(
        words,
        cwd=folder,
        env=environment(PATH=path, HOME=str(folder)),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def test_every_command_of_the_page_works(hub, folder):
    commands = [
        command.replace("https://127.0.0.1:8480", hub.plant.hub.address)
        for command in re.findall(r"^\$ (.*)", PAGE, re.MULTILINE)
        if not command.startswith("kopf ")  # test_client_kopf.py runs that
    ]
    assert len(commands) >= 5
    told = done(folder, "bash", "-ec", "; echo '--next--'; ".join(commands)).split("--next--\n")
    version = [text for command, text in zip(commands, told, strict=True) if command.endswith("/version")]
    assert len(version) == 2
    for text in version:
        assert '"gitVersion"' in text.replace(" ", "")
    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    hub.transom("apply", "-f", str(deployment_in(folder)))
    assert "of-the-page" in yaml.safe_load(done(folder, sys.executable, "-c", program))
    hub.transom("delete", "-f", str(folder / "page.yaml"))


def deployment_in(folder):
    spec = {"app": "page", "version": "1", "command": ["true"], "regions": ["eu"]}
    metadata = {"name": "of-the-page", "namespace": "acme"}
    manifest = {"apiVersion": "transom.dev/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    (folder / "page.yaml").write_text(yaml.safe_dump(manifest))
    return folder / "page.yaml"


WRONG = {
    "another authority": ("certificate-authority", "ssl_ca_cert", str(TRUST.ca_file)),
    "another name": ("tls-server-name", "tls_server_name", "hub.example"),
    "no TLS": ("server", "host", "http://ADDRESS"),
    "another key": ("token", "api_key", "wrong"),
}


@pytest.mark.parametrize(("wrong", "row"), list(zip(WRONG, ROWS, strict=True)))
def test_what_goes_wrong_is_said_in_the_words_of_the_page(hub, new_kubectl, wrong, row):
    option, setting, value = WRONG[wrong]
    value = value.replace("ADDRESS", hub.plant.hub.address.removeprefix("https://"))
    told = new_kubectl.refused("get", "deployments", f"--{option}={value}")
    told += python_told(hub.kubeconfig, setting, value)
    for words in re.findall(r"`(.*?)`", row):
        assert re.search(re.escape(words).replace("…", ".*"), told, re.IGNORECASE), (words, told)


def python_told(kubeconfig, setting, value):
    """What Kubernetes' Python client says when one thing of its configuration is wrong."""
    configuration = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    configuration.retries = 0
    configuration.refresh_api_key_hook = None  # it would read the file again
    setattr(configuration, setting, {"authorization": f"Bearer {value}"} if setting == "api_key" else value)
    with client.ApiClient(configuration) as api, pytest.raises((client.ApiException, HTTPError)) as raised:
        client.CustomObjectsApi(api).list_namespaced_custom_object("transom.dev", "v1", "acme", "deployments")
    return str(raised.value)
