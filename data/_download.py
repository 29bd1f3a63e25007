"""Archives from the web to folders on disk: resumed downloads, checksums, safe unpacking.

Standard library only, so that the scripts beside this file run before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 8  # broken connections in a row without progress
SLACK = 2  # times the size that an archive should have unpacked, at which it is refused
PAUSE = 2.0  # seconds before the second attempt, doubled every time


class DownloadError(Exception):
    """Something the user has to act on; the message says what."""


class _WrongFileError(Exception):
    """The server sends something else than the archive."""


class Archive(NamedTuple):
    """One file to fetch and unpack.

    Attributes:
        name: file name.
        urls: where to get it; the next is tried when one fails.
        size: bytes.
        md5: hexadecimal.
        unpacked_size: bytes on disk after unpacking, about.
        makes: a file or folder that exists once it is unpacked, relative to the target folder.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str
    unpacked_size: int
    makes: str


def get(archive: Archive, root: Path, *, keep: bool = False) -> None:
    """Brings ``archive`` to ``root``: downloads, verifies, unpacks. What is there is not redone.

    Args:
        archive: what to get.
        root: folder to unpack into.
        keep: keep the archive file after unpacking.

    Raises:
        DownloadError: no address answers, the disk is too small, the checksum differs (the file is
            kept as ``<name>.bad``) or the archive would write outside ``root``.
    """
    file = root / archive.name
    stamp = root / f".{archive.name}.unpacked"  # written last: an interrupted unpacking is redone
    if stamp.exists() and (root / archive.makes).exists():
        print(f"{archive.name}: already unpacked in {root}")
        return
    root.mkdir(parents=True, exist_ok=True)
    _check_space(archive, root)
    if not file.exists():
        download(archive, file)
    verify(archive, file)
    unpack(file, root, SLACK * archive.unpacked_size)
    if not (root / archive.makes).exists():
        raise DownloadError(f"{file} was unpacked, but {root / archive.makes} is not there")
    stamp.write_text(f"{archive.md5}\n")
    if not keep:
        file.unlink()
    print(f"{archive.name}: unpacked to {root / archive.makes}")


def download(archive: Archive, file: Path) -> None:
    """Fetches ``archive`` into ``file``; continues a ``.part`` file of an earlier attempt.

    Raises:
        DownloadError: every address fails.
    """
    part = file.with_name(file.name + ".part")
    errors = []
    for url in archive.urls:
        failures = 0
        while failures < ATTEMPTS:
            before = _length(part)
            if before >= archive.size:
                part.replace(file)
                return
            try:
                _fetch(url, part, archive)
                continue
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}"
                final = error.code < 500 and error.code not in (408, 429)
                error.close()
            except _WrongFileError as error:
                reason, final = str(error), True
            except (OSError, http.client.HTTPException) as error:
                reason, final = str(error) or type(error).__name__, False
            failures = 0 if _length(part) > before else failures + 1
            if final:
                break
            if failures:
                print(f"{url}: {reason}; trying again")
                time.sleep(PAUSE * 2 ** (failures - 1))
        errors.append(f"{url}: {reason}")
    raise DownloadError(
        f"{archive.name} could not be downloaded:\n  " + "\n  ".join(errors) + "\nRun the same "
        f"command again to continue, or put the file at {file} yourself."
    )


def _fetch(url: str, part: Path, archive: Archive) -> None:
    """One connection: appends to ``part`` what the server sends, from where ``part`` ends."""
    have = _length(part)
    request = urllib.request.Request(url, headers={"User-Agent": "jdet"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:
            have = 0  # the server ignores ranges and sends everything
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise OSError(f"asked for bytes from {have}, got {response.headers['Content-Range']}")
        length = response.headers.get("Content-Length")
        if length is not None and have + int(length) != archive.size:
            raise _WrongFileError(f"offers {have + int(length)} bytes, not {archive.size}")
        progress = _Progress(archive.name, archive.size, have)
        with open(part, "ab" if have else "wb") as out:
            while block := response.read(CHUNK):
                out.write(block)
                have += len(block)
                progress.show(have)
                if have > archive.size:
                    break
        progress.end()
    if have < archive.size:
        raise OSError(f"the connection closed after {have} of {archive.size} bytes")


def verify(archive: Archive, file: Path) -> None:
    """Compares size and MD5; a file that differs is renamed to ``<name>.bad``.

    Raises:
        DownloadError: size or checksum differ.
    """
    size, digest = file.stat().st_size, hashlib.md5(usedforsecurity=False)
    if size == archive.size:
        progress = _Progress(f"{archive.name}: checking", size, 0)
        with open(file, "rb") as data:
            while block := data.read(CHUNK):
                digest.update(block)
                progress.show(data.tell())
        progress.end()
    if size != archive.size or digest.hexdigest() != archive.md5:
        bad = file.with_name(file.name + ".bad")
        file.replace(bad)
        found = f"{size} bytes" if size != archive.size else f"MD5 {digest.hexdigest()}"
        raise DownloadError(
            f"{archive.name} is not the file it should be: {found}, expected {archive.size} bytes "
            f"with MD5 {archive.md5}. It was kept as {bad}; run the same command again to download "
            "it once more."
        )


def unpack(file: Path, root: Path, most: int) -> None:
    """Unpacks a tar or zip archive, after checking that all of it stays within ``root`` and a size.

    Args:
        file: the archive.
        root: folder to unpack to.
        most: bytes that its files may have together, by their headers, which unpacking keeps to.

    Raises:
        DownloadError: it is larger, or a member would be written elsewhere or is no plain file, folder or
            inner link; nothing is written then. Or the archive is damaged.
    """
    print(f"{file.name}: unpacking", flush=True)
    try:
        if zipfile.is_zipfile(file):
            _unpack_zip(file, root, most)
        else:
            _unpack_tar(file, root, most)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DownloadError(f"{file} cannot be unpacked: {error}") from error


def _unpack_tar(file: Path, root: Path, most: int) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError("safe unpacking of tar files needs Python 3.11.4 or newer")
    with tarfile.open(file) as archive:
        total = 0
        for member in archive:
            tarfile.data_filter(member, str(root))
            total += member.size
            _check_size(file, total, most)
        archive.extractall(root, filter="data")


def _unpack_zip(file: Path, root: Path, most: int) -> None:
    inside = root.resolve()
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            target = (root / member.filename).resolve()
            kind = member.external_attr >> 28  # of the Unix mode; 0xA: symbolic link
            if not target.is_relative_to(inside) or kind == 0xA:
                raise DownloadError(
                    f"{file} cannot be unpacked: {member.filename!r} would leave {root}"
                )
        _check_size(file, sum(member.file_size for member in archive.infolist()), most)
        archive.extractall(root)


def _check_size(file: Path, total: int, most: int) -> None:
    if total > most:
        raise DownloadError(
            f"{file} cannot be unpacked: it holds {total} bytes and more than {most}, which is "
            f"{SLACK} times what it should"
        )


def _check_space(archive: Archive, root: Path) -> None:
    needed = archive.size + archive.unpacked_size
    needed -= max(_length(root / archive.name), _length(root / f"{archive.name}.part"))
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DownloadError(
            f"{archive.name} needs {needed / 1e9:.1f} GB in {root}, and {free / 1e9:.1f} GB are free"
        )


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


class _Progress:
    """One line that is rewritten on a terminal; elsewhere a line for every tenth."""

    def __init__(self, what: str, total: int, start: int):
        self._what, self._total, self._start = what, total, start
        self._began = self._shown_at = time.monotonic()
        self._tenth = 10 * start // max(total, 1)
        self._live = sys.stdout.isatty()

    def show(self, done: int) -> None:
        now = time.monotonic()
        tenth = 10 * done // max(self._total, 1)
        if (now - self._shown_at < 0.2) if self._live else (tenth == self._tenth):
            return
        self._shown_at, self._tenth = now, tenth
        rate = (done - self._start) / max(now - self._began, 1e-3)
        line = (
            f"{self._what}: {100 * done / self._total:3.0f} % of {self._total / 1e6:.0f} MB, "
            f"{rate / 1e6:.1f} MB/s, {(self._total - done) / max(rate, 1):.0f} s left"
        )
        print(f"\r{line}\033[K" if self._live else line, end="" if self._live else "\n", flush=True)

    def end(self) -> None:
        if self._live:
            print()


def get_all(archives: Sequence[Archive], root: Path, keep: bool) -> int:
    """Gets one archive after the other; returns the exit status of the script."""
    for archive in archives:
        try:
            get(archive, root, keep=keep)
        except DownloadError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted; run the same command again to continue", file=sys.stderr)
            return 130
    return 0


def make_parser(description: str) -> argparse.ArgumentParser:
    """The options that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=Path("data"), help="target folder")
    parser.add_argument("--keep-archives", action="store_true", help="keep the .tar or .zip files")
    return parser
