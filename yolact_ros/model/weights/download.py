"""Download one file over HTTP, verified by the SHA-256 that its server states."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from yolact_ros.errors import WeightsError

TIMEOUT = 30.0  # seconds without a single byte


@dataclass(frozen=True)
class RemoteFile:
    """Describes a file that can be downloaded.

    Attributes:
        url: http or https address.
        size: bytes; None if the server does not state it.
        sha256: hash; None if the server does not state it.
    """

    url: str
    size: int | None = None
    sha256: str | None = None


def find_file(url: str) -> RemoteFile:
    """Ask a server for the size and hash of a file.

    Hugging Face sends both in its redirect to the storage, as `X-Linked-Size` and `X-Linked-ETag`;
    other servers send at least the size.

    Raises:
        WeightsError: there is no connection, the server refuses, or it returns a web page.
    """
    try:
        # Some servers refuse HEAD; the body of this GET is not read.
        with requests.get(url, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
    except OSError as error:
        raise _failure(url, error) from error
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise WeightsError(
            f"{url} returns a web page, not a file. Check whether the authors moved it, or "
            "whether the network requires a login."
        )
    size = response.headers.get("Content-Length", "")
    digest = ""
    for answer in response.history:
        size = answer.headers.get("X-Linked-Size", size)
        digest = answer.headers.get("X-Linked-ETag", digest).strip('"')
    stated = digest if re.fullmatch(r"[0-9a-f]{64}", digest) else None
    return RemoteFile(url, int(size) if size.isdigit() else None, stated)


def download(remote: RemoteFile, path: Path) -> None:
    """Download a file with a progress bar.

    Args:
        remote: the file.
        path: output file; it appears only once it is complete and checked.

    Raises:
        WeightsError: there is no connection or it broke, the server refuses, or the hash is wrong.
    """
    known = None if remote.sha256 is None else f"sha256:{remote.sha256}"
    try:
        # pooch cannot use a bar without a total; it sets the right one.
        with tqdm(desc=path.name, total=remote.size or 1, unit="B", unit_scale=True) as bar:
            loader = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT)
            pooch.retrieve(remote.url, known, fname=path.name, path=path.parent, downloader=loader)
    except OSError as error:  # before ValueError, because errors of requests may be both
        raise _failure(remote.url, error) from error
    except ValueError as error:
        raise WeightsError(
            f"The file from {remote.url} does not have the SHA-256 {remote.sha256}. It was "
            "deleted; run the command again."
        ) from error


def _failure(url: str, error: OSError) -> WeightsError:
    if isinstance(error, requests.HTTPError):
        answer = error.response
        return WeightsError(
            f"{url}: the server answers {answer.status_code} {answer.reason}. Check whether the "
            "authors moved the file."
        )
    return WeightsError(
        f"{url} could not be downloaded: {error}. Check the network connection and the disk, and "
        "run the command again."
    )
