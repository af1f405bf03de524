# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the lock file: what pip would install today for pyproject.toml.

It names packages and versions only: where they come from is the host's business.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def requirements() -> list[str]:
    """Tell everything that pyproject.toml asks for, build and dev extra included."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = config["project"]
    wanted: list[str] = [*config["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    return wanted


def resolve(wanted: list[str]) -> dict[str, str]:
    """Let pip choose versions.

    :return: version by normalised name, dependencies of dependencies included.
    :raise subprocess.CalledProcessError: When pip finds no solution.
    """
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    argv += ["--ignore-installed", "--report", "-", *wanted]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    chosen = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {item["name"].lower().replace("_", "-"): item["version"] for item in chosen}


def main() -> int:
    """Replace the pins of the file named on the command line, keep its head."""
    path = Path(sys.argv[1])
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    pins = [f"{name}=={it}" for name, it in sorted(resolve(requirements()).items())]
    path.write_text("\n".join([*head, *pins]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
