"""Kafka through aiokafka: the only package that imports the client. It maps the client's errors to Baton's and hides its
traps, each named where it is handled.
"""

from shared.kafka.cluster import KafkaBroker, broker_ready
from shared.kafka.options import KafkaOptions
from shared.kafka.topics import TopicShape

__all__ = ["KafkaBroker", "KafkaOptions", "TopicShape", "broker_ready"]
