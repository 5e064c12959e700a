"""What an image is made of, as CycloneDX: Debian's packages, and the parts of ours that they list themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

SPECIFICATION = "1.5"


def list_packages(status: str) -> Iterator[Mapping[str, str]]:
    """Yield the installed packages of dpkg's status file, as their fields; continued lines are left out."""
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def build_sbom(name: str, version: str, release: str, status: str, bundled: Mapping[str, str]) -> str:
    """Return the document. `bundled` is, by package, the document of what it brings along."""
    components: list[dict[str, Any]] = []
    for fields in list_packages(status):
        package, its_version, architecture = (fields[key] for key in ("Package", "Version", "Architecture"))
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": f"pkg:deb/debian/{package}@{its_version}?arch={architecture}&distro={release}",
            "purl": f"pkg:deb/debian/{package}@{its_version}?arch={architecture}&distro={release}",
            "name": package,
            "version": its_version,
        }
        if package in bundled:
            parts = json.loads(bundled[package]).get("components", [])
            # the same reference may not occur twice in a document, and two of our packages may bring the same part
            component["components"] = [{**part, "bom-ref": f"{package}/{part.get('bom-ref', '')}"} for part in parts]
        components.append(component)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {"component": {"type": "firmware", "name": name, "version": version}},
        "components": components,
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
