"""
The three places where settings are written: the command line, a YAML file, the environment.

Each gives values under attribute names; which place wins is decided in ``config``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from llmdsim.config import ignored
from llmdsim.config.argv import MANY, SWITCH, Given, Grammar
from llmdsim.config.flags import Flag
from llmdsim.config.values import ConfigError, document

_IGNORED = {**ignored.IGNORED, **ignored.LOGGING}
_NOT_IN_FILES = ("config", "v")


class Settings(NamedTuple):
    """What one place says: values by attribute, and names or words that say nothing to llmdsim."""

    values: dict[str, Any]
    ignored: list[str]
    retired: list[str]
    unknown: list[str]


def grammar(flags: Mapping[str, Flag]) -> Grammar:
    """The command line that these flags make, with all that is accepted besides."""
    takes = {**_IGNORED, **ignored.RETIRED, "help": SWITCH, "version": SWITCH}
    return Grammar({**takes, **{name: row.kind.takes for name, row in flags.items()}}, ignored.ALIASES, ignored.SHORTS)


def command_line(flags: Mapping[str, Flag], given: Iterable[Given], loose: Sequence[str]) -> Settings:
    """
    The settings of a command line; its first loose word (after ``serve``) is the model.

    Raises ConfigError at a value that does not fit.
    """
    raw: dict[str, Any] = {}
    for one in given:
        raw[one.name] = _joined(flags, one, raw.get(one.name))
    settings = {row.attribute: _read(row, raw[row.name]) for row in flags.values() if row.name in raw}
    loose = loose[1:] if loose[:1] == ["serve"] else loose
    if loose and "model" not in settings:
        settings["model"], loose = loose[0], loose[1:]
    return Settings(settings, *_idle(raw), list(loose))


def _joined(flags: Mapping[str, Flag], one: Given, before: Any) -> Any:
    """One more occurrence of a flag: a list grows, a member joins its document, anything else replaces."""
    if one.name not in flags:
        return one.words
    if one.path:
        return _with_member(flags[one.name], before, one)
    return (before or ()) + one.words if flags[one.name].kind.takes == MANY else one.words[0]


def _with_member(row: Flag, before: Any, one: Given) -> Any:
    members: dict[str, Any] = json.loads(json.dumps(_document(row, before) or {}))
    at = members
    for key in one.path[:-1]:
        at = at[key] if isinstance(at.get(key), dict) else at.setdefault(key, {})
    at[one.path[-1]] = _loose_json(one.words[0])
    return members


def _document(row: Flag, raw: object) -> Mapping[str, Any] | None:
    try:
        return document(raw)
    except ValueError as error:
        raise _invalid(row, raw, error) from None


def _loose_json(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _read(row: Flag, raw: Any) -> Any:
    try:
        return row.kind.read(raw)
    except ValueError as error:
        raise _invalid(row, raw, error) from None


def _invalid(row: Flag, raw: Any, reason: ValueError) -> ConfigError:
    shown = " ".join(raw) if isinstance(raw, tuple) else raw if isinstance(raw, str) else json.dumps(raw)
    shown = " ".join(shown.split())  # a manifest may spread a JSON value over lines, an error is one line
    return ConfigError(f'invalid argument "{shown}" for "--{row.name}" flag: {reason}')


def _idle(names: Iterable[str]) -> tuple[list[str], list[str]]:
    names = list(names)
    return [name for name in names if name in _IGNORED], [name for name in names if name in ignored.RETIRED]


def yaml_file(flags: Mapping[str, Flag], path: str) -> Settings:
    """The settings of a YAML file; without a path, none. Raises ConfigError."""
    members = _yaml(path) if path else {}
    keys = {_name(key): key for key in members}
    rows = {name: flags[name] for name in keys if name in flags and name not in _NOT_IN_FILES}
    settings = {
        row.attribute: _read_member(row, members[keys[name]])
        for name, row in rows.items()
        if members[keys[name]] is not None
    }
    idle, retired = _idle(keys)
    return Settings(settings, idle, retired, [name for name in keys if name not in {*rows, *idle, *retired}])


def _name(key: object) -> str:
    name = str(key).replace("_", "-")
    return ignored.ALIASES.get(name, name)


def _read_member(row: Flag, raw: object) -> Any:
    try:
        return row.kind.read(raw)
    except ValueError as error:
        raise ConfigError(f"failed to unmarshal configuration: {row.name}: {error}") from None


def _yaml(path: str) -> Mapping[object, Any]:
    import yaml  # slow to import, and most start without a file

    try:
        with open(path, encoding="utf-8") as file:
            members = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ConfigError(f"failed to read configuration file: open {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("failed to unmarshal configuration: " + " ".join(str(error).split())) from None
    if members is None:
        return {}
    if not isinstance(members, Mapping):
        raise ConfigError("failed to unmarshal configuration: expected a mapping")
    return members


def environment(flags: Mapping[str, Flag], environ: Mapping[str, str]) -> dict[str, Any]:
    """The flags that the environment sets; an empty variable sets nothing. Raises ConfigError."""
    settings = {}
    for row in flags.values():
        if row.env and environ.get(row.env):
            settings[row.attribute] = _read_variable(row, environ[row.env])
    return settings


def _read_variable(row: Flag, value: str) -> Any:
    try:
        return row.kind.read(value)
    except ValueError as error:
        raise ConfigError(f"{row.env}: {error}") from None


def surroundings(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says that is not a flag. Raises ConfigError."""
    return {
        "pod_name": environ.get("POD_NAME", ""),
        "pod_namespace": environ.get("POD_NAMESPACE", ""),
        "pod_ip": environ.get("POD_IP", ""),
        "dev_mode": environ.get("VLLM_SERVER_DEV_MODE") == "1",
        "allow_runtime_lora": environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "").lower() in ("1", "true"),
        "responses_store": environ.get("VLLM_ENABLE_RESPONSES_API_STORE", "").lower() in ("1", "true"),
        "max_n": _integer(environ, "VLLM_MAX_N_SEQUENCES", 16384),
        "side_channel_host": environ.get("VLLM_NIXL_SIDE_CHANNEL_HOST", ""),
        "side_channel_port": _integer(environ, "VLLM_NIXL_SIDE_CHANNEL_PORT", 5600),
    }


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environ.get(name) or default)
    except ValueError:
        raise ConfigError(f"{name}: expected an integer") from None
