"""What label files say in text: their encoding, flags, names and ids, as exporters write them."""

from __future__ import annotations

import codecs
import json
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

from absl import logging

from jdet.types import DataError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_SEVERAL_BYTES = {"gb18030", "big5", "big5hkscs", "shift_jis", "cp932", "euc_jp", "euc_kr", "cp949"}
"""Encodings in which other text hardly ever happens to be valid: a file that names one means it."""

_SYNONYMS = {"gb2312": "gb18030", "gbk": "gb18030"}  # each a part of the next

_FALSE = {"", "0", "false", "no", "n", "f", "off", "none", "null", "nan", "unspecified"}
_TRUE = {"1", "true", "yes", "y", "t", "on"}


def read_text(path: Path) -> str:
    """The text of a file in any encoding that ``decode`` finds.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no text.
    """
    return decode(path.read_bytes(), str(path))


def read_json(path: Path) -> Any:
    """What a JSON file holds, in any encoding that ``decode`` finds.

    Raises:
        FileNotFoundError: it is missing.
        DataError: it cannot be read or is not JSON; line and column are named.
    """
    try:
        return json.loads(read_text(path))
    except (FileNotFoundError, DataError):
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}, {where}: not JSON: {error.msg}") from error
    except (OSError, RecursionError, ValueError) as error:  # the last of numbers without end
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error


def decode(data: bytes, name: str, declared: str = "") -> str:
    """Text of unknown encoding.

    A byte order mark says what it is; UTF-16 without one shows by its zero bytes. What is valid UTF-8 is
    UTF-8, whatever the file declares, unless that is an encoding of East Asia in which it is valid too.
    Else counts what is declared; else GBK, where most letters beyond ASCII look like its common characters,
    and Windows-1252, the superset of Latin-1, at last. A guess is told once.

    Args:
        data: the file's content.
        name: of the file, for messages.
        declared: the encoding that the file names, known to Python or not.

    Raises:
        DataError: it begins with a byte order mark and goes on otherwise.
    """
    text = _certain(data, name)
    if text is not None:
        return text
    try:
        encoding = codecs.lookup(declared).name if declared else ""
    except LookupError:
        encoding = ""
    encoding = _SYNONYMS.get(encoding, encoding)
    order = ["utf-8", encoding]
    if encoding in _SEVERAL_BYTES:
        order.reverse()
    for candidate in filter(None, order):
        if (text := _try(data, candidate)) is not None:
            return text
    encoding = "gb18030" if _looks_like_gbk(data) else "cp1252"
    text = _try(data, encoding)
    if text is None:
        encoding, text = "latin-1", data.decode("latin-1")
    logging.log_first_n(
        logging.WARNING,
        "%s is not UTF-8; read as %s, a guess. Store label files as UTF-8 to be sure.",
        1,
        name,
        encoding,
    )
    return text


def _certain(data: bytes, name: str) -> str | None:
    """The text where a byte order mark or zero bytes tell the encoding."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise DataError(f"{name}: begins as {encoding} and is not: {error}") from error
    head = data[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if 4 * max(even, odd) > len(head):  # at least every other character is ASCII
        return _try(data, "utf-16-le" if odd > even else "utf-16-be")
    return None


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):  # LookupError: such as base64, which is no text
        return None


def _looks_like_gbk(data: bytes) -> bool:
    """Whether most pairs of bytes beyond ASCII are common characters of GBK.

    Those have two bytes from A1 on; accented letters of Latin-1 stand between ASCII letters.
    """
    runs = re.findall(rb"[\x80-\xff]+", data)
    paired = sum(len(run) for run in runs if len(run) % 2 == 0 and min(run) >= 0xA1)
    return 2 * paired > sum(map(len, runs)) and _try(data, "gb18030") is not None


def flag(value: Any, what: str) -> bool:
    """A flag as label files write it: 0 and 1, numbers or text, "false", "no"; absent is False.

    Args:
        value: as read.
        what: what to call it in the error, such as "iscrowd".

    Raises:
        DataError: it is nothing of the kind.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _FALSE or text in _TRUE:
            return text in _TRUE
        try:
            return flag(float(text), what)
        except ValueError:
            raise DataError(f"{what} is {value!r}; expected 0 or 1") from None
    if not isinstance(value, (int, float)):
        raise DataError(f"{what} is {value!r}; expected 0 or 1")
    return not math.isnan(value) and value != 0


def class_name(name: Any, where: str) -> str:
    """The name of a class on one line, whatever the label file has around or inside it.

    Numbers become text, line breaks and other control characters blanks, and letters with accents are
    composed (NFC), so that the same name is the same text from every file.

    Raises:
        DataError: it is neither text nor a number, or empty.
    """
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    if isinstance(name, bool) or not isinstance(name, (str, int, float)):
        raise DataError(f"{where}: a class is named {name!r}, which is neither text nor a number")
    text = unicodedata.normalize("NFC", str(name))
    text = re.sub(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+\s*", " ", text).strip()
    if not text:
        raise DataError(f"{where}: a class has an empty name ({name!r})")
    return text


def record_id(value: Any) -> int | str | None:
    """An id by which records of a JSON file refer to one another: 7, 7.0 and "7" are the same.

    Returns:
        A whole number where it is one, other text as it is; None for what is no id.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) else text
    return value if isinstance(value, int) and not isinstance(value, bool) else None
