"""The table of topics and stages as a Mermaid flowchart and a Markdown table, for the README.

A stage and a topic may share a name, so every node carries its kind: `stage_intake`, `topic_intake`.
"""

from collections.abc import Iterable, Iterator

from schemas.topology import (
    DAY_MS,
    DEAD_LETTERS,
    OPERATORS_WRITE,
    STAGES,
    TOPICS,
    USERS_READ,
    USERS_WRITE,
    Cleanup,
    Topic,
)

BEGIN = "<!-- topology:begin -->"
END = "<!-- topology:end -->"

TAILED_BY_ALL = tuple(topic for topic in TOPICS if all(topic in stage.tables for stage in STAGES))
"""Drawn as a sentence: an arrow from each to every stage would hide the path of a request."""


def between_markers(readme: str) -> str:
    """The README with the picture of today between its markers. Raises ValueError when a marker is missing."""
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"README.md: the lines {BEGIN} and {END} are missing; put them where the picture belongs")
    head, rest = readme.split(BEGIN, 1)
    return head + BEGIN + "\n" + picture() + END + rest.split(END, 1)[1]


def picture() -> str:
    """The flowchart, what it leaves out, and the table of topics."""
    lines = ["```mermaid", "flowchart LR", *_nodes(), *_arrows(), "```", "", _left_out(), "", *_table(), ""]
    return "\n".join(lines)


def _drawn() -> dict[str, tuple[Topic, ...]]:
    """Node names to topics. Topics with the same readers, writers and payload are one node: the lanes of `plans`."""
    groups: dict[tuple[object, ...], list[Topic]] = {}
    for topic in TOPICS:
        if topic is not DEAD_LETTERS and topic not in TAILED_BY_ALL:
            groups.setdefault((_writers(topic), _readers(topic), topic.payload), []).append(topic)
    return {f"topic_{_identifier(group[0].name)}": tuple(group) for group in groups.values()}


def _nodes() -> Iterator[str]:
    yield "  users((users))"
    for stage in STAGES:
        yield f'  stage_{_identifier(stage.name)}["{stage.name}"]'
    for node, topics in _drawn().items():
        yield f'  {node}[("{"<br/>".join(topic.name for topic in topics)}")]'
    yield "  classDef stage fill:#1f6feb,color:#fff,stroke:#1f6feb"
    yield "  class " + ",".join(f"stage_{_identifier(stage.name)}" for stage in STAGES) + " stage"


def _arrows() -> Iterator[str]:
    for node, (topic, *_) in _drawn().items():
        if topic in USERS_WRITE:
            yield f"  users --> {node}"
        for stage in STAGES:
            name = f"stage_{_identifier(stage.name)}"
            if topic in stage.writes:
                yield f"  {name} --> {node}"
            if topic in stage.reads:
                yield f"  {node} --> {name}"
            if topic in stage.tables:
                yield f"  {node} -.-> {name}"
        if topic in USERS_READ:
            yield f"  {node} --> users"


def _left_out() -> str:
    tailed = ", ".join(f"`{topic.name}`" for topic in TAILED_BY_ALL)
    return (
        f"Dotted: read whole, outside of the consumer group. Not drawn: every stage also reads {tailed} that way "
        f"and writes what it must reject to `{DEAD_LETTERS.name}`."
    )


def _table() -> Iterator[str]:
    yield "| topic | key | written by | read by | partitions | kept | holds |"
    yield "|---|---|---|---|---|---|---|"
    for topic in TOPICS:
        partitions = str(topic.partitions or "as requests")
        cells = (f"`{topic.name}`", topic.key.value, _writers(topic), _readers(topic), partitions, _kept(topic))
        yield f"| {' | '.join(cells)} | {topic.holds} |"


def _writers(topic: Topic) -> str:
    if topic is DEAD_LETTERS:
        return "every stage"
    names = [stage.name for stage in STAGES if topic in stage.writes]
    return _list(["users"] * (topic in USERS_WRITE) + ["operators"] * (topic in OPERATORS_WRITE) + names)


def _readers(topic: Topic) -> str:
    if topic in TAILED_BY_ALL:
        return "every stage"
    names = [stage.name for stage in STAGES if topic in stage.reads or topic in stage.tables]
    return _list(names + ["users"] * (topic in USERS_READ))


def _kept(topic: Topic) -> str:
    if topic.cleanup is Cleanup.COMPACT:
        return "newest per key"
    hours = topic.retention_ms // 3_600_000
    return f"{hours} h" if topic.retention_ms < DAY_MS else f"{topic.retention_ms // DAY_MS} d"


def _list(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _identifier(name: str) -> str:
    return name.replace("-", "_").replace(".", "_")
