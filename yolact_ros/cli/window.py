"""Show images in a window while they are segmented."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from yolact_ros.errors import BackendError

if TYPE_CHECKING:
    import numpy as np


class Window:
    """Shows images in a Tk window, which the user closes with its button, q or Escape.

    Attributes:
        closed: whether the user has closed it.
    """

    def __init__(self, title: str) -> None:
        """Open the window.

        Raises:
            BackendError: there is no display, or Python lacks Tk.
        """
        try:
            import tkinter
        except ImportError as error:
            raise BackendError(
                "--show requires Tk, which this Python lacks. Install it with: sudo apt install "
                "python3-tk. Or write images with --overlay instead."
            ) from error
        try:
            self._root = tkinter.Tk(className=title)
        except tkinter.TclError as error:
            raise BackendError(
                f"--show requires a display ({error}). Write images with --overlay instead."
            ) from error
        self.closed = False
        self._photo: Any = tkinter.PhotoImage(master=self._root)
        self._label = tkinter.Label(self._root, image=self._photo)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, lambda _: self._close())

    def show(self, image: np.ndarray) -> None:
        """Show a (H, W, 3) uint8 BGR image, as large as the screen allows."""
        import cv2

        height, width = image.shape[:2]
        limit = self._root.winfo_screenwidth() / width, self._root.winfo_screenheight() / height
        scale = min(1.0, 0.9 * min(limit))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".ppm", image)
        self._photo.configure(data=data.tobytes())
        self._root.update()

    def wait(self) -> None:
        """Wait until the user closes the window."""
        while not self.closed:
            self._root.update()
            time.sleep(0.02)

    def close(self) -> None:
        """Destroy the window."""
        self._root.destroy()

    def _close(self) -> None:
        self.closed = True
