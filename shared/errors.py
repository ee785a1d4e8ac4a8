"""Every error of Baton's own, as a tree:

BatonError
├── SettingsError          the environment lacks or garbles something; names all of it at once
├── ConfigError            baton.yaml is wrong; names line, field and fix
├── UndecodableError       a record's bytes are not what its topic promises
├── RecordTooLargeError    a record that would not fit its topic
├── ForeignTopicError      a stage wrote a topic that is not in its row: a bug, it crashes
├── TopicRefusedError      the broker will not have a topic as it is wanted: rights, settings, copies; a human must act
├── BrokerUnavailableError operating error: back off, keep the offset, begin a new session
├── FencedError            another process owns this partition now: drop what is not committed
├── FrozenError            this process stood still past its session timeout: it must not act on what it remembers
└── DeadLetterCapError     too many rejects in a row: stop instead of draining a topic after a bad deploy
"""


class BatonError(Exception):
    """Base of all of them."""


class SettingsError(BatonError):
    pass


class ConfigError(BatonError):
    pass


class UndecodableError(BatonError):
    pass


class RecordTooLargeError(BatonError):
    pass


class ForeignTopicError(BatonError):
    pass


class TopicRefusedError(BatonError):
    pass


class BrokerUnavailableError(BatonError):
    pass


class FencedError(BatonError):
    pass


class FrozenError(BatonError):
    pass


class DeadLetterCapError(BatonError):
    pass
