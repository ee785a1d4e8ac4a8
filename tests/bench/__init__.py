"""Measures Baton on this machine: `make bench` (this package), `make bench-peers` (`peers.py`, other gateways beside it).

Everything is started here, on loopback and free ports, and stopped at the end: a Kafka of one node, the simulator as an
instant provider, a bare relay chain as the yardstick, and Baton with its production defaults. A figure counts only beside
the yardstick of the same run: absolute times of a shared machine mean little. `ARGS=--quick` takes three minutes.

Targets stand beside figures, and a missed one is marked. The exit code is 0 all the same, because ratios of a noisy machine
are no reason to fail a build; with `ARGS=--strict` a missed target makes it 1.

| file | holds |
|---|---|
| `__main__.py` | the order of a run, and the figures and targets it ends in |
| `system.py`, `relay.py` | what is started: broker, simulator, Baton · the relay chain |
| `load.py` | requests at a rate or from so many callers; latency from the due time |
| `latency.py`, `saturation.py` | at 50 and 200 a second beside the relay · as much as Baton takes, twice and five times that |
| `cpu.py` | CPU time and memory of processes, and what machine this is |
| `stages.py` | each stage alone, in this process, at 1, 10 and 100 KB prompts |
| `peers.py`, `litellm_proxy.py` | another gateway measured like Baton · its installation and process |
| `report.py` | percentiles, tables, targets, `build/bench.json` |
"""
