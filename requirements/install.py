"""Make .venv and install a lock file into it: `python3 install.py main|dev`, one clear line where that cannot be done.

`main.lock` is what the table needs, `dev.lock` what all of the repository needs; `make lock` makes both. Every file
that they name is checked by its hash. The environment variable TORCH says which build of torch is wanted: `cuda`, the
one in the lock, PyPI's (several GB of CUDA libraries on Linux); or `cpu`, torch's own build without them, of the same
version, but from torch's own index, which vouches for it. Unset, it is `cpu` on a Linux machine without an NVIDIA
driver, and `cuda` where that index cannot be reached. Runs on any Python 3, so that one that is too old is told so.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".venv"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
ONLY_FOR_CUDA = re.compile(r"(cuda|nvidia)-|triton==|torch==")
ADVICE = (
    (r"No space left on device|Errno 28", "the disk is full: free some space, or clone to another disk"),
    (r"DO NOT MATCH THE HASHES", "a downloaded file is not the one in the lock: a proxy or mirror has changed it"),
    (
        r"Failed to establish a new connection|Max retries exceeded|ProxyError|timed out|\(from versions: none\)",
        "no package index can be reached: is there a network, or a proxy that pip must know?",
    ),
    (r"Permission denied|Read-only file system", "it cannot be written: clone to a folder that is yours"),
)


class InstallError(Exception):
    """What cannot be done, and what to do, in one line."""


def check_python(version, has_venv):
    """Refuse a Python that the locks are not for, or that cannot make environments."""
    found = ".".join(map(str, version[:3]))
    if not (3, 11) <= tuple(version[:2]) <= (3, 14):
        raise InstallError(f"Python 3.11 to 3.14 is needed, this is {found}: make PYTHON=python3.12 ...")
    if not has_venv:
        raise InstallError(
            f"Python {found} cannot make environments (no venv or ensurepip): apt-get install python3-venv on Debian "
            "or Ubuntu, or make PYTHON=/path/to/another/python3 ..."
        )


def can_make_environments():
    """Whether the modules are there; Debian ships them apart."""
    try:
        import ensurepip
        import venv

        return bool(ensurepip.version()) and venv is not None
    except ImportError:
        return False


def wanted_torch(setting, platform=sys.platform, driver=Path("/proc/driver/nvidia")):
    """The builds of torch to try, in order."""
    if setting not in ("", "cpu", "cuda"):
        raise InstallError(f"TORCH must be cpu or cuda, got {setting!r}")
    if setting:
        return [setting]
    return ["cpu", "cuda"] if platform == "linux" and not driver.exists() else ["cuda"]


def without_cuda(lock):
    """The text of a lock without torch and what only its CUDA build needs: an entry begins at the line's start."""
    entries = re.split(r"(?m)^(?=\S)", lock)
    return "".join(entry for entry in entries if not ONLY_FOR_CUDA.match(entry))


def explanation(output):
    """One line for pip's pages."""
    for pattern, advice in ADVICE:
        if re.search(pattern, output):
            return advice
    errors = [line[len("ERROR: ") :] for line in output.splitlines() if line.startswith("ERROR: ")]
    return errors[-1] if errors else "pip failed"


def pip(log, *arguments):
    """Run the environment's pip; its output goes to a file. Python compiles what is imported, when it is."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install"]
    options = ["--no-input", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run([*command, *options, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with log.open("a") as file:
        file.write(done.stdout)
    if done.returncode:
        raise InstallError(f"{explanation(done.stdout)} (pip's own words: {log})")


def install(name, torch):
    """Everything of a lock, with one build of torch, and the package itself as it lies here."""
    log, lock = VENV / "install.log", HERE / f"{name}.lock"
    text = lock.read_text()
    if torch == "cpu":
        version = re.search(r"(?m)^torch==([^\s;]+)", text).group(1)
        pip(log, "--no-deps", "--extra-index-url", CPU_BUILDS, f"torch=={version}+cpu")
        lock = VENV / f"{name}-without-cuda.lock"
        lock.write_text(without_cuda(text))
    pip(log, "--no-deps", "--require-hashes", "--requirement", str(lock))
    pip(log, "--no-deps", "--no-build-isolation", "--editable", str(HERE.parent))


def main():
    """Command line."""
    began, name = time.monotonic(), sys.argv[1]
    try:
        builds = wanted_torch(os.environ.get("TORCH", ""))
        check_python(sys.version_info, can_make_environments())
        print(f"installing requirements/{name}.lock into .venv, with torch for {builds[0]}; once", flush=True)
        if not (VENV / "bin" / "python").exists():
            done = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
            if done.returncode:
                raise InstallError(explanation(done.stdout + done.stderr))
        (VENV / "install.log").write_text("")
        for build in builds:
            try:
                install(name, build)
                break
            except InstallError as error:
                if build == builds[-1]:
                    raise
                print(f"torch's CPU build is not to be had: {error}; taking the build with CUDA", flush=True)
        print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    except (InstallError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
