"""The client's errors become Baton's: nothing above this package knows the client's."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiokafka import errors

from shared.errors import BrokerUnavailableError, FencedError, RecordTooLargeError

T = TypeVar("T")

_FENCED = (
    errors.ProducerFenced,
    errors.InvalidProducerEpoch,
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
    errors.IllegalStateError,
)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordTooLargeError, errors.RecordListTooLargeError)


async def guard(call: Coroutine[Any, Any, T]) -> T:
    """Run a client call; its errors become Baton's."""
    try:
        return await call
    except _TOO_LARGE as error:
        raise RecordTooLargeError(str(error)) from error
    except _FENCED as error:
        raise FencedError(f"{type(error).__name__}: another process took over") from error
    except (errors.KafkaError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise BrokerUnavailableError(f"{type(error).__name__}: {error}") from error


def mapped(error: BaseException) -> BaseException:
    if isinstance(error, _TOO_LARGE):
        return RecordTooLargeError(str(error))
    if isinstance(error, _FENCED):
        return FencedError(type(error).__name__)
    if isinstance(error, (errors.KafkaError, OSError, AssertionError)):   # the client asserts its state, also on outages
        return BrokerUnavailableError(f"{type(error).__name__}: {error}")
    return error
