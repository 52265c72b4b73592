"""The bill of materials of what is installed, in CycloneDX 1.5, made from requirements.lock."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

ROOT = Path(__file__).parents[1]
#: Needed to build, and not part of what is installed.
BUILD_ONLY = ("setuptools",)
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


def locked(lock: str) -> list[tuple[str, str, list[str]]]:
    """Name, version and the SHA-256 of each file that is accepted for it, in order of names."""
    pins: list[tuple[str, str, list[str]]] = []
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            pins.append((pin[1], pin[2], []))
        for found in re.findall(r"--hash=sha256:([0-9a-f]{64})", line):
            pins[-1][2].append(found)
    return sorted(pins)


def project() -> dict[str, str]:
    """``name``, ``version``, ``description`` and ``license``: pyproject.toml is the place of all of them."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {key: data[key] for key in ("name", "version", "description", "license")}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"


def sbom() -> str:
    about, lock = project(), (ROOT / "requirements.lock").read_text()
    main = _purl(about["name"], about["version"])
    components = []
    for name, version, hashes in locked(lock):
        purl = _purl(name, version)
        components.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                "scope": "excluded" if name in BUILD_ONLY else "required",
                # One for each platform's file.
                "properties": [{"name": "requirements.lock:sha256", "value": value} for value in sorted(hashes)],
            }
        )
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, main + lock)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": main,
                "name": about["name"],
                "version": about["version"],
                "description": about["description"],
                "purl": main,
                "licenses": [{"license": {"id": about["license"]}}],
            }
        },
        "components": components,
        "dependencies": [
            {"ref": main, "dependsOn": [c["bom-ref"] for c in components if c["scope"] == "required"]},
        ],
    }
    return json.dumps(document, indent=1) + "\n"


FILES = {"wazuh_comms_trio/sbom.cdx.json": sbom}
