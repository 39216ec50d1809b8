"""The demo, from an empty folder to its report, against four minutes."""

from __future__ import annotations

import subprocess
import sys
import time

from _measure import Result, Setting

LIMIT = 240.0  # seconds


def bench(setting: Setting) -> list[Result]:
    words = ["demo", "--out", str(setting.folder / "demo"), "--json"]
    words += [
        "--encoder",
        f"OpenCLIP({setting.encoder!r})",
        "--generator",
        f"HF({setting.generator!r}, max_new_tokens=12)",
    ]
    words += ["--quick"] if setting.tiny else []
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from morgana.cli import main; main()", *words], check=True, stdout=subprocess.DEVNULL
    )
    spent = time.perf_counter() - start
    return [Result("morgana demo / four minutes", spent / LIMIT, 1.0, detail=f"{spent:.0f} s")]
