"""The command line: `headwater COMMAND …`.

Commands are loaded when they are used: `--version` and `--help` import neither the platform nor its libraries.

Exit codes: 0 ok · 1 failed · 2 usage · 3 check failed · 4 partial · 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from importlib import import_module

import click

FAILED = 1
USAGE = 2
CHECK_FAILED = 3
PARTIAL = 4
INTERRUPTED = 130
# Of the machine, not of the program: a sentence says all, and no traceback.
MACHINE_FAULTS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})

# name → (module below `headwater.cli`, attribute, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "accounts": ("accounts", "accounts", "Add and look after the people who sign in."),
    "alerts": ("alerts", "alerts", "Who is told when streams are not well; mutes."),
    "backfill": ("backfill", "backfill", "Ingest a span of history beside the live stream."),
    "check": ("project", "check", "Prove connector projects, all problems at once."),
    "checkpoints": ("checkpoints", "checkpoints", "Show, set or reset where a stream goes on."),
    "connections": ("connections", "connections", "Add and look after connections and their secrets."),
    "db": ("db", "db", "Carry this installation over to PostgreSQL."),
    "deliveries": ("deliveries", "deliveries", "List, show and replay webhook deliveries."),
    "demo": ("demo", "demo", "Show the whole platform against a fake provider."),
    "deploy": ("deploy", "deploy", "Bring a version of a connector into service."),
    "deployments": ("deploy", "deployments", "The history of what was deployed."),
    "dev": ("project", "dev", "Serve one project and reload it when its files change."),
    "doctor": ("doctor", "doctor", "Look for what is wrong with this installation."),
    "export": ("export", "export", "Write records to JSONL, CSV or Parquet."),
    "init": ("project", "init", "Make a new connector project that passes its check."),
    "keys": ("keys", "keys", "Create, list and revoke keys of the HTTP API."),
    "logs": ("log_lines", "logs", "What the routes of connectors logged."),
    "quarantine": ("quarantine", "quarantine", "List, release or drop quarantined records."),
    "records": ("records", "records", "List records, or show one with its versions."),
    "rollback": ("deploy", "rollback", "Return to the version that ran before."),
    "run": ("run", "run", "Carry out one run of a stream now, in the foreground."),
    "runs": ("runs", "runs", "List, show and cancel runs."),
    "serve": ("serve", "serve", "Poll on schedule, receive webhooks, show health."),
    "streams": ("streams", "streams", "The health of every stream in a sentence."),
    "test": ("test", "test", "Put a connector through a provider that lies."),
    "trigger": ("trigger", "trigger", "Send a signed sample event to a connection's endpoint."),
}


def near_miss_error(word: str, known: list[str], what: str) -> click.UsageError:
    """The usage error for an unknown word, with the near miss or all that there is."""
    from headwater.errors import near_miss

    hint = near_miss(word, known) or f"Known: {', '.join(known)}."
    return click.UsageError(f"There is no {what} `{word}`. {_sentence(hint)}")


class NearMissGroup(click.Group):
    """A group that names the near miss of an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group`."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise near_miss_error(args[0], self.list_commands(ctx), "command")
        return super().resolve_command(ctx, args)


class ListGroup(NearMissGroup):
    """A group that lists when it is given no command: `headwater runs --json` is `headwater runs list --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Group`."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


class _Root(NearMissGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"headwater.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"headwater {version('headwater')}")
        ctx.exit()


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def root() -> None:
    """Headwater: declare streams, poll and receive, ingest once, see the health of each."""


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Carry out one command line; its exit code. Errors of ours are sentences on stderr, never tracebacks."""
    try:
        code = root.main(args=arguments, prog_name="headwater", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except Exception as error:
        return _failed(error)
    return code if isinstance(code, int) else 0


def _failed(error: Exception) -> int:
    from headwater.errors import CheckFailedError, ConfigError, ConflictError, HeadwaterError, RequestError

    if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
        where = f" at {error.filename}" if error.filename else ""
        click.echo(f"Error: The system refuses{where}: {error.strerror}.", err=True)
        return FAILED
    if not isinstance(error, HeadwaterError):
        raise error
    click.echo(f"Error: {error.message} {_sentence(error.hint)}".rstrip(), err=True)
    if isinstance(error, CheckFailedError):
        return CHECK_FAILED
    is_usage = isinstance(error, (RequestError, ConfigError)) and not isinstance(error, ConflictError)
    return USAGE if is_usage else FAILED


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
