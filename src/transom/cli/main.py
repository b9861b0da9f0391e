"""`transom VERB …`: which verbs there are, and which module holds each.

Only the module of the verb in use is loaded, so that `--help` is quick and a region's process holds nothing
of the hub. Next: `cli.common` is what the verbs share.
"""

import importlib
import os
import sys

import click

from transom.cli.exit_codes import EXPLAINED, INTERRUPTED

VERBS = {
    "up": ("processes", "Run a hub and regions on this machine, each a process of its own."),
    "hub": ("processes", "Run the hub of a configuration file."),
    "region": ("processes", "Run one region of a configuration file."),
    "gateway": ("processes", "Run one gateway of a configuration file."),
    "drill": ("processes", "Take the hub or a region away on purpose, and say what it cost."),
    "mirror": ("mirror", "Mirror topics and consumer groups of one Kafka cluster to another."),
    "offsets": ("mirror", "Where a consumer goes on in the copy of a topic."),
    "apply": ("apply", "Create or change what the documents in a file declare."),
    "get": ("get", "List resources, or show one."),
    "describe": ("describe", "All there is to say of one resource."),
    "delete": ("apply", "Delete a resource, or what the documents in a file declare."),
    "wait": ("wait", "Wait until a resource is ready, or gone."),
    "history": ("history", "Who changed a resource, when, from where, why, and what."),
    "diff": ("history", "What is different between two generations of a resource."),
    "restore": ("undo", "Bring back what was deleted, with all that went with it."),
    "purge": ("undo", "Keep nothing of what was deleted, so that it cannot be brought back."),
    "layers": ("inspect", "The kinds, and the floor each stands on."),
    "regions": ("inspect", "The roads to every region: reachable, how far behind, how old what it knows."),
    "processes": ("inspect", "The hub's own processes, and what each of them does."),
    "keys": ("keys", "Make, list and revoke API keys."),
    "auth": ("auth", "Who you are to the hub, what you may do, and keys to the hub itself."),
    "contexts": ("contexts", "What regions are told, and what guards hold back: show, freeze, allow."),
    "audit": ("audit", "Export every change, in lines that hold each other; verify that none was touched."),
    "kubeconfig": ("kubeconfig", "How kubectl, and what else reads a kubeconfig, finds the hub."),
    "version": ("inspect", "Which release this is, and which the hub is."),
}
"""Verb: the module that holds it, and its line in --help."""


class Verbs(click.Group):
    """A group whose commands are found in `VERBS` and loaded when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order they are told of."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the command of a verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"transom.cli.{VERBS[cmd_name][0]}")
        return getattr(module, f"{cmd_name}_command")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was meant."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            from difflib import get_close_matches  # noqa: PLC0415  # not loaded unless somebody mistypes

            near = get_close_matches(args[0], VERBS, 1)
            ctx.fail(f"there is no verb {args[0]!r}" + (f"; is it {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without loading them."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(cls=Verbs, epilog=EXPLAINED, context_settings={"help_option_names": ["-h", "--help"]})
def transom() -> None:
    """One pane of glass over many regions: declare once at a hub, every region makes it so by itself."""


def main() -> None:
    """The entry point of the `transom` command."""
    try:
        transom.main(prog_name="transom", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough of it. What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        from transom.cli.failures import tell  # noqa: PLC0415  # not loaded for --help

        code = tell(error)
        if code is None:
            raise
        sys.exit(code)
