"""
Which tokenizer a server has: a model's own where its files are on this machine, else the simulated one.

Never asks the network. The libraries behind a model's own are imported only when one is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmdsim.simulated import Simulated

if TYPE_CHECKING:
    from llmdsim.huggingface import HuggingFace


def choose(
    *,
    model: str,
    tokenizer: str,
    force_simulated: bool,
    environ: Mapping[str, str],
    chat_template: str = "",
    log: Callable[[str], None],
) -> Simulated | HuggingFace:
    """
    The tokenizer for a model: ``tokenizer``, or else ``model``, is a file, a directory or a name in the local cache.

    ``chat_template`` is a path or a template. Raises ValueError, one line, where what was asked for cannot be had.
    """
    template = read_template(chat_template)
    if force_simulated:
        return _simulated("as asked", log)
    path = find(tokenizer or model, environ)
    if path is not None:
        return _load(path, template, bool(tokenizer or template), log)
    if tokenizer:
        raise ValueError(f"tokenizer {tokenizer}: no tokenizer.json there, nor in the local Hugging Face cache")
    return _simulated(f"{model} is no directory with a tokenizer.json, nor in the local Hugging Face cache", log)


def find(name: str, environ: Mapping[str, str]) -> Path | None:
    """The tokenizer file that a path or a Hugging Face name means, or None."""
    if not name:
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return path
    files = (folder / "tokenizer.json" for folder in (path, _snapshot(name, environ)) if folder is not None)
    return next((file for file in files if file.is_file()), None)


def read_template(value: str) -> str:
    """A chat template given as a path or as itself. Raises ValueError for a path that cannot be read."""
    if not value or any(sign in value for sign in "{}\n"):
        return value
    try:
        return Path(value).expanduser().read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise ValueError(f"chat template {value}: looks like a path, but cannot be read: {error}") from error


def _load(path: Path, template: str, wanted: bool, log: Callable[[str], None]) -> Simulated | HuggingFace:
    try:
        from llmdsim.huggingface import load

        found = load(path, template)
    except Exception as error:  # the library raises bare Exceptions for a bad file
        reason = f"{path} cannot be loaded: {' '.join(str(error).split())}"
        if wanted:
            raise ValueError(f"tokenizer {reason}") from error
        return _simulated(reason, log)
    log(f"Tokenizer: {path}, {found.vocab_size} tokens")
    return found


def _simulated(reason: str, log: Callable[[str], None]) -> Simulated:
    log(f"Tokenizer: simulated ({reason})")
    return Simulated()


def _snapshot(name: str, environ: Mapping[str, str]) -> Path | None:
    """The directory of a model in the local cache, at the revision that ``main`` was when it was fetched."""
    folder = _cache(environ) / f"models--{name.replace('/', '--')}"
    main = folder / "refs" / "main"
    return folder / "snapshots" / main.read_text("utf-8").strip() if main.is_file() else None


def _cache(environ: Mapping[str, str]) -> Path:
    for key in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(key):
            return Path(environ[key]).expanduser()
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "~") / ".cache"
    return Path(environ.get("HF_HOME") or Path(caches) / "huggingface").expanduser() / "hub"
