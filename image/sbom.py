"""What is in the image, as a CycloneDX 1.6 document on standard output.

The Python distributions in a site-packages directory, and the packages of the Debian system below it. A distribution
whose version constraints.txt does not name is an error: the image would not be the one that was tested.
"""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_OWN = "quantguard"


def main(constraints: Path, site: Path) -> None:
    pinned = {
        _name(line.partition("==")[0]): line.partition("==")[2].strip()
        for line in constraints.read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    found = dict(_distributions(site))
    stray = sorted(
        f"{name} {version}"
        for name, version in found.items()
        if name != _OWN and pinned.get(name) != version.partition("+")[0]
    )
    if stray:
        sys.exit(f"constraints.txt does not name what was installed: {', '.join(stray)}")
    components = [_component(name, version, PackageURL("pypi", None, name, version)) for name, version in found.items()]
    components += list(_debian())
    own = _component(_OWN, found[_OWN], PackageURL("pypi", None, _OWN, found[_OWN]), ComponentType.CONTAINER)
    # No clock and no random number: the same packages give the same document.
    listed = "\n".join(sorted(str(component.purl) for component in components))
    bom = Bom(
        components=components,
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, listed),
        metadata=BomMetaData(component=own, timestamp=datetime.fromtimestamp(0, UTC)),
    )
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not CycloneDX 1.6: {problem}")
    sys.stdout.write(text)


def _name(text: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", text).lower()


def _distributions(site: Path) -> Iterator[tuple[str, str]]:
    for distribution in metadata.distributions(path=[str(site)]):
        yield _name(distribution.metadata["Name"]), distribution.version


def _debian() -> Iterator[Component]:
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\n"]
    for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines():
        name, version, architecture = line.split(" ")
        yield _component(name, version, PackageURL("deb", "debian", name, version, {"arch": architecture}))


def _component(name: str, version: str, purl: PackageURL, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    # A reference of its own: without one the library draws a random one.
    return Component(name=name, version=version, purl=purl, type=kind, bom_ref=f"{kind.value}:{purl}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
