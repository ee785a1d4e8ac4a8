"""Reads the files of an import: numbers as they are written, not as floats, which would already be other numbers."""

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from shared.errors import ConfigError


def read_json(path: Path) -> Any:
    """Raises ConfigError, which never quotes the file."""
    try:
        return json.loads(_bytes(path), parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"{path}{where}: is not JSON") from None


def read_yaml(path: Path) -> Any:
    """Raises ConfigError, which never quotes the file."""
    try:
        return yaml.load(_bytes(path), _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}; look for a tab, a colon or an indent") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{path}: not YAML: it holds what cannot be read") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a file") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


class _Loader(yaml.SafeLoader):
    """Builds decimals from what looks like a float, and builds nothing but plain data."""


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Decimal | str:
    text = str(loader.construct_scalar(node)).replace("_", "")
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


_Loader.add_constructor("tag:yaml.org,2002:float", _decimal)
