"""What a vector can ask of an operator's releases. Rules are looked up in their module at each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flchain.rules import releases
from flchain.wire.release import Package, Release, ReleaseState

Given = Mapping[str, Any]
Outcome = dict[str, Any]


def make_release(given: Given) -> Release:
    """A release from what a vector says of it."""
    packages = tuple(Package(*package) for package in given["packages"])
    state = ReleaseState(given["state"])
    return Release(given["sequence"], given["version"], packages, given["share_bp"], state, given["window_s"], 0)


def read_release(_before: object, given: Given) -> Outcome:
    """A signed release as it travels."""
    found = releases.read_release(given["raw"], given["chain"], given["operator_key"])
    return {"sequence": found.sequence, "version": found.version, "packages": len(found.packages)}


def process_release(_before: object, given: Given) -> Outcome:
    """Which of two releases counts."""
    known = make_release(given["known"]) if given["known"] else None
    return {"sequence": releases.process_release(known, make_release(given["heard"])).sequence}


def find_tranche(_before: object, given: Given) -> Outcome:
    """Where boards stand, and which of them are in a share."""
    release, chain = make_release(given["release"]), given["chain"]
    return {
        "places": [releases.compute_place(chain, release.version, board) for board in given["boards"]],
        "is_in": [releases.is_in_tranche(release, chain, board) for board in given["boards"]],
    }


def compare_versions(_before: object, given: Given) -> Outcome:
    """Whether one version comes after another."""
    return {"is_newer": releases.is_newer(given["version"], given["than"])}


def find_obstacle(_before: object, given: Given) -> Outcome:
    """Why a board does not install a release, and which package it would take."""
    release, board = make_release(given["release"]), given["board"]
    installed = releases.Installed(board["version"], board["suite"], board["architecture"], frozenset(board["bad"]))
    package = releases.find_package(release, board["suite"], board["architecture"])
    obstacle = releases.find_obstacle(release, installed)
    return {
        "obstacle": None if obstacle is None else obstacle.value,
        "package": None if package is None else package.sha256,
    }


OPERATIONS: dict[str, Callable[[Any, Given], Outcome]] = {
    "read_release": read_release,
    "process_release": process_release,
    "find_tranche": find_tranche,
    "compare_versions": compare_versions,
    "find_obstacle": find_obstacle,
}
