"""One hub, in a process of its own, for all tests of a worker; each test has names of its own."""

import gc
import warnings

import pytest

from clients_parts import Kubectl, served
from engines import kubectl as kubectls
from engines.jars import required
from engines.process import MissingEngineError
from engines_fixtures import NOT_TESTED


@pytest.fixture(autouse=True)
def let_go():
    """Connections that clients forget to close are their affair, and no later test's."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    with served(tmp_path_factory.mktemp("clients")) as running:
        yield running


@pytest.fixture(scope="session", params=["newest", "1.20"])
def any_kubectl(request):
    if request.param == "newest":
        return kubectls.newest(), 37
    try:
        return kubectls.oldest(), 20
    except MissingEngineError as error:
        if required():
            pytest.fail(f"TRANSOM_REQUIRE_ENGINES is set, and {error}", pytrace=False)
        pytest.skip(f"{NOT_TESTED}{error}")


@pytest.fixture(scope="session")
def kubectl(hub, any_kubectl, tmp_path_factory):
    """Both, with the administrator's key."""
    path, minor = any_kubectl
    return Kubectl(path, hub.kubeconfig, tmp_path_factory.mktemp("home"), minor)


@pytest.fixture(scope="session")
def new_kubectl(hub, tmp_path_factory):
    """The newest alone: for what the old one has not."""
    return Kubectl(kubectls.newest(), hub.kubeconfig, tmp_path_factory.mktemp("home"), 37)


@pytest.fixture
def name(request):
    """A name nobody else has."""
    words = request.node.name.removeprefix("test_").replace("_", "-").replace(".", "-").lower()
    return words.replace("[", "-").replace("]", "")[-50:].strip("-")
