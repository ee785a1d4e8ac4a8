"""`baton topics`: the topology's topics, created on a broker or compared with it."""

import click

from schemas.topology import TOPICS, topic_spec
from services.cli.address import bootstrap_option, connected, known_settings, run
from shared.broker import Broker

topics = click.Group("topics", help="Create or list Baton's topics.")


async def create_all(broker: Broker, request_partitions: int) -> list[str]:
    """Create what is missing, grow what has too few partitions, set what was altered. Returns the names it created."""
    return list(await broker.create_topics([topic_spec(topic, request_partitions) for topic in TOPICS]))


@topics.command("apply")
@bootstrap_option
def apply_topics(bootstrap: str | None) -> None:
    """Create what is missing, grow partitions, alter settings; nothing is ever deleted or shrunk."""

    async def created() -> list[str]:
        settings = known_settings(bootstrap)
        async with connected(settings) as broker:
            return await create_all(broker, settings.request_partitions)

    names = run(created())
    for name in names:
        click.echo(f"+ {name}")
    click.echo(f"{len(TOPICS)} topics are as they should be; {len(names)} of them are new")


@topics.command("list")
@bootstrap_option
@click.pass_context
def list_topics(context: click.Context, bootstrap: str | None) -> None:
    """Every topic with its partitions on the broker; exit code 1 if one is missing."""

    async def found() -> dict[str, int]:
        async with connected(known_settings(bootstrap)) as broker:
            return dict(await broker.partition_counts([topic.name for topic in TOPICS]))

    counts = run(found())
    for topic in TOPICS:
        count = counts.get(topic.name)
        partitions = "missing" if count is None else f"{count} partitions"
        click.echo(f"{topic.name:20} {partitions:14} {topic.cleanup.value:8} {topic.holds}")
    if len(counts) < len(TOPICS):
        click.echo("Create the missing ones with: baton topics apply", err=True)
        context.exit(1)
