"""`baton pipelines`: check, draw and run the pipelines of a config. Checking and drawing need no broker."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from schemas.config import ConfigFile
from schemas.messages import Completion, Plan
from schemas.pipeline import Condition, Node, Step, expanded, steps_max
from schemas.topology import COMPLETIONS, PLANS, Topic
from services.cli.address import bootstrap_option, connected, known_settings, run
from services.cli.config_file import load
from services.cli.describe import request_of
from services.cli.send import GRACE_S, POLL_MS, WAIT_S, correspondence, record_of, text_of
from shared.broker import Reader
from shared.codec import decode
from shared.errors import ConfigError

_TESTS = {"equals": "is", "one_of": "is one of", "contains": "contains", "matches": "matches", "at_least": "≥", "at_most": "≤"}
_SHOWN_CHARS = 60


@click.group("pipelines")
def pipelines() -> None:
    """Check, draw and run the pipelines of a config."""


_file = click.option("--file", default="baton.yaml", show_default=True, type=click.Path(path_type=Path))


@pipelines.command("check")
@_file
def check(file: Path) -> None:
    """Say what is wrong with the file, with line, field and fix; exit 1 if anything is."""
    config = _loaded(file)
    for name in sorted(config.pipelines):
        click.echo(f"{name}: {_summary(expanded(name, config.pipelines))}")
    click.echo(f"{len(config.pipelines)} pipelines, nothing wrong")


@pipelines.command("show")
@click.argument("name")
@click.option("--mermaid", is_flag=True, help="As a Mermaid flowchart instead of a tree.")
@_file
def show(name: str, mermaid: bool, file: Path) -> None:
    """Draw a pipeline's tree, references written out."""
    tree = _tree(_loaded(file), name)
    if mermaid:
        click.echo("\n".join(mermaid_lines(tree)))
    else:
        Console(highlight=False, soft_wrap=True).print(drawn(name, tree))


def _loaded(file: Path) -> ConfigFile:
    try:
        return load(file)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def _tree(config: ConfigFile, name: str) -> Node:
    if name not in config.pipelines:
        raise click.ClickException(f"no pipeline {name!r}; there are {', '.join(sorted(config.pipelines)) or 'none'}")
    return expanded(name, config.pipelines)


def _summary(tree: Node) -> str:
    steps = steps_max(tree)
    return f"{tree.kind}, at most {steps} step{'' if steps == 1 else 's'}"


@pipelines.command("run")
@click.argument("name")
@click.argument("prompt")
@click.option("--max-cost-usd", type=click.FloatRange(0))
@click.option("--deadline-ms", type=click.IntRange(1), help="Within which an answer is of use.")
@click.option("--tenant", help="Default: the one that needs no key.")
@bootstrap_option
def run_(name: str, prompt: str, bootstrap: str | None, **options: Any) -> None:
    """Send PROMPT through the running Baton's pipeline NAME; one line per step, then the answer."""
    body = {"prompt": prompt, "pipeline": name} | {key: value for key, value in options.items() if value is not None}
    wait_s = max(WAIT_S, (options["deadline_ms"] or 0) / 1000 + GRACE_S)
    if not run(_run(body, wait_s, bootstrap)):
        raise click.ClickException(f"no result within {wait_s:.0f} s; is `baton up` running?")


async def _run(body: dict[str, Any], wait_s: float, bootstrap: str | None) -> bool:
    """Whether a result came."""
    async with connected(known_settings(bootstrap)) as broker, correspondence(broker) as line, AsyncExitStack() as stack:
        topics = [*PLANS.values(), COMPLETIONS]
        readers = [(topic, await broker.reader(topic.name, at_end=True)) for topic in topics]
        for _, reader in readers:
            stack.push_async_callback(reader.close)
        (id,) = await line.send([record_of(orjson.dumps(body))])
        following = [asyncio.create_task(_follow(topic, reader, id)) for topic, reader in readers]
        try:
            async for result, at_ms in line.answers(wait_s):
                if result.request_id == id:
                    click.echo(text_of(result, at_ms))
                    return True
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
    return False


async def _follow(topic: Topic, reader: Reader, id: str) -> None:
    while True:
        for record in await reader.poll(POLL_MS):
            if request_of(topic, record) == id and (told := progress_of(decode(topic, record.value).payload)):
                click.echo(click.style(told, dim=True))


def progress_of(payload: Plan | Completion) -> str:
    """What a plan or a completion says of its step; nothing of a plain request, and never what was asked or answered."""
    if isinstance(payload, Plan) and payload.cancels:
        return f"cut    {', '.join(payload.cancels)}"
    if payload.slip is None:
        return ""
    if isinstance(payload, Plan):
        asked = payload.candidates[0].model if payload.candidates else "nobody"
        again = f", try {payload.number + 1}" if payload.number else ""
        return f"ask    {payload.slip.step:12} {asked}{again}"
    took = payload.cost_microusd - sum(each.cost_microusd for each in payload.slip.yields)
    said = payload.answer.model if payload.answer is not None else payload.failure.reason.value if payload.failure else ""
    return f"end    {payload.slip.step:12} {said}, {took} micro-USD"


# A tree for the terminal ----------------------------------------------------------------------------------------------


def drawn(name: str, tree: Node) -> Tree:
    """The tree with each node's path, by which plans, the ledger and progress name it."""
    root = Tree(escape(f"{name}: {_summary(tree)}"))
    _draw(root, tree, "p", "")
    return root


def _draw(onto: Tree, node: Node, path: str, before: str) -> None:
    label = f"[dim]{path}[/] {escape(before)}{escape(label_of(node))}"
    branch = onto.add(label)
    for number, (words, part) in enumerate(_parts(node)):
        number_shown = "*" if node.loop is not None or node.map is not None else str(number)
        _draw(branch, part, f"{path}.{number_shown}", words)


def _parts(node: Node) -> Iterator[tuple[str, Node]]:
    """The nodes below, each with the words that lead to it."""
    for number, (location, part) in enumerate(node.parts()):
        words = ""
        if node.branch is not None:
            is_case = number < len(node.branch.cases)
            words = f"where {condition_text(node.branch.cases[number].when)}: " if is_case else "else: "
        elif location == ("parallel", "reader"):
            words = "reader: "
        yield words, part


def label_of(node: Node) -> str:
    """A node in a few words."""
    named = f"{node.name} = " if node.name else ""
    if node.step is not None:
        return named + _step_label(node.step)
    if node.parallel is not None:
        quorum = f", quorum {node.parallel.needed} of {len(node.parallel.branches)}"
        limit = f", at most {node.parallel.limit_ms} ms" if node.parallel.limit_ms is not None else ""
        return f"{named}parallel, merge {node.parallel.merge}{quorum}{limit}"
    if node.loop is not None:
        until = "the gate passes" if node.loop.until is None else condition_text(node.loop.until)
        return f"{named}loop until {until}, at most {node.loop.at_most} turns"
    if node.map is not None:
        return f"{named}map over {node.map.over}, {node.map.width} at a time, at most {node.map.items_max}"
    return f"{named}{node.kind}"


def _step_label(step: Step) -> str:
    by = f" by {step.model}" if step.model else f" by policy {step.policy}" if step.policy else ""
    shown = " ".join((step.prompt or "the request's own messages").split())
    return f"step{by}: {shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 1] + '…'}"


def condition_text(condition: Condition) -> str:
    """A condition as people say it."""
    if condition.exists is not None:
        return f"{condition.value} {'is there' if condition.exists else 'is not there'}"
    test = next(name for name in _TESTS if getattr(condition, name) not in (None, ()))
    wanted = getattr(condition, test)
    return f"{condition.value} {_TESTS[test]} {', '.join(wanted) if isinstance(wanted, tuple) else wanted}"


# Mermaid --------------------------------------------------------------------------------------------------------------


def mermaid_lines(tree: Node) -> Iterator[str]:
    """A flowchart: steps are boxes, decisions and joins are diamonds, what repeats is framed."""
    yield "flowchart TD"
    yield "  asked((request))"
    lines, last = _flow(tree, "p", "asked", "")
    yield from lines
    yield f"  {last} --> ended((result))"


def _flow(node: Node, path: str, come_from: str, words: str) -> tuple[list[str], str]:
    """The lines of a node, and the box that it ends in."""
    id = path.replace(".", "_")
    arrow = f"-- {_quoted(words)} -->" if words else "-->"
    if node.step is not None:
        return [f"  {id}[{_quoted(label_of(node))}]", f"  {come_from} {arrow} {id}"], id
    if node.sequence is not None:
        lines: list[str] = []
        last = come_from
        for number, part in enumerate(node.sequence):
            more, last = _flow(part, f"{path}.{number}", last, words if number == 0 else "")
            lines += more
        return lines, last
    if node.loop is not None or node.map is not None:
        ((_, part),) = _parts(node)
        begin = f"  {id}{{{{{_quoted(label_of(node))}}}}}"
        inside, last = _flow(part, f"{path}.0", id, "each" if node.map is not None else "turn")
        return [begin, f"  {come_from} {arrow} {id}", *inside, f"  {last} -.-> {id}"], id
    return _fan(node, path, come_from, arrow)


def _fan(node: Node, path: str, come_from: str, arrow: str) -> tuple[list[str], str]:
    id = path.replace(".", "_")
    lines = [f"  {id}{{{_quoted(label_of(node))}}}", f"  {come_from} {arrow} {id}"]
    join = f"{id}_join"
    readers: list[str] = []
    for number, (words, part) in enumerate(_parts(node)):
        if words == "reader: ":
            readers, _ = _flow(part, f"{path}.{number}", join, "")
            continue
        inside, last = _flow(part, f"{path}.{number}", id, words.rstrip(": "))
        lines += [*inside, f"  {last} --> {join}"]
    lines.append(f"  {join}([{_quoted(node.parallel.merge if node.parallel else 'then')}])")
    return lines + readers, f"{path}.{len(node.parallel.branches)}".replace(".", "_") if readers and node.parallel else join


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;").replace("{", "#123;").replace("}", "#125;") + '"'
