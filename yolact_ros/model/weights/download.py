"""Download one large file over HTTP, resumable and verified."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from tqdm import tqdm

from yolact_ros.errors import WeightsError
from yolact_ros.files import file_sha256

TIMEOUT = 30.0  # seconds without a single byte
BLOCK = 1 << 18  # bytes read at once


@dataclass
class ExpectedFile:
    """Holds size and hash of the whole file as stated by the server; None if not stated."""

    size: int | None = None
    sha256: str | None = None

    def note(self, headers: Message) -> None:
        """Read size and SHA-256 from the headers of one response.

        Hugging Face sends both in its redirect to the storage, as `X-Linked-Size` and
        `X-Linked-ETag`; other servers send at least the size.
        """
        digest = headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            self.sha256 = digest
        # "bytes 5-9/10" for a part, "bytes */10" for a rejected range
        whole = re.fullmatch(r"bytes .*/(\d+)", headers.get("Content-Range", ""))
        size = whole.group(1) if whole else headers.get("X-Linked-Size", "")
        if size.isdigit():
            self.size = int(size)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and reads size and hash from them."""

    def __init__(self, expected: ExpectedFile) -> None:
        self.expected = expected

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        self.expected.note(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, path: Path, *, sha256: str | None = None) -> str:
    """Fetch `url` into `path`, resuming an earlier attempt (`path` + `.part`).

    Args:
        url: http or https address.
        path: output file; it appears only once it is complete and checked.
        sha256: required hash; by default the one stated by the server, if any.

    Returns:
        The file's SHA-256.

    Raises:
        WeightsError: there is no connection, the server refuses, the connection broke (the part is
            kept for the next attempt), or size or hash are wrong (the file is deleted).
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    stated = ExpectedFile()
    try:
        _fetch(url, part, stated)
    except urllib.error.HTTPError as error:
        error.close()
        raise WeightsError(
            f"{url}: the server answers {error.code} {error.reason}. Check whether the "
            "authors moved the file."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None) or error or type(error).__name__
        kept = f" {part.stat().st_size} bytes are kept in {part}." if part.is_file() else ""
        raise WeightsError(
            f"{url} could not be fetched: {cause}.{kept} Check the network connection and run "
            "the command again."
        ) from error
    size = part.stat().st_size
    if not size:
        part.unlink()
        raise WeightsError(
            f"{url} returns an empty response. Check whether the authors moved the file, and run "
            "the command again."
        )
    if stated.size is not None and size < stated.size:
        raise WeightsError(
            f"The connection to {url} broke after {size} of {stated.size} bytes, which are kept "
            f"in {part}. Run the command again to fetch the rest."
        )
    actual = file_sha256(part)
    expected = sha256 or stated.sha256
    _etag_file(part).unlink(missing_ok=True)
    too_long = stated.size is not None and size > stated.size
    if too_long or (expected is not None and actual != expected):
        part.unlink()
        wanted = f"{stated.size} bytes" if too_long else f"SHA-256 {expected}"
        raise WeightsError(
            f"The file from {url} is wrong: {size} bytes with SHA-256 {actual}, expected "
            f"{wanted}. It was deleted; run the command again."
        )
    part.replace(path)
    return actual


def remote_size(url: str) -> int | None:
    """Ask the server for the size of a file in bytes; return None if it does not state it."""
    stated = ExpectedFile()
    request = urllib.request.Request(url, method="HEAD")
    try:
        opener = urllib.request.build_opener(_Redirects(stated))
        with opener.open(request, timeout=TIMEOUT) as response:
            stated.note(response.headers)
            length = response.headers.get("Content-Length", "")
    except (OSError, http.client.HTTPException):  # the download will report why
        return None
    return stated.size or (int(length) if length.isdigit() else None)


def _fetch(url: str, part: Path, stated: ExpectedFile) -> None:
    """Append the missing rest to `part`, or fetch everything if the server cannot resume."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if _etag_file(part).is_file():  # the server sends everything if the version differs
            request.add_header("If-Range", _etag_file(part).read_text())
    try:
        response = urllib.request.build_opener(_Redirects(stated)).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        with error:  # nothing follows `part`: it is complete, or of another file
            stated.note(error.headers)
        if stated.size is None:
            part.unlink()
            _fetch(url, part, stated)
        return
    with response:
        stated.note(response.headers)
        if response.headers.get_content_type() == "text/html":
            raise WeightsError(
                f"{url} returns a web page, not a file. Check whether the authors moved it, or "
                "whether the network requires a login."
            )
        resumed = response.status == 206
        etag = response.headers.get("ETag", "")
        if etag.startswith('"'):  # a weak one does not guarantee equal bytes
            _etag_file(part).write_text(etag)
        else:
            _etag_file(part).unlink(missing_ok=True)
        length = response.headers.get("Content-Length", "")
        if stated.size is None and not resumed and length.isdigit():
            stated.size = int(length)
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(
                total=stated.size,
                initial=start if resumed else 0,
                desc=part.name.removesuffix(".part"),
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))


def _etag_file(part: Path) -> Path:
    """Return the file with the ETag of `part`."""
    return part.with_name(part.name + ".etag")
