#!/usr/bin/env python3
"""Reads the #include lines of src/ and fails on an arrow that docs/architecture.md does not allow."""
import pathlib
import re
import sys

# Each layer and the layers it may include besides itself.
ALLOWED = {"base": set()}
ALLOWED["tensor"] = {"base"}
ALLOWED["quant"] = ALLOWED["tensor"] | {"tensor"}
ALLOWED["backend"] = ALLOWED["quant"] | {"quant"}
ALLOWED["autograd"] = ALLOWED["backend"] | {"backend"}
ALLOWED["ops"] = ALLOWED["autograd"] | {"autograd"}
ALLOWED["io"] = ALLOWED["quant"] | {"quant"}
ALLOWED["nn"] = ALLOWED["ops"] | {"ops", "io"}
ALLOWED["models"] = ALLOWED["nn"] | {"nn"}
ALLOWED["text"] = {"base"}
ALLOWED["data"] = {"base", "tensor", "text"}
ALLOWED["eval"] = ALLOWED["models"] | ALLOWED["data"] | {"models", "data"}
ALLOWED["train"] = ALLOWED["eval"]
ALLOWED["study"] = ALLOWED["train"] | {"train", "eval"}
ALLOWED["cli"] = ALLOWED["study"] | {"study"}


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent / "src"
    wrong = 0
    for path in sorted(root.rglob("*")):
        if path.suffix not in {".h", ".cpp", ".cu"}:
            continue
        layer = path.relative_to(root).parts[0]
        if layer not in ALLOWED:
            print(f"src/{path.relative_to(root)}: {layer} is no layer; add it here and in docs/architecture.md")
            wrong += 1
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not match:
                continue
            target = match.group(1).split("/")[0]
            if target in ALLOWED and target != layer and target not in ALLOWED[layer]:
                print(f"src/{path.relative_to(root)}:{number}: {layer} may not include {match.group(1)}")
                wrong += 1
    print("layers: " + (f"{wrong} arrow(s) point the wrong way" if wrong else "every arrow points to the right"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
