"""List the objects of the table top with the files of their shapes and their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from yolact_ros.classes import TABLETOP


@dataclass(frozen=True)
class Asset:
    """Describes shape and size of one class of objects.

    Attributes:
        file: URDF, relative to PyBullet's data folder.
        scale: maximum scale of the file's own size; see `shrink`.
        upright: roll in radians that makes the object stand upright (some meshes have y up).
        any_colour: whether each instance gets its own colour.
        shrink: minimum scale as a fraction of `scale`.
    """

    file: str
    scale: float
    upright: float = 0.0
    any_colour: bool = False
    shrink: float = 0.75


ASSETS: dict[str, Asset] = {
    "mug": Asset("objects/mug.urdf", 1.1, any_colour=True),
    "duck": Asset("duck_vhacd.urdf", 1.3, upright=math.pi / 2),
    "teddy": Asset("teddy_vhacd.urdf", 1.3, upright=math.pi / 2, any_colour=True),
    "soccer_ball": Asset("soccerball.urdf", 0.13),
    "lego_brick": Asset("lego/lego.urdf", 2.0, any_colour=True),
    "domino": Asset("domino/domino.urdf", 1.4),
    "jenga_block": Asset("jenga/jenga.urdf", 1.0, any_colour=True),
    "cube": Asset("cube_small.urdf", 1.2, any_colour=True),
    "tray": Asset("tray/traybox.urdf", 0.36, any_colour=True, shrink=0.65),
    "racecar": Asset("racecar/racecar.urdf", 0.38, any_colour=True),
}
assert tuple(ASSETS) == TABLETOP

# Shapes that belong to no class: PyBullet's "random_urdfs", numbered from 0.
CLUTTER_FILES = tuple(f"random_urdfs/{index:03d}/{index:03d}.urdf" for index in range(1000))
