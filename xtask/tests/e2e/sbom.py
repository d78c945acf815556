"""Judges an SBOM by the schema that CycloneDX publishes: `python sbom.py FILE`."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
version = SchemaVersion.from_version(json.loads(text)["specVersion"])
sys.exit(JsonStrictValidator(version).validate_str(text))
