"""`make bench-routing DATA=folder`: the order of a run, and the targets it ends in."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from tests.bench.report import OUT, Target, rounded_all, table, targets_table, write_section
from tests.bench.routing import cascades, offline, online, timing
from tests.bench.routing.learning import Pool, means, pool
from tests.bench.routing.rows import Prices, Row, prices, rows

MIXTRAL, GPT4 = "mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"
FLASH, PRO = "gemini-1.5-flash-002", "gemini-1.5-pro-002"
SMALL, BIG = "llama-3.1-8b-instruct", "llama-3.1-70b-instruct"
SHUFFLES = 10


class Bench:
    """Gathers figures and targets of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: dict[str, Prices] = prices(folder)
        self.figures: dict[str, Any] = {}
        self.targets: list[Target] = []

    def pool(self, file: str, dataset: str, models: Sequence[str] = (), answers: str = "") -> Pool:
        found = rows(self.folder, file, dataset, self.listed, answers)
        names = models or tuple(found[0].scores)
        return pool(found, names, self.listed, means(found, names, range(len(found))))

    def want(self, name: str, figure: float, limit: float, unit: str = "", is_floor: bool = True) -> None:
        self.targets.append(Target(name, round(figure, 4), limit, unit, is_floor))

    def pairs(self) -> None:
        two = (("MMLU", "routellm", "mmlu", MIXTRAL, GPT4, 0.68), ("GSM8K", "routellm", "gsm8k", MIXTRAL, GPT4, 0.62))
        lines = []
        for name, file, dataset, weak, strong, least in two:
            found, sd = offline.pair(self.pool(file, dataset, (weak, strong)), weak, strong)
            lines.append((name, found.apgr, sd, found.cpt50, found.cpt80))
            self.want(f"{name} pair, APGR", found.apgr, least)
            if name == "MMLU":
                self.want("MMLU pair, CPT50", found.cpt50, 0.28, is_floor=False)
        headers = ("pair", "APGR (random 0.5)", "s.d.", "CPT50", "CPT80")
        print(table("Two models, by share of strong calls", headers, lines))
        self.figures["pairs"] = {line[0]: dict(zip(("apgr", "sd", "cpt50", "cpt80"), line[1:], strict=True)) for line in lines}

    def many(self, name: str, file: str, dataset: str) -> dict[str, dict[str, float | None]]:
        chosen = self.pool(file, dataset)
        found = offline.figures(chosen, offline.many(chosen))
        headers = ("choice", "AIQ", "AIQ-log", "saving at 95 %", "98 %", "100 %", "micro-USD", "quality")
        print(table(f"{name}: {len(chosen.models)} models, {len(chosen.rows)} rows", headers, offline.lines(chosen, found)))
        self.figures[name] = found
        self.want(f"{name}: AIQ over the static mix", _value(found, "router", "aiq") - _value(found, "static mix", "aiq"), 0.0)
        return found

    def cascades(self) -> None:
        lines = []
        for weak, strong, begun, least in ((FLASH, PRO, True, 0.85), (SMALL, BIG, False, 0.53)):
            chosen = self.pool("mmlu_pro", "mmlu_pro", (weak, strong), answers="mmlu_pro_responses")
            gains = cascades.gains(chosen, weak, strong)
            direct, after = (
                cascades.area(chosen, weak, strong, [each[kind] for each in gains], kind == 1) for kind in (0, 1)
            )
            is_begun = cascades.is_begun(chosen, weak, strong)
            lines.append((f"{weak} → {strong}", direct, after, "begun" if is_begun else "declined"))
            self.want(f"cascade of {weak} is {'begun' if begun else 'declined'}", float(is_begun == begun), 1.0)
            self.want(f"{weak} → {strong}, as chosen, APGR-cost", after if is_begun else direct, least)
        headers = ("pair", "routed directly", "cascade", "the router")
        print(table("Cascades: APGR-cost, all calls paid (random 0.5)", headers, lines))
        self.figures["cascades"] = {line[0]: {"direct": line[1], "cascade": line[2], "router": line[3]} for line in lines}

    def online(self) -> None:
        stream = rows(self.folder, "paretobandit", "paretobandit", self.listed)
        models = tuple(stream[0].scores)
        chosen, lines = pool(stream, models, self.listed, dict.fromkeys(models, online.PRIOR)), []
        for target, least in ((230.0, 0.85), (660.0, 0.91)):
            runs = [online.stream(chosen, target, seed) for seed in range(SHUFFLES)]
            reward = fmean(map(online.reward, runs))
            used = fmean(online.utilisation(run, target) for run in runs)
            lines.append((f"from cold, {target:.0f} USD per million", reward, used))
            self.want(f"online at {target:.0f}: reward", reward, least)
            self.want(f"online at {target:.0f}: utilisation, most", used, 1.03, is_floor=False)
            self.want(f"online at {target:.0f}: utilisation, least", used, 0.97)
        lines += self._changes(chosen)
        print(table("Online, only the chosen model's outcome seen", ("stream", "reward", "utilisation"), lines))
        self.figures["online"] = {line[0]: {"reward": line[1], "utilisation": line[2]} for line in lines}

    def _changes(self, chosen: Pool) -> list[tuple[str, float, float]]:
        """In the middle of the stream a model four times dearer, or a third as good: the second half, its last half."""
        target, popular = 660.0, next(model for model in chosen.models if "mistral" in model)
        factor = 4.0
        dear = {name: Prices(each.input * factor, each.output * factor) if name in popular else each
                for name, each in self.listed.items()}
        priors = dict.fromkeys(chosen.models, online.PRIOR)
        dearer = list(pool(chosen.rows, chosen.models, dear, priors).options.values())

        def price(row: Row, model: str) -> tuple[float, float]:
            return row.scores[model], row.costs_microusd[model] * (factor if model == popular else 1.0)

        def worse(row: Row, model: str) -> tuple[float, float]:
            return row.scores[model] * (1 / 3 if model == popular else 1.0), row.costs_microusd[model]

        half, tail = len(chosen.rows) // 2, len(chosen.rows) * 3 // 4
        raised = [online.stream(chosen, target, seed, price, dearer, saves=False)[half:] for seed in range(SHUFFLES // 2)]
        dropped = [online.stream(chosen, target, seed, worse, saves=False)[tail:] for seed in range(SHUFFLES // 2)]
        used = fmean(online.utilisation(run, target) for run in raised)
        asked = fmean(fmean(step.model == popular for step in run) for run in dropped)
        self.want("after a price change: utilisation, most", used, 1.04, is_floor=False)
        self.want("after a price change: utilisation, least", used, 0.95)
        self.want("after a quality drop: still asked, last quarter", asked, 0.1, is_floor=False)
        return [
            ("price of the most used ×4, second half", fmean(map(online.reward, raised)), used),
            ("quality of the most used ÷3, last quarter", fmean(map(online.reward, dropped)),
             fmean(online.utilisation(run, target) for run in dropped)),
        ]

    def time(self) -> None:
        """CPU microseconds of a decision: by models, with words on a text of 4 KB, by tenants; and of the features of 4 KB."""
        plain, double, worded = (timing.decision_us(models, words) for models, words in ((20, False), (40, False), (20, True)))
        few, many = timing.tenants_us(10, 10_000)
        seen = timing.features_us()
        print(table("Decision time", ("decision", "p50 CPU-µs", "p99"), [
            ("20 models", *plain), ("40 models", *double), ("20 models, words of 4 KB", *worded),
            ("whole plan, 10 tenants", *few), ("whole plan, 10,000 tenants", *many), ("features of 4 KB", *seen)]))
        self.figures["decision_us"] = {
            "20": plain, "40": double, "20 with words": worded, "10 tenants": few, "10000 tenants": many, "features": seen}
        self.want("decision of 20 models, p50", plain[0], 100, "µs", is_floor=False)
        self.want("decision with words of 4 KB, p99", worded[1], 1_000, "µs", is_floor=False)
        self.want("40 models against 20", double[0] / plain[0], 2.2, "×", is_floor=False)
        self.want("10,000 tenants against 10", many[0] / few[0], 1.2, "×", is_floor=False)
        self.want("features of 4 KB, p99", seen[1], 1_000, "µs", is_floor=False)


def _value(found: Mapping[str, Mapping[str, float | None]], line: str, figure: str) -> float:
    value = found[line][figure]
    return -1.0 if value is None else value


@click.command()
@click.option("--data", default="", help="Folder of recorded outcomes; without it nothing is measured.")
@click.option("--only", default="time,pairs,many,cascades,online", show_default=True, help="Parts to run.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path), help="File the figures go to.")
def main(data: str, only: str, out: Path) -> None:
    """The router's shipped decisions and estimators over recorded outcomes, beside its baselines."""
    if not data or not Path(data).is_dir():
        print("skipped: no recorded outcomes; name their folder: make bench-routing DATA=folder")
        return
    bench, parts = Bench(Path(data)), only.split(",")
    for part in ("time", "pairs", "cascades", "online"):
        if part in parts:
            getattr(bench, part)()
    if "many" in parts:
        four = bench.many("four models", "paretobandit", "paretobandit")
        bench.want("four models: AIQ-log", _value(four, "router", "aiq_log"), 0.890)
        twelve = bench.many("twelve models", "mmlu_pro", "mmlu_pro")
        bench.want("twelve models: AIQ", _value(twelve, "router", "aiq"), 0.675)
        bench.want("twelve models: saving at 98 %", _value(twelve, "router", "saving_98%"), 0.35)
    print(targets_table(bench.targets))
    bench.figures["targets"] = [dataclasses.asdict(target) for target in bench.targets]
    write_section(out, "routing", rounded_all(bench.figures))
    sys.exit(0 if all(target.is_met for target in bench.targets) else 1)


if __name__ == "__main__":
    main()
