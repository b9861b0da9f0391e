"""A hub for clients that nobody here wrote: a process, over TLS by its own authority, with a region.

They get what people get: a kubeconfig by `transom kubeconfig`, with the administrator's key or with one that
a role is bound to.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from benchmarks.plant import Plant

from cli_parts import TRANSOM, environment

TENANT = "acme"
GADGETS = Path(__file__).parent / "clients" / "gadgets.py"
PATIENCE_SECONDS = 60.0
Found = TypeVar("Found")


@dataclass
class Served:
    """A hub that runs, and who may call it."""

    plant: Plant
    kubeconfig: Path
    """The administrator's, for tenant acme."""

    @property
    def folder(self) -> Path:
        return self.plant.folder

    def transom(self, *arguments: str) -> str:
        """Run `transom` as the administrator; what it prints."""
        hub = self.plant.hub
        way = {
            "TRANSOM_HUB": hub.address,
            "TRANSOM_KEY_FILE": str(hub.folder / "data" / "admin.key"),
            "TRANSOM_CA_FILE": str(hub.folder / "ca.pem"),
        }
        return _run([TRANSOM, *arguments], environment(**way), self.folder)

    def kubeconfig_of(self, role: str) -> Path:
        """The kubeconfig of a key of its own that has `role` in the tenant."""
        name = f"{role}-of-{TENANT}"
        key, kubeconfig = self.folder / f"{name}.key", self.folder / f"{name}.kubeconfig"
        if not kubeconfig.exists():
            self.transom("auth", "create-key", name, "--save", str(key))
            binding = {
                "apiVersion": "transom.dev/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name, "namespace": TENANT},
                "spec": {"role": role, "subjects": [{"kind": "Key", "name": name}]},
            }
            file = self.folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(binding))
            self.transom("apply", "-f", str(file))
            self.transom("kubeconfig", "-n", TENANT, "--key-file", str(key), "--output", str(kubeconfig))
        return kubeconfig

    def restart_hub(self) -> None:
        """Kill the hub's process, and start it again where it was."""
        self.plant.hub.kill()
        self.plant.hub.start()
        asyncio.run(self.plant.hub.ready())


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A hub with tenant acme, region eu, and a kind of its own, as processes; ended after the block."""
    plant = Plant(folder, ["eu"], {"a": "null"}, hub_settings=f'kind_modules = ["{GADGETS}"]')
    try:
        for part in plant.parts:
            part.start()
        asyncio.run(_ready(plant))
        made = Served(plant, folder / "kubeconfig")
        made.transom("kubeconfig", "--output", str(made.kubeconfig))
        yield made
    finally:
        for part in plant.parts:
            part.kill()


async def _ready(plant: Plant) -> None:
    for part in plant.parts:
        await part.ready()
    async with plant.client() as hub:
        await plant.declare(hub)


def _run(words: list[str], env: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        words, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def yaml(self) -> Any:
        return yaml.safe_load(self.out)


@dataclass
class Kubectl:
    """A kubectl with a kubeconfig, in a folder where nothing else is configured."""

    path: Path
    kubeconfig: Path
    home: Path
    minor: int
    """Of its version 1.X."""

    def with_key_of(self, kubeconfig: Path) -> "Kubectl":
        return Kubectl(self.path, kubeconfig, self.home, self.minor)

    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("TRANSOM_", "KUBE"))
        }
        return kept | {"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}

    def run(self, *words: str, stdin: str | None = None, **env: str) -> Said:
        """Run it to its end."""
        done = subprocess.run(
            [self.path, *words],
            input=stdin or "",
            env=self.environment() | env,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def __call__(self, *words: str, stdin: Any = None, **env: str) -> str:
        """What it prints, when it ends well."""
        text = stdin if isinstance(stdin, str) or stdin is None else yaml.safe_dump(stdin)
        said = self.run(*words, stdin=text, **env)
        assert said.code == 0, f"kubectl {' '.join(words)}: {said.code}\n{said.out}\n{said.err}"
        return said.out

    def refused(self, *words: str, stdin: Any = None, code: int = 1, **env: str) -> str:
        """What it says when it ends with `code`."""
        text = stdin if isinstance(stdin, str) or stdin is None else yaml.safe_dump(stdin)
        said = self.run(*words, stdin=text, **env)
        assert said.code == code, f"kubectl {' '.join(words)}: {said.code}\n{said.out}\n{said.err}"
        return said.out + said.err

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator["Background"]:
        """Run it in the background, until the end of the block."""
        process = subprocess.Popen(
            [self.path, *words],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield Background(process)
        finally:
            process.kill()
            process.communicate()


@dataclass
class Background:
    process: "subprocess.Popen[str]"

    def line(self) -> str:
        """Its next line; pytest's own timeout is the patience."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")


def gadget(name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A manifest of a Gadget."""
    return {
        "apiVersion": "clients.example/v1",
        "kind": "Gadget",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": spec,
    }


def until(found: Callable[[], Found]) -> Found:
    """What `found` gives, as soon as that is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (value := found()):
        assert time.monotonic() < end, f"not in {PATIENCE_SECONDS} s"
        time.sleep(0.05)
    return value
