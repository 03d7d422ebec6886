#!/usr/bin/env python3
"""Every file that a document names must exist: `src/…`, `tests/…`, `tools/…` in backquotes, and relative links."""
import pathlib
import re
import subprocess
import sys


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    wrong = 0
    for path in sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")]):
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
        names = re.findall(r"`((?:src|tests|tools|bench|docs|recipes|cmake)/[^`\s]*)`", text)
        links = [l.split("#")[0] for l in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in l and not l.startswith("#")]
        wanted = [(n, root / n) for n in names] + [(l, path.parent / l) for l in links if l]
        for shown, target in wanted:
            if any(c in shown for c in "<>…"):
                continue
            if re.search(r"[*{]", shown):  # a pattern such as tests/goldens/make_*.py, or rope.{h,cpp}
                patterns = [shown]
                if m := re.match(r"(.*)\{([^}]*)\}(.*)", shown):
                    patterns = [m.group(1) + part + m.group(3) for part in m.group(2).split(",")]
                missing = [p for p in patterns if not list(root.glob(p))]
            else:
                missing = [] if target.exists() else [shown]
            for name in missing:
                print(f"{path.relative_to(root)}: {name} does not exist")
                wrong += 1
    print("documents: " + (f"{wrong} name(s) lead nowhere" if wrong else "every file they name exists"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
