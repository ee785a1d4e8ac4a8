"""`baton topics`: the topology's topics, created on a broker or compared with it."""

from collections.abc import Mapping

import click

from schemas.topology import TOPICS, topic_spec
from services.cli.address import bootstrap_option, connected, known_settings, run
from shared.broker import Broker
from shared.kafka import TopicShape

topics = click.Group("topics", help="Create or list Baton's topics.")


async def create_all(broker: Broker, request_partitions: int) -> list[str]:
    """Create what is missing, grow what has too few partitions, set what differs. Returns the names it created."""
    return list(await broker.create_topics([topic_spec(topic, request_partitions) for topic in TOPICS]))


@topics.command("apply")
@bootstrap_option
def apply_topics(bootstrap: str | None) -> None:
    """Create what is missing, grow partitions, set what differs; nothing is ever deleted or shrunk, and what else an operator
    has set on a topic stays.
    """

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
    """Every topic with its partitions and their copies on the broker; exit code 1 if one is missing."""

    async def found() -> Mapping[str, TopicShape]:
        async with connected(known_settings(bootstrap)) as broker:
            return await broker.shapes([topic.name for topic in TOPICS])

    shapes = run(found())
    for topic in TOPICS:
        shape = shapes.get(topic.name)
        has = f"{shape.partitions} partitions x {shape.copies}" if shape else "missing"
        click.echo(f"{topic.name:20} {has:18} {topic.cleanup.value:8} {topic.holds}")
    if len(shapes) < len(TOPICS):
        click.echo("Create the missing ones with: baton topics apply", err=True)
        context.exit(1)
