import socket
import struct
from pathlib import Path

import pytest

from services.cli.broker_config import (
    HOST,
    Node,
    container_environment,
    free_ports,
    render,
    require_free,
    server_properties,
)
from services.cli.broker_process import brokers_known, count_brokers, place
from services.cli.jvm import BrokerError

NODES = [Node(id, 9000 + id, 9100 + id, Path(f"/data/node-{id}")) for id in (1, 2, 3)]


def test_one_node_keeps_one_copy_and_votes_for_itself() -> None:
    settings = server_properties(NODES[0], NODES[:1], {})
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:9101"
    assert settings["transaction.state.log.replication.factor"] == "1"
    assert settings["min.insync.replicas"] == "1"
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["group.min.session.timeout.ms"] == "1000"


def test_three_nodes_keep_three_copies_and_need_two() -> None:
    settings = server_properties(NODES[1], NODES, {})
    assert settings["node.id"] == "2"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103"
    for name in ("default", "offsets.topic", "transaction.state.log"):
        assert settings[f"{name}.replication.factor"] == "3"
    for name in ("min.insync.replicas", "transaction.state.log.min.isr"):
        assert settings[name] == "2"


def test_an_override_replaces_a_setting_and_no_value_holds_a_comment() -> None:
    text = render(server_properties(NODES[0], NODES[:1], {"num.partitions": "7"}))
    assert [line for line in text.splitlines() if line.startswith("num.partitions=")] == ["num.partitions=7"]
    assert "#" not in text


def test_the_container_gets_the_same_settings_and_advertises_the_port_of_this_machine() -> None:
    environment = container_environment(40001)
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:40001"
    assert environment["KAFKA_LISTENERS"].startswith("PLAINTEXT://0.0.0.0:9092,")
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_taken_port_is_named_with_the_option_to_change_it() -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"Port {port} .*\n.*lsof -i :{port}.*--port"):
            require_free(port)
    require_free(port)


def test_a_directory_of_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node-1" / "data").mkdir(parents=True)
    with pytest.raises(BrokerError, match="holds the data of 1 node"):
        place(tmp_path, 3, ())


def test_each_node_needs_its_port(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="3 nodes need 3 ports"):
        place(tmp_path, 3, (9092,))


def metadata(controller: int) -> bytes:
    brokers = b"".join(
        struct.pack(">ih9sih", id, 9, b"127.0.0.1", 9000 + id, rack) + rack_name
        for id, rack, rack_name in ((1, -1, b""), (2, 2, b"r1"))
    )
    return struct.pack(">ii", 1, 2) + brokers + struct.pack(">ii", controller, 0)


def test_a_metadata_answer_tells_the_brokers_once_there_is_a_controller() -> None:
    assert count_brokers(metadata(controller=2)) == 2
    assert count_brokers(metadata(controller=-1)) == 0


def test_a_node_that_does_not_listen_knows_no_brokers() -> None:
    (port,) = free_ports(1)
    assert brokers_known(Node(1, port, port, Path("/unused"))) == 0
