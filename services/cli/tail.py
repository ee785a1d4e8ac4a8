"""`baton tail`: a topic as lines to read, until Ctrl-C. It belongs to no consumer group, so it disturbs nobody."""

from datetime import UTC, datetime

import click

from schemas.topology import TOPICS, topic_named
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.describe import describe, request_of

POLL_MS = 500


@click.command("tail")
@click.argument("topic", type=click.Choice([topic.name for topic in TOPICS]), metavar="TOPIC")
@click.option("--from-beginning", is_flag=True, help="First everything that is there.")
@click.option("--request", metavar="ID", help="Only records of this request; the beginning of its id is enough.")
@click.option("--json", "as_json", is_flag=True, help="Values as they are, for another program.")
@bootstrap_option
def tail(topic: str, from_beginning: bool, request: str | None, as_json: bool, bootstrap: str | None) -> None:
    """Follow a topic, one readable line per record."""
    try:
        run(_tail(topic, from_beginning, request or "", as_json, bootstrap))
    except KeyboardInterrupt:
        return


async def _tail(name: str, from_beginning: bool, request: str, as_json: bool, bootstrap: str | None) -> None:
    topic = topic_named(name)
    async with connected(known_settings(bootstrap)) as broker:
        reader = await broker.reader(name, at_end=not from_beginning)
        try:
            while True:
                for record in await reader.poll(POLL_MS):
                    id = request_of(topic, record) or ""
                    if not id.startswith(request):
                        continue
                    if as_json:
                        click.echo(record.value or b"")
                        continue
                    at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
                    click.echo(f"{at} {record.partition}@{record.offset} {id[:12]:12} {describe(topic, record)}")
        finally:
            await reader.close()
