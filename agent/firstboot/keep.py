"""Keep on the data partition what a provisioning file says: then the file is needed no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.firstboot.disk import Owner, copy_file, write_file
from agent.firstboot.form import Provisioning
from agent.firstboot.places import Places
from agent.provisioning.tokens import blank_tokens
from agent.settings import AgentSettings
from flchain_edge.enrolment.enrol import merge_provisioned
from flchain_edge.newer_python import tomllib
from flchain_edge.settings.config import build_config
from flchain_edge.settings.toml_text import render_toml


def keep(given: Provisioning, raw: bytes, folder: Path, places: Places) -> Iterator[str]:
    """Keep token, passphrase, data files, the agent's settings, and last the file itself without its token.

    Yield what has changed. Raise OSError, and ConfigError for an agent.toml that the settings do not fit.
    """
    places.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.agent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = places.agent.stat()
    owner = (status.st_uid, status.st_gid)
    if given.form.token and not places.is_enrolled and write_file(places.token, given.form.token.encode()):
        yield "took the token"
    if given.form.registrar.passphrase:
        write_file(places.passphrase, given.form.registrar.passphrase.encode())
    for name in given.files:
        if copy_file(folder / name, places.agent / name, owner):
            yield f"copied {name}"
    yield from _keep_agent_settings(given.agent_tables, places, owner)
    if write_file(places.settings, blank_tokens(raw)):
        yield "took the settings"


def _keep_agent_settings(extra: Mapping[str, Any], places: Places, owner: Owner) -> Iterator[str]:
    """Write them for the enrolment to come, or into the agent.toml that is there, if they have changed since."""
    text = render_toml(extra).encode()
    path = places.provisioned
    if path.is_file() and path.read_bytes() == text:
        return
    if places.is_enrolled and extra:
        config = places.agent_config
        merged = merge_provisioned(tomllib.loads(config.read_text()), extra)
        build_config(merged, config.name, config.parent, AgentSettings, environ={})
        if write_file(config, render_toml(merged).encode(), owner=owner):
            yield f"changed {config}"
    write_file(path, text, owner=owner)
