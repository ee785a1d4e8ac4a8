"""A running service takes an applied config over, whole or not at all. On memory and on Kafka."""

from schemas.topology import CONFIG
from services.cli.apply import apply_config
from services.cli.config_file import parse
from shared.broker import Output
from shared.catalogue import VERSION_KEY
from shared.service import ConfigView
from shared.table import Table
from tests.conftest import RunLab
from tests.support.lab import Lab

TEXT = """
models:
  small: {quality: 0.7, context_tokens: 16000}
backends:
  one: {model: small, provider: p, base_url: "http://127.0.0.1:9/v1", prices: {input: 0.1, output: 0.2}}
tenants:
  demo: {open: true}
policies:
  default: {attempts_max: ATTEMPTS}
"""


async def forget_config(lab: Lab, view: ConfigView) -> None:
    """The shared broker's `config` topic is left as it was found."""
    assert view.table is not None
    await lab.feed(*(Output(CONFIG.name, key.encode(), None) for key in list(view.table.values)))
    await view.table.close()


def test_a_running_service_takes_a_new_config_over_without_a_restart(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        first = await apply_config(lab.broker, parse(TEXT.replace("ATTEMPTS", "3"), "baton.yaml"), lab.clock.now_ms())
        view = ConfigView()
        view.table = Table(lab.broker, CONFIG, view.changed)
        await view.table.start()
        view.changed(VERSION_KEY)
        assert view.catalogue.version == first.version
        assert view.catalogue.policy_of("demo").attempts_max == 3
        second = await apply_config(lab.broker, parse(TEXT.replace("ATTEMPTS", "5"), "baton.yaml"), lab.clock.now_ms() + 1)
        await lab.until(lambda: view.catalogue.version == second.version)
        assert view.catalogue.policy_of("demo").attempts_max == 5
        await forget_config(lab, view)

    run_lab(main)


def test_objects_without_their_closing_record_are_not_taken_over(run_lab: RunLab) -> None:
    async def main(lab: Lab) -> None:
        await apply_config(lab.broker, parse(TEXT.replace("ATTEMPTS", "3"), "baton.yaml"), lab.clock.now_ms())
        view = ConfigView()
        view.table = Table(lab.broker, CONFIG, view.changed)
        await view.table.start()
        view.changed(VERSION_KEY)
        before = view.catalogue
        half = b'{"kind":"policy","name":"default","version":1,"spec":{"attempts_max":9}}'
        await lab.feed(Output(CONFIG.name, b"policy/default", half))
        table = view.table
        await lab.until(lambda: table.values["policy/default"].spec.get("attempts_max") == 9)
        assert view.catalogue is before
        await forget_config(lab, view)

    run_lab(main)
