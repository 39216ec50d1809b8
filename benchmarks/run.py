"""Run the benchmarks and print ratios with their targets. A slow one is said, and fails nothing.

python benchmarks/run.py [--only search bair] [--tiny] [--long] [--encoder FOLDER --generator FOLDER] [--threads 2]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import torch
from _measure import Setting

NAMES = (
    "atlas",
    "index_build",
    "index_store",
    "ray_build",
    "search",
    "sparse",
    "attack_steps",
    "smoothguard",
    "bair",
    "pruning",
    "interventions",
    "demo",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--tiny", action="store_true", help="show that they run; the ratios mean nothing")
    parser.add_argument("--encoder", default="atlas", help="an open_clip model or folder")
    parser.add_argument("--generator", default="atlas", help="a transformers model or folder")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's own choice)")
    parser.add_argument(
        "--long", action="store_true", help="interventions at 4,000 prompt tokens and on a larger model too"
    )
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    say(f"{device}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(chosen.encoder, chosen.generator, chosen.tiny, Path(folder), chosen.long)
        for name in chosen.only:
            for result in importlib.import_module(name).bench(setting):
                say(str(result))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
