"""What a package says of itself: copyright, changelog, list of its parts (SBOM), manual pages."""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

from tools.images.debs.environment import list_licences
from tools.images.debs.plan import Package
from tools.images.debs.source import Source
from tools.images.programs import run_tool

MAINTAINER = "FLchain maintainers <maintainers@flchain.invalid>"
COPYRIGHT = """FLchain {version}
Copyright (C) 2026 the FLchain authors
License: Apache-2.0; on Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.

Below {prefix}/lib are other people's programs, unchanged as their authors publish them,
each under its own copyright and licence:

{parts}
"""
MANUAL = """.TH {title} 1 "{date}" "FLchain {version}"
.SH NAME
{command} \\- {summary}
.SH SYNOPSIS
.B {command}
.I COMMAND
[\\fIOPTIONS\\fR]
.SH DESCRIPTION
.nf
{text}
.fi
.SH SEE ALSO
Each command has
.BR \\-\\-help .
"""


def write_papers(package: Package, source: Source, site: Path, root: Path) -> None:
    """Write everything below usr/share."""
    doc = root / "usr" / "share" / "doc" / package.name
    doc.mkdir(parents=True)
    (doc / "copyright").write_text(build_copyright(package, site, root), "utf-8")
    write_packed(doc / "changelog.gz", build_changelog(package, source))
    (doc / "sbom.cdx.json").write_text(build_sbom(package, source, site), "utf-8")
    pages = root / "usr" / "share" / "man" / "man1"
    pages.mkdir(parents=True)
    for command in package.content.commands:
        write_packed(pages / f"{command}.1.gz", build_manual(package, source, command))


def write_packed(path: Path, text: str) -> None:
    """Write a gzip file without a name or a time in it."""
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def build_copyright(package: Package, site: Path, root: Path) -> str:
    """Return the licences of everything in the package, each with the place of its text."""
    parts = []
    for name, version, stated, files in list_licences(site):
        if name == "flchain":
            continue
        parts.append(f"{name} {version}\n  License: {stated}")
        parts += [f"  Text: /{path.relative_to(root)}" for path in files]
    return COPYRIGHT.format(version=package.version, prefix=package.prefix, parts="\n".join(parts))


def build_changelog(package: Package, source: Source) -> str:
    """Return Debian's form of a changelog: this version, and where its changes are told."""
    when = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(source.epoch_s))
    return (
        f"{package.name} ({package.debian_version}) {package.suite.name}; urgency=medium\n\n"
        f"  * FLchain {package.version}; its CHANGELOG.md says what is new.\n\n -- {MAINTAINER}  {when}\n"
    )


def build_sbom(package: Package, source: Source, site: Path) -> str:
    """Return the parts list in CycloneDX's form, the same for the same parts.

    The lister asks an interpreter for its path; the target's may not run here, so a script answers for it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        stand_in = Path(scratch) / "python"
        stand_in.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps([str(site)])}\nEND\n")
        stand_in.chmod(0o755)
        project = str(source.folder / "pyproject.toml")
        form = ("--output-reproducible", "--output-format", "JSON", "--mc-type", "application", "--pyproject", project)
        # its time is the commit's, as that of every file, whether or not whoever builds has set the variable
        env = {"SOURCE_DATE_EPOCH": str(source.epoch_s)}
        text = run_tool(("cyclonedx-py", "environment", *form, str(stand_in)), env=env)
    parts = json.loads(text)
    parts["metadata"]["component"]["name"] = package.name
    parts["metadata"]["component"]["version"] = package.debian_version
    return json.dumps(parts, indent=1, sort_keys=True) + "\n"


def build_manual(package: Package, source: Source, command: str) -> str:
    """Return the manual page of a command: what its --help says."""
    module, _, function = source.scripts[command].partition(":")
    call = f"import sys; from {module} import {function}; sys.argv = ['{command}', '--help']; sys.exit({function}())"
    said = run_tool((sys.executable, "-c", call), cwd=source.folder, env={"COLUMNS": "80"})
    text = said.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("\n.", "\n\\&.")
    return MANUAL.format(
        title=command.upper(), command=command.replace("-", "\\-"), version=package.version, text=text.rstrip(),
        summary=package.content.summary.replace("-", "\\-"),
        date=time.strftime("%Y-%m-%d", time.gmtime(source.epoch_s)),
    )  # fmt: skip
