"""Simulate at random what goes wrong on robots, for minutes or hours, and check the node.

    ros2 run yolact_ros soak --minutes 30

Four cameras send good and damaged images, and their clocks jump; cameras, subscribers and the
node's process come and go; parameters, services and transitions are called in any order. The soak
test checks that every image is accounted for, that results arrive in order, and that old and
damaged images have no result. It also checks service replies, exit statuses, memory, threads and
open files.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from soak_test.world import CAMERAS, NAMESPACE, World
from yolact_ros.errors import YolactError
from yolact_ros.ros.benchmark.model import write_benchmark_model
from yolact_ros.ros.demo.child_process import ChildProcess, run_with_node

SETTLE_S = 10.0  # between two checks of an idle node
LIFE_S = 600.0  # approximate lifetime of one node process
# Allowed growth of a process after its second check.
MORE_MEMORY_MB, MORE_THREADS, MORE_FILES = 100.0, 4, 16
MOST_LOST_ANSWERS = 3  # per process: those that DDS loses while the node discovers the clients
MOST_FAULTS = 20  # maximum number of printed faults


class Soak:
    """Drives the node through several process lifetimes.

    Attributes:
        measured: memory in MB, threads and open files of the idle node, per process.
        faults: faults other than those of the world.
    """

    def __init__(self, world: World, folder: Path, draw: random.Random) -> None:
        self.measured: list[list[tuple[float, int, int]]] = []
        self.faults: list[str] = []
        self._world = world
        self._folder = folder
        self._draw = draw
        self._model = write_benchmark_model(folder / "model")

    def run(self, seconds: float) -> None:
        """Act at random for some seconds, and check the idle node repeatedly."""
        with tqdm(total=round(seconds), unit="s", disable=None) as bar:
            lives = max(2, round(seconds / LIFE_S))
            for life in range(lives):
                self._live(seconds / lives, life, bar)

    def _live(self, seconds: float, life: int, bar: tqdm) -> None:
        log = self._folder / f"{life}.log"
        words = ("-p", f"model:={self._model}", "-p", f"cameras:=[{', '.join(CAMERAS)}]")
        names = ("-r", f"__ns:={NAMESPACE}", "-p", "threads:=1")
        measured: list[tuple[float, int, int]] = []
        self.measured.append(measured)
        with (
            log.open("w") as output,
            ChildProcess("yolact_node", *names, *words, output=output) as node,
        ):
            try:
                self._world.watch(node)
                end = time.monotonic() + seconds
                while (now := time.monotonic()) < end:
                    due = min(end, now + SETTLE_S)
                    while time.monotonic() < due:
                        self._world.act()
                    measured.append(self._world.settle())
                    bar.update(round(time.monotonic() - now))
                number = self._draw.choice([signal.SIGINT, signal.SIGTERM])
                if status := node.end(number):
                    self.faults.append(f"The node ended with status {status} on {number.name}.")
            except YolactError as error:
                self.faults.append(f"{error} Its log ends: {log.read_text()[-2000:]}")
        if (lost := self._world.lost_answers) > MOST_LOST_ANSWERS:
            self.faults.append(f"{lost} answers of the node were lost.")
        text = log.read_text()
        if tracebacks := text.count("Traceback"):
            start = text.index("Traceback")
            self.faults.append(f"{tracebacks} tracebacks, first: {text[start : start + 1500]}")
        self._judge(measured)

    def _judge(self, measured: list[tuple[float, int, int]]) -> None:
        if len(measured) < 3:
            return
        limits = (MORE_MEMORY_MB, MORE_THREADS, MORE_FILES)
        for column, name in enumerate(("MB of memory", "threads", "open files")):
            values = [row[column] for row in measured[1:]]
            last = statistics.median(values[len(values) // 2 :])
            if last > values[0] + limits[column]:
                self.faults.append(f"From {values[0]:.0f} {name} the node grew to {last:.0f}.")


def report(soak: Soak, world: World) -> int:
    """Print the actions and the faults; return the number of faults."""
    for what, count in sorted(world.counts.items()):
        print(f"{count:8} {what}")
    for name, ledger in world.ledgers.items():
        print(f"{ledger.answered:8} results for {ledger.sent} images of the camera {name}")
    for life, measured in enumerate(soak.measured, 1):
        first, last = (measured[index] if measured else (0.0, 0, 0) for index in (0, -1))
        print(
            f"process {life}: memory {first[0]:.0f} to {last[0]:.0f} MB, threads {first[1]} to "
            f"{last[1]}, open files {first[2]} to {last[2]} in {len(measured)} checks at rest"
        )
    faults = [*soak.faults, *world.faults]
    faults += [fault for ledger in world.ledgers.values() for fault in ledger.faults]
    for fault in faults[:MOST_FAULTS]:
        print(f"FAULT: {fault}")
    print(f"{len(faults)} faults" if faults else "No faults.")
    return len(faults)


def main() -> int:
    """Run the soak; return 0, or 1 if there were faults."""
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=2.0, metavar="N", help="duration (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not 0 < arguments.minutes < 1e5:
        parser.error("--minutes must be above 0 and below 100000")

    def work() -> int:
        draw = random.Random(arguments.seed)
        with tempfile.TemporaryDirectory() as folder:
            world = World(draw)
            soak = Soak(world, Path(folder), draw)
            try:
                soak.run(arguments.minutes * 60.0)
            except KeyboardInterrupt:
                print("soak: interrupted", file=sys.stderr)
            world.close()
        return 1 if report(soak, world) else 0

    return run_with_node("soak", work)
