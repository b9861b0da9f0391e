"""A kubeconfig for the hub: the file by which kubectl, and all that reads such files, finds it.

One cluster (the address, and whom to trust), one user (the key), one context (both, and a tenant as the
namespace). The key stands in `token`, the one field that every client reads: kubectl and lightkube also know
`tokenFile`, kr8s and kopf do not. So the file is a secret (mode 0600), and the key's successor needs another.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from transom.client.config import ClientConfig
from transom.model.errors import InvalidError, Problem
from transom.runtime.secret_files import write_private

_MARK = "transom.dev"
"""The extension by which a cluster of ours is known; clients leave extensions as they are."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def kubeconfig(config: ClientConfig, key: str, namespace: str) -> str:
    """The text of the file. `namespace` is the context's, "" for none.

    Raises `InvalidError` when `ca_file` cannot be read or holds no certificate.
    """
    place = urlsplit(config.hub).netloc
    name = f"transom-{place}"
    cluster: dict[str, Any] = {"server": config.hub}
    if config.ca_file is not None:
        trusted = base64.b64encode(_certificates(config.ca_file)).decode()
        cluster["certificate-authority-data"] = trusted
    cluster["extensions"] = [{"name": _MARK, "extension": {"made-by": "transom kubeconfig"}}]
    context = {"cluster": name, "user": name}
    if namespace:
        context["namespace"] = namespace
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": key}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def write_kubeconfig(file: Path, text: str, *, force: bool) -> None:
    """Write it to `file`, whole or not at all, for its owner alone.

    Raises `InvalidError` when it cannot be written, or when there is a file that is not all ours: it may lead
    to other clusters. `force` replaces that, too.
    """
    try:
        if not force and file.exists() and not _is_ours(file):
            wrong = "is there, and not as `transom kubeconfig` makes it; name another file, or give --force"
            raise InvalidError(f"kubeconfig {file}", [Problem("", wrong)])
        write_private(file, text)
    except OSError as error:
        raise InvalidError(f"kubeconfig {file}", [Problem("", f"cannot be written: {error}")]) from None


def _is_ours(file: Path) -> bool:
    """Whether all clusters in it are marked as ours."""
    try:
        clusters = yaml.safe_load(file.read_bytes())["clusters"]
        marks = [{each["name"] for each in one["cluster"]["extensions"]} for one in clusters]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, RecursionError):
        return False
    return bool(marks) and all(_MARK in each for each in marks)


def _certificates(file: Path) -> bytes:
    """The certificates in a file of PEM; whatever else it holds, perhaps a key, stays there."""
    try:
        found: list[bytes] = _CERTIFICATE.findall(file.read_bytes())
    except OSError as error:
        raise InvalidError("the way to the hub", [Problem("ca_file", f"cannot be read: {error}")]) from None
    if not found:
        raise InvalidError("the way to the hub", [Problem("ca_file", f"{file} holds no certificate in PEM")])
    return b"\n".join(found) + b"\n"
