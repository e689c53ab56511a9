"""Writes what is generated from the typed models: `python tools/generate.py`; `--check` only says what is stale."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from hasite.api import GROUP  # noqa: E402

from tools.crds import KINDS, definition  # noqa: E402
from tools.reference import reference_page  # noqa: E402

_NOTICE = "# Generated from operator/hasite/api by tools/generate.py. Don't edit.\n"


def generated(root: Path = ROOT) -> Mapping[Path, str]:
    """Every generated file, relative to the root, with the text that it should have."""
    files: dict[Path, str] = {}
    for kind in KINDS:
        text = _NOTICE + _yaml(definition(kind))
        files[Path(f"crds/{GROUP}_{kind.PLURAL}.yaml")] = text
        files[Path(f"helm/hasite-operator/files/crds/{GROUP}_{kind.PLURAL}.yaml")] = text
    files[Path("manifests/crds.yaml")] = _NOTICE + "---\n".join(_yaml(definition(kind)) for kind in KINDS)
    files[Path("docs/reference.md")] = reference_page(root / "examples")
    return files


def stale(root: Path = ROOT) -> list[Path]:
    """The generated files that are missing or differ from what would be written."""
    return [
        path
        for path, text in generated(root).items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """The command. 1 when something is stale and may not be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    texts = generated()
    paths = stale()
    for path in paths:
        print(f"{'stale' if check else 'written'}: {path}")
        if not check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(texts[path], encoding="utf-8")
    if check and paths:
        print("run: python tools/generate.py", file=sys.stderr)
    return int(check and bool(paths))


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    sys.exit(main())
