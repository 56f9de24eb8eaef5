"""Try the schedules of docs/guide/nightly.md: ``python scripts/try_schedules.py [cron] [cronjob]``, as root on Linux.

`cron` waits for the next full minute and lets Debian's cron run the page's line, in a mount namespace of its own, so
that the machine's own tables are not touched. `cronjob` validates the page's manifest against the schema of Kubernetes
(``pip install kubernetes-validate``) and runs the container's command by bubblewrap, with a read-only root in which
only the volumes can be written. Both run a night of the tests' small shop over DuckDB, and see that nodes were nudged.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guide" / "nightly.md"
SERVED = "/srv/rag"
STORE = "duckdb://./shop.duckdb?table=docs&similarity=cosine"
CONFIG = """store = "env:SHOP_STORE"
model = "shop:embed"
folder = "nights"
pairs = ["clicks.csv"]
solver = "nudge-n"
"""


def block(language: str, mark: str) -> str:
    """Return the page's block of a language that holds ``mark``."""
    text = PAGE.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if mark in found[1]:
            return found[1]
    raise SystemExit(f"{PAGE} has no {language} block with {mark!r}")


def make_application(folder: Path, store: str = STORE) -> None:
    """Fill ``folder`` as the page takes for granted: a store, labels, a configuration, and the command."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cli")]
    import shop

    shop.write_files(folder)
    shop.index_in_duckdb(shop.read_folder(folder / "texts"), folder / "shop.duckdb")
    shutil.copy(shop.__file__, folder)
    (folder / "night.toml").write_text(CONFIG, encoding="utf-8")
    (folder / "nudge.env").write_text(f"SHOP_STORE={shlex.quote(store)}\n", encoding="utf-8")
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    command = binaries / "nudge-rag"
    lines = [f"#!{sys.executable}", "import sys", f"sys.path[:0] = {[str(ROOT), str(folder)]}"]
    command.write_text("\n".join([*lines, "from nudge_rag.cli import main", "sys.exit(main())", ""]), encoding="utf-8")
    command.chmod(0o755)


def check_night(folder: Path, output: str) -> str:
    """Return a line on what the night did.

    Raises:
        SystemExit: the night did not push, or the store holds no nudge.
    """
    answer = json.loads(output)
    if not answer.get("result", {}).get("pushed"):
        raise SystemExit(f"the night pushed nothing: {output}")
    command = [folder / ".venv" / "bin" / "nudge-rag", "status", STORE, "--json"]
    status = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    n_nudged = len(status["result"]["nudged"])
    if not n_nudged:
        raise SystemExit("no node is nudged")
    return f"night {answer['result']['night']} pushed version {answer['result']['version']}, {n_nudged} nodes"


def try_cron(folder: Path) -> str:
    """Let cron run the page's line at the next full minute."""
    make_application(folder)
    line = block("text", "nightly").strip()
    schedule, command = re.match(r"((?:\S+\s+){5})(.*)", line).groups()  # type: ignore[union-attr]
    command = command.replace(SERVED, str(folder)).replace("/etc/nudge.env", str(folder / "nudge.env"))
    tables = folder / "crontabs"
    tables.mkdir(mode=0o1730)
    table = tables / "root"
    table.write_text(f"* * * * * {command}\n", encoding="utf-8")
    table.chmod(0o600)
    hidden = "mount --bind {0} /var/spool/cron/crontabs && mount -t tmpfs none /etc/cron.d && exec cron -f"
    log = folder / "cron.log"
    cron = subprocess.Popen(["unshare", "-m", "sh", "-c", hidden.format(shlex.quote(str(tables)))])
    try:
        deadline = time.monotonic() + 300
        while not log.exists() or not log.read_text().rstrip().endswith("}"):
            if cron.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"cron did not run the line: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(0.5)
        table.write_text("", encoding="utf-8")
    finally:
        cron.send_signal(signal.SIGTERM)
        cron.wait()
    return f"cron ({schedule.strip()} on the page, every minute here): {check_night(folder, log.read_text())}"


def try_cronjob(folder: Path) -> str:
    """Validate the manifest, and run its command with a read-only root."""
    import kubernetes_validate
    import yaml

    manifest = yaml.safe_load(block("yaml", "kind: CronJob"))
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(manifest, version, strict=True)
    make_application(folder)
    (folder / "nights").mkdir()
    container = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    scratch = [part for path in paths if not path.startswith(SERVED) for part in ("--tmpfs", path)]
    mounts = [path.replace(SERVED, str(folder)) for path in paths if path.startswith(SERVED)]
    store = f"duckdb://{folder}/database/shop.duckdb?table=docs&similarity=cosine"
    # The store is no part of the container: it is reached by its address, here a folder of its own.
    (folder / "database").mkdir()
    (folder / "shop.duckdb").rename(folder / "database" / "shop.duckdb")
    writable = [option for path in [*mounts, str(folder / "database")] for option in ("--bind", path, path)]
    root = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", *scratch, "--ro-bind", str(folder), str(folder)]
    sandbox = ["bwrap", "--unshare-pid", *root, *writable]
    environment = {"PATH": f"{folder / '.venv' / 'bin'}:/usr/bin:/bin", "SHOP_STORE": store}
    command = [*container["command"], *container["args"]]

    def in_container() -> subprocess.CompletedProcess[str]:
        call = [*sandbox, "--chdir", str(folder), *command]
        return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)

    done = in_container()
    if done.returncode:
        raise SystemExit(f"the container's command ended with {done.returncode}: {done.stdout}{done.stderr}")
    again = in_container()
    if again.returncode or "no label is new" not in again.stdout:
        raise SystemExit(f"the second night ended with {again.returncode}: {again.stdout}{again.stderr}")
    (folder / "shop.duckdb").symlink_to(folder / "database" / "shop.duckdb")
    return f"CronJob (valid for Kubernetes {version}, read-only root): {check_night(folder, done.stdout)}"


def main() -> None:
    """Try the schedules that are named."""
    tries = {"cron": try_cron, "cronjob": try_cronjob}
    parser = argparse.ArgumentParser(description="Try the schedules of the documentation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(tries)}; both by default")
    for name in parser.parse_args().names or tries:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{tries[name](Path(folder))}\n")


if __name__ == "__main__":
    main()
