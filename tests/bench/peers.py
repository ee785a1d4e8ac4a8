"""`make bench-peers`: LiteLLM's proxy and Baton, in turn in each round, against the same instant provider.

The proxy lives in an environment of its own under `.cache/peers`, never in this project's lock; installing it takes a few
minutes, once. Neither runs while the other is measured. Baton is asked by HTTP too, and its request and answer go through
the log on the way; the broker's share of that is shown apart.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import uvloop

from shared.scheduling import gather_turns
from tests.bench import litellm_proxy
from tests.bench.cpu import Meter, busy_warning, family, require_proc, rss_mb, surroundings
from tests.bench.load import HttpLoad, Taken, http_session
from tests.bench.report import OUT, Row, Target, latencies, medians, rounded_all, table, targets_table, write_section
from tests.bench.saturation import sustained
from tests.bench.system import HEADERS, LOG_DIR, Baton, Say, baton, chat_body, own, start_simulator, supervised, teller

PAUSE_S = 1.0
WARM_CALLERS, WARM_S = 16, 3.0   # the broker is a fresh JVM, the proxy fresh Python

CALLERS = (1, 8, 64)
RATES = (50, 100, 200)

# From topic to topic, which is how a backlog is worked off: the design's budget of 0.7 ms and 1,200/s, as the ratios that it is
# drawn from, since machines differ. By HTTP, what a durable layer should cost beside a proxy that holds the request in a socket.
TOPICS_REQUESTS_SHARE_MIN = 10.0
TOPICS_CPU_SHARE_MAX = 1 / 12
CPU_SHARE_MAX = 0.5
REQUESTS_SHARE_MIN = 2.0
P50_SHARE_MAX = 1.0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Gateway:
    """What can be asked for a chat completion, and the processes that this keeps busy; `broker` is counted apart."""

    name: str
    url: str
    headers: dict[str, str]
    pids: Callable[[], Mapping[str, int]]


@click.command()
@click.option("--quick", is_flag=True, help="One short round instead of three.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a target is missed.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path), help="File the figures go to.")
def main(quick: bool, strict: bool, out: Path) -> None:
    """LiteLLM's proxy beside Baton on this machine: requests a second, latency, CPU per request, memory."""
    require_proc()
    gather_turns()
    say = teller()
    litellm = litellm_proxy.install(say)
    if warning := busy_warning():
        say(warning)
    rounds, seconds = (1, 3.0) if quick else (3, 6.0)
    figures = {"quick": quick, "rounds": rounds, "litellm": litellm_proxy.VERSION, **surroundings()}
    figures["gateways"] = measure(litellm, rounds, seconds, say)
    targets = targets_of(figures["gateways"])
    figures = rounded_all(figures | {"targets": [target.as_json() for target in targets]})
    for text in (*tables(figures["gateways"]), targets_table(targets)):
        click.echo(text)
    write_section(out, "peers", figures)
    click.echo(f"\nmedians of {rounds} round(s); the figures are in {out}")
    sys.exit(1 if strict and not all(target.is_met for target in targets) else 0)


# Measuring ---------------------------------------------------------------------------------------------------------------


def measure(litellm: Path, rounds: int, seconds: float, say: Say) -> dict[str, Figures]:
    """Each round starts each gateway anew. Medians over the rounds, by gateway and load."""
    taken: dict[str, list[Figures]] = {"direct": [], "litellm": [], "baton": []}
    with supervised(say) as processes:
        simulator, simulator_url = start_simulator(processes)
        provider = Gateway("direct", simulator_url, {}, lambda: {"provider": processes.pid(simulator)})
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            taken["direct"].append(_measured(provider, 0.0, seconds, say))
            with litellm_proxy.running(litellm, simulator_url) as proxy:
                gateway = Gateway("litellm", proxy.url, HEADERS, partial(_family, proxy.pid))
                taken["litellm"].append(_measured(gateway, proxy.ready_s, seconds, say))
            with baton(processes, simulator, simulator_url, say) as system:
                gateway = Gateway("baton", system.http_url, HEADERS, partial(_without_simulator, system))
                figures = _measured(gateway, max(system.ready_s.values()), seconds, say)
                say("  baton: from topic to topic, as many as it takes")
                taken["baton"].append(figures | {"topics": _topics(uvloop.run(sustained(system, 2 * seconds)))})
                if system.restarts():
                    raise click.ClickException("a service ended and was started again: these figures mean nothing")
    return {name: _together(each) for name, each in taken.items()}


def _topics(steady: Figures) -> dict[str, float]:
    spent = {name: taken["cpu_ms_per_request"] for name, taken in steady["processes"].items()}
    return {
        "rps": steady["sustained_rps"], "cpu_ms_per_request": sum(own(spent).values()),
        "broker_cpu_ms_per_request": spent["broker"],
    }


def _family(pid: int) -> dict[str, int]:
    return {str(each): each for each in family(pid)}


def _without_simulator(system: Baton) -> dict[str, int]:
    return {name: pid for name, pid in system.pids().items() if name != "simulator"}


def _measured(gateway: Gateway, ready_s: float, seconds: float, say: Say) -> Figures:
    loads = uvloop.run(_loads(gateway, seconds, say))
    memory = own({name: rss_mb(pid) for name, pid in gateway.pids().items()})
    return {"loads": loads, "rss_mb": sum(memory.values()), "rss_mb_largest": max(memory.values()), "ready_s": ready_s}


async def _loads(gateway: Gateway, seconds: float, say: Say) -> dict[str, dict[str, float]]:
    """Callers that wait for their answer first, then open loops, whose later ones may be more than it can take."""
    found = {}
    async with http_session() as session:
        load = HttpLoad(session, f"{gateway.url}/v1/chat/completions", gateway.headers, chat_body())
        await load.closed(WARM_CALLERS, WARM_S)
        for callers in CALLERS:
            say(f"  {gateway.name}: {_callers(callers)} at a time")
            found[_callers(callers)] = await _figures(gateway, load.closed(callers, seconds))
        for rate_s in RATES:
            say(f"  {gateway.name}: {rate_s} requests/s")
            found[f"{rate_s}/s"] = await _figures(gateway, load.open(rate_s, seconds))
    return found


def _callers(count: int) -> str:
    return "1 caller" if count == 1 else f"{count} callers"


async def _figures(gateway: Gateway, load: Awaitable[Taken]) -> dict[str, float]:
    await asyncio.sleep(PAUSE_S)
    meter = Meter(gateway.pids())
    taken = await load
    spent = meter.spent_ms()
    answered = len(taken.latencies_ms)
    if not answered:
        raise click.ClickException(f"{gateway.name}: no request was answered ({taken.failure}); the logs are in {LOG_DIR}")
    return {
        "rps": taken.requests_s,
        **latencies("reply", taken.latencies_ms),
        "cpu_ms_per_request": sum(own(spent).values()) / answered,
        "broker_cpu_ms_per_request": spent.get("broker", 0.0) / answered,
        "failed": taken.failed,
    }


def _together(rounds: list[Figures]) -> Figures:
    loads = {name: medians([figures["loads"][name] for figures in rounds]) for name in rounds[0]["loads"]}
    topics = {"topics": medians([figures["topics"] for figures in rounds])} if "topics" in rounds[0] else {}
    return {"loads": loads} | topics | {
        name: median(figures[name] for figures in rounds) for name in ("rss_mb", "rss_mb_largest", "ready_s")
    }


# What it ends in ---------------------------------------------------------------------------------------------------------


def targets_of(gateways: dict[str, Figures]) -> list[Target]:
    """Baton's figures beside what they should be, given LiteLLM's of the same run."""
    ours, theirs, topics = gateways["baton"]["loads"], gateways["litellm"]["loads"], gateways["baton"]["topics"]
    most = _callers(CALLERS[-1])
    return [
        Target(
            f"requests/s, topic to topic (10 × LiteLLM's {most})", topics["rps"],
            TOPICS_REQUESTS_SHARE_MIN * theirs[most]["rps"], "/s", is_floor=True,
        ),
        Target(
            f"CPU per request, topic to topic (a twelfth of LiteLLM's, {most})", topics["cpu_ms_per_request"],
            TOPICS_CPU_SHARE_MAX * theirs[most]["cpu_ms_per_request"], "ms",
        ),
        Target(
            f"requests/s, {most} (2 × LiteLLM)", ours[most]["rps"],
            REQUESTS_SHARE_MIN * theirs[most]["rps"], "/s", is_floor=True,
        ),
        Target(
            f"CPU per request, {most} (½ × LiteLLM)", ours[most]["cpu_ms_per_request"],
            CPU_SHARE_MAX * theirs[most]["cpu_ms_per_request"], "ms",
        ),
        Target("p50 at 50/s (LiteLLM's)", ours["50/s"]["reply_p50_ms"], P50_SHARE_MAX * theirs["50/s"]["reply_p50_ms"], "ms"),
    ]  # fmt: skip


def tables(gateways: dict[str, Figures]) -> list[str]:
    names = list(gateways)
    rows: list[Row] = [
        (
            load, name, taken["rps"], taken["reply_p50_ms"], taken["reply_p99_ms"], taken["cpu_ms_per_request"],
            taken["broker_cpu_ms_per_request"] or None, int(taken["failed"]) or None,
        )
        for load in gateways["baton"]["loads"]
        for name in names
        for taken in (gateways[name]["loads"][load],)
    ]  # fmt: skip
    topics = gateways["baton"]["topics"]
    rows.append(("topic to topic", "baton", topics["rps"], None, None, topics["cpu_ms_per_request"],
                 topics["broker_cpu_ms_per_request"], None))
    headers = ("load", "gateway", "answered/s", "p50 ms", "p99 ms", "CPU-ms/request", "broker's", "failed")
    sizes: list[Row] = [
        (name, gateways[name]["rss_mb"], gateways[name]["rss_mb_largest"], gateways[name]["ready_s"] or None) for name in names
    ]
    return [
        table("Chat completions by HTTP (direct: the provider alone)", headers, rows),
        table("Memory and start", ("gateway", "MB in all", "largest process", "ready s"), sizes),
    ]


if __name__ == "__main__":
    main()
