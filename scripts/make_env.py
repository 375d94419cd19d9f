#!/usr/bin/env python3
"""Create a virtual environment that runs the node, and build the package with colcon.

ROS 2 comes as Python wheels (Kilted, or Jazzy with `--distro jazzy`), unless an installed ROS 2
has been sourced (ROS_DISTRO is set): then that one is used. Kilted's environment is .venv and its
build install/; Jazzy's are the same folders below .jazzy/. Does nothing if nothing changed.
`make env` and `make test` call it.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "log" / "make_env.log"

# Use of the environment -> extras of setup.cfg. A use includes those before it.
EXTRAS = {"run": "onnxruntime", "ros-test": "onnxruntime,ros-test", "test": "onnxruntime,dev"}
KILTED_WHEELS = [
    "ros-kilted-rclpy",
    "ros-kilted-sensor-msgs",
    "ros-kilted-diagnostic-msgs",
    "ros-kilted-std-srvs",
    "ros-kilted-visualization-msgs",
    "ros-kilted-rmw-fastrtps-cpp",
    "ros-kilted-ament-cmake",
    "ros-kilted-ament-cmake-include-directories",
    "ros-kilted-ament-cmake-pytest",
    "ros-kilted-ament-cmake-python",
    "ros-kilted-ament-cmake-ros-core",
    "ros-kilted-ament-package",
    "ros-kilted-rosidl-core-generators",
    "ros-kilted-rosidl-default-generators",
]
ROS_WHEELS = {
    "kilted": KILTED_WHEELS,
    # Jazzy has ament_cmake_ros in one package, and it requires three more.
    "jazzy": [
        name.replace("kilted", "jazzy").replace("-ros-core", "-ros") for name in KILTED_WHEELS
    ]
    + [
        "ros-jazzy-ament-cmake-gmock",
        "ros-jazzy-ament-cmake-gtest",
        "ros-jazzy-python-cmake-module",
    ],
}
BUILD_TOOLS = ["colcon-common-extensions", "cmake"]

# Decide whether the build is up to date: the content of these files, and the names of the
# files in these folders (they are linked into install/, so their content may change freely).
BUILT_FILES = ["package.xml", "CMakeLists.txt", "msg/*.msg", "srv/*.srv", "scripts/make_env.py"]
LINKED_FOLDERS = ["yolact_ros", "launch", "config", "models", "test/support/soak_test"]


def use_distro(distro):
    """Set the folders of one ROS 2 distribution's environment."""
    global DISTRO, HOME, VENV, PYTHON, PACKAGE_STAMPS, BUILD_STAMP
    DISTRO = distro
    HOME = ROOT if distro == "kilted" else ROOT / f".{distro}"
    VENV = HOME / ".venv"
    PYTHON = VENV / "bin" / "python"
    PACKAGE_STAMPS = {use: VENV / f"made_for_{use}" for use in EXTRAS}
    BUILD_STAMP = VENV / "built"


use_distro("kilted")


class Failure(Exception):
    """Reports an error to the user in one sentence."""

    status = 1


class NoPackages(Failure):
    """Reports that packages cannot be installed, e.g. because the machine is offline."""

    status = 3  # distinguishes this from a package that does not build


def main():
    """Run the script and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--use",
        choices=list(EXTRAS),
        default="run",
        help="what the environment is for, which determines what is installed (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--distro",
        choices=list(ROS_WHEELS),
        default="kilted",
        help="ROS 2 distribution to install unless one is sourced",
    )
    arguments = parser.parse_args()
    use = arguments.use
    check_interpreter()
    use_distro(arguments.distro)
    started = time.monotonic()
    try:
        work = install_packages(use) | build()
    except Failure as failure:
        print(f"make env: {failure}", file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        print("make env: interrupted; run it again to continue", file=sys.stderr)
        return 130
    if work:
        print(f"Environment ready after {time.monotonic() - started:.0f} s.")
    return 0


def check_interpreter():
    """Make sure that this is Python 3.10 to 3.13; otherwise restart with another interpreter."""
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return
    for name in ["python3.12", "python3.11", "python3.13", "python3.10"]:
        path = shutil.which(name)
        works = path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0
        if works:
            os.execv(path, [path, *sys.argv])
    sys.exit(
        "make env: requires Python 3.10 to 3.13; {} is {}.{}, and no other was found. Install "
        "one, or name it: make env PYTHON=/path/to/python3.12".format(
            sys.executable, *sys.version_info[:2]
        )
    )


def ros_distro():
    """Return the name of the sourced ROS 2 installation, or an empty string."""
    return os.environ.get("ROS_DISTRO", "")


def install_packages(use):
    """Create the virtual environment and install into it; return False if it was up to date."""
    wanted = digest(
        [ROOT / "setup.cfg", ROOT / "setup.py", ROOT / "scripts/constraints.txt", Path(__file__)],
        [str(ROOT), sys.version, ros_distro(), DISTRO],
    )
    stamp = PACKAGE_STAMPS[use]
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    if ros_distro():
        print(f"Using the sourced ROS 2 {ros_distro()}; no ROS 2 wheels are installed.")
        packages = [] if shutil.which("colcon") else ["colcon-common-extensions"]
        packages += [] if shutil.which("cmake") else ["cmake"]
    else:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise NoPackages(
                f"ROS 2 wheels exist only for Linux on x86_64, but this is {platform.system()} "
                f"on {platform.machine()}. Install ROS 2, source its setup.bash, and run this "
                "again to use that installation."
            )
        packages = ROS_WHEELS[DISTRO] + BUILD_TOOLS
    make_venv(wanted)
    what = "ONNX Runtime and colcon" if use == "run" else "packages for the tests"
    if not ros_distro():
        what = f"ROS 2 {DISTRO.title()}, {what}"
    run(
        f"Installing {what} into {VENV.relative_to(ROOT)}",
        [PYTHON, "-m", "pip", "install", "--no-input", "--constraint", "scripts/constraints.txt"]
        + packages
        + ["--editable", f".[{EXTRAS[use]}]"],
        progress=re.compile(r"^\s*(?:Collecting|Downloading) ([\w.-]+)|^(Installing) collected"),
        failure=NoPackages,
    )
    relocate_wheels()
    check = subprocess.run(
        [PYTHON, "-c", "import rclpy"], capture_output=True, text=True, cwd=VENV, env=build_env()
    )
    if check.returncode:
        raise Failure(
            f"rclpy cannot be imported by {PYTHON} (Python {platform.python_version()}): "
            f"{check.stderr.strip().splitlines()[-1]}. It requires the Python that it was "
            "built for: make env PYTHON=/usr/bin/python3"
        )
    for done in EXTRAS:
        PACKAGE_STAMPS[done].write_text(wanted)
        if done == use:
            return True
    raise AssertionError(use)


def make_venv(wanted):
    """Create the environment; replace one of another interpreter, folder or ROS 2."""
    identity = digest([], [str(ROOT), sys.version, ros_distro()])
    made_with = VENV / "made_with"
    if made_with.is_file() and made_with.read_text() == identity:
        return
    if VENV.exists():
        print(
            f"Replacing {VENV}, which was made in another folder, or for another Python or ROS 2."
        )
        shutil.rmtree(VENV)
    for folder in ["build", "install"]:
        shutil.rmtree(HOME / folder, ignore_errors=True)
    HOME.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "venv", VENV]
    if ros_distro():
        command.append("--system-site-packages")
    try:
        run(f"Creating {VENV.relative_to(ROOT)} with Python {platform.python_version()}", command)
    except Failure as failure:
        raise Failure(f"{failure} On Ubuntu and Debian: apt install python3-venv") from None
    made_with.write_text(identity)


def relocate_wheels():
    """Replace two paths of the machine that built the ROS 2 wheels with those of this one."""
    headers, packages = python_path("include"), python_path("purelib")
    for path in VENV.glob("share/*/cmake/*Export.cmake"):
        text = path.read_text()
        relocated = re.sub(r"/opt/python/[\w-]+/include/python3\.\d+", headers, text)
        relocated = re.sub(
            r"/opt/python/[\w-]+/lib/python3\.\d+/site-packages", packages, relocated
        )
        if relocated != text:
            path.write_text(relocated)


def python_path(name):
    """Return a folder of the environment's Python by its name in `sysconfig`."""
    code = f"import sysconfig; print(sysconfig.get_path({name!r}))"
    command = [PYTHON, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build():
    """Build the package with colcon into install/; return False if it was up to date."""
    names = [
        str(path.relative_to(ROOT))
        for folder in LINKED_FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    files = [path for pattern in BUILT_FILES for path in sorted(ROOT.glob(pattern))]
    wanted = digest(files, [str(ROOT), ros_distro(), *names])
    installed = (HOME / "install/yolact_ros/share/yolact_ros/package.xml").exists()
    if installed and BUILD_STAMP.is_file() and BUILD_STAMP.read_text() == wanted:
        return False
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        raise Failure(
            "no C++ compiler was found, which building the messages requires. On Ubuntu and "
            "Debian: apt install build-essential"
        )
    header = python_path("include")
    if not Path(header, "Python.h").exists():
        raise Failure(
            f"{header}/Python.h is missing, which building the messages requires. On Ubuntu and "
            "Debian: apt install python3-dev"
        )
    # A file removed from the sources must also be removed from install/; messages stay compiled.
    shutil.rmtree(HOME / "install", ignore_errors=True)
    run(
        "Building messages and package with colcon",
        [shutil.which("colcon", path=build_env()["PATH"]), "build", "--symlink-install"]
        + ["--build-base", HOME / "build", "--install-base", HOME / "install"]
        + ["--packages-select", "yolact_ros", "--executor", "sequential"]
        + ["--event-handlers", "console_direct+"]
        + ["--cmake-args", f"-DPython3_EXECUTABLE={PYTHON}", "-DBUILD_TESTING=OFF"],
        progress=re.compile(r"^\[ *(\d+%)\]"),
        env=build_env(),
    )
    BUILD_STAMP.write_text(wanted)
    return True


def build_env():
    """Return the environment variables with .venv and its ROS 2 wheels on the paths."""
    env = dict(os.environ)
    env.setdefault("MAKEFLAGS", f"-j{os.cpu_count() or 1}")
    env["PATH"] = f"{VENV / 'bin'}{os.pathsep}{env.get('PATH', '')}"
    if not ros_distro():
        libraries = [VENV / "lib", *VENV.glob("lib/python3.*/site-packages/ros_*.libs")]
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(VENV)
        env["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
        env["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"  # otherwise every interpreter starts twice
        env.pop("PYTHONPATH", None)
    return env


def digest(files, extra):
    """Return the SHA-256 of the names and content of `files` and of the strings `extra`."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    for word in extra:
        total.update(f"{word}\0".encode())
    return total.hexdigest()


def run(title, command, progress=None, env=None, failure=Failure):
    """Run a command, show its progress, and store its output in a log file.

    Args:
        title: what is done, for the user.
        command: the command and its arguments.
        progress: a regular expression; what its first group found is shown after the title.
        env: environment of the command.
        failure: what to raise.

    Raises:
        Failure: the command failed; its last lines have been printed.
    """
    LOG.parent.mkdir(exist_ok=True)
    (LOG.parent / "COLCON_IGNORE").touch()
    started = time.monotonic()
    lines, at = deque(maxlen=30), deque([""], maxlen=1)
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=env,
    )

    def follow():
        with LOG.open("a") as log, process.stdout:
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                match = progress and progress.search(line)
                if match:
                    at.append(next(group for group in match.groups() if group))

    follower = threading.Thread(target=follow)
    follower.start()
    terminal = sys.stdout.isatty()  # there one changing line, elsewhere occasional lines
    print(f"{title} ...", end="" if terminal else "\n", flush=True)
    while follower.is_alive():
        follower.join(1 if terminal else 10)
        seconds = time.monotonic() - started
        if terminal:
            print(f"\r{title}: {seconds:.0f} s {at[0]:<40.40}", end="", flush=True)
        elif follower.is_alive():
            print(f"  {seconds:.0f} s {at[0]}", flush=True)
    process.wait()
    print("" if terminal else f"  done in {time.monotonic() - started:.0f} s")
    if process.returncode:
        print("".join(lines), end="", file=sys.stderr)
        raise failure(
            f"`{Path(command[0]).name}` ended with status {process.returncode}. Its last lines "
            f"are above; all of its output is in {LOG.relative_to(ROOT)}."
        )


if __name__ == "__main__":
    sys.exit(main())
