"""The `baton` command. Each subcommand is imported when it is used, so that `baton --help` is quick."""

import os
from importlib import import_module
from keyword import iskeyword

import click

# name: (module, what it does). A test keeps each sentence equal to the command's own.
COMMANDS = {
    "up": ("services.cli.up", "Run all of Baton on this machine."),
    "send": ("services.cli.send", "Ask something through the intake topic, and print the answer."),
    "tail": ("services.cli.tail", "Follow a topic, one readable line per record."),
    "trace": ("services.cli.trace", "Everything the log holds of one request, in the order of time."),
    "explain": (
        "services.cli.explain",
        "Why a request went where it went: candidates, figures, what was left out, and what came of it.",
    ),
    "replay": ("services.cli.replay", "Put recorded tasks through another config, off-line, and print what it would change."),
    "apply": ("services.cli.apply", "Check FILE (default: baton.yaml) and put it into force, without a restart of anything."),
    "certify": (
        "services.cli.certify.command",
        "Test what MODEL can do with a small suite of checked tasks, and write its certificate to the config.",
    ),
    "import": ("services.cli.importers.command", "Turn another tool's models and prices into a baton.yaml, on stdout."),
    "pipelines": ("services.cli.pipelines", "Check, draw and run the pipelines of a config."),
    "review": ("services.cli.review", "What waits for a person: list, accept, reject or edit answers."),
    "topics": ("services.cli.topics", "Create or list Baton's topics."),
    "broker": ("services.cli.broker", "A real Apache Kafka on this machine, in the background; Python is all it needs."),
}


class LazyGroup(click.Group):
    """Knows its commands by name, and loads one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Baton: durable AI orchestration on Kafka. Start with `baton up --demo`."""
    os.umask(0o077)   # what a local Kafka keeps, and what logs say, is for whoever started it: prompts and answers are in it


if __name__ == "__main__":
    main(prog_name="baton")
