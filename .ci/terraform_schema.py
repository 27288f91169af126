"""Are infra/'s resources, blocks and arguments those of Google's provider, and are those there that it requires?

    python .ci/terraform_schema.py FOLDER     where cdktf-cdktf-provider-google is installed: it carries the schema

`terraform validate` asks the provider itself, and more; this is for where Terraform's registry cannot be reached. Types
of values and what references give are not looked at.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hcl2

ROOT = Path(__file__).parents[1]
META = {"count", "for_each", "provider", "depends_on", "lifecycle", "dynamic"}
Body = Mapping[str, Any]


class Schema:
    """The provider's resources, each a table of properties by name in camelCase, as jsii describes them."""

    def __init__(self, folder: Path) -> None:
        (archive,) = folder.glob("cdktf_cdktf_provider_google/_jsii/*.jsii.tgz")
        with tarfile.open(archive) as tar:
            file = tar.extractfile("package/.jsii")
            assert file is not None
            self._types: dict[str, Any] = json.load(file)["types"]
        self.resources = {
            f"google_{found[1]}": one
            for one in self._types.values()
            if "cdktf.TerraformMetaArguments" in one.get("interfaces", ())
            and (found := re.search(r"/docs/resources/(\w+)#", json.dumps(one.get("properties", []))))
        }

    def inner(self, type_of: Mapping[str, Any]) -> dict[str, Any] | None:
        """The table of a block's own arguments; None for what is no block."""
        if "collection" in type_of:
            return self.inner(type_of["collection"]["elementtype"])
        for one in type_of.get("union", {}).get("types", [type_of]):
            found = self._types.get(one.get("fqn", "")) if "fqn" in one else self.inner(one) if one != type_of else None
            if found is not None and found["kind"] == "interface":
                return dict(found)
        return None


def problems(schema: Schema, table: Body, body: Body, where: str) -> Iterator[str]:
    """A sentence for each argument or block that the provider does not know, or misses."""
    known = {one["name"]: one for one in table.get("properties", ())}
    given = {plain(name): value for name, value in body.items() if name not in META and not name.startswith("__")}
    for dynamic in body.get("dynamic", ()):
        given |= {plain(name): block["content"] for name, block in dynamic.items() if not name.startswith("__")}
    for name, value in given.items():
        if camel(name) not in known:
            yield f"{where}: no {name}"
            continue
        inner = schema.inner(known[camel(name)]["type"])
        blocks = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
        for block in blocks:
            if inner is None:
                yield f"{where}.{name} is an argument, not a block"
            else:
                yield from problems(schema, inner, block, f"{where}.{name}")
    for name, one in known.items():
        if not one.get("optional") and name not in {camel(there) for there in given}:
            yield f"{where}: {name} is missing"


def plain(name: str) -> str:
    return name.strip('"')


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def main(folder: Path) -> int:
    schema = Schema(folder)
    found, count = [], 0
    for path in sorted((ROOT / "infra").glob("*.tf")):
        for resource in hcl2.loads(path.read_text(encoding="utf-8")).get("resource", []):
            for kind, named in ((plain(key), value) for key, value in resource.items() if not key.startswith("__")):
                for name, body in ((plain(key), value) for key, value in named.items() if not key.startswith("__")):
                    count += 1
                    if kind not in schema.resources:
                        found.append(f"{path.name}: there is no {kind}")
                    else:
                        found += problems(schema, schema.resources[kind], body, f"{path.name}: {kind}.{name}")
    print(*found, sep="\n", file=sys.stderr)
    print(f"schema: {count} resources, {len(found)} problems")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
