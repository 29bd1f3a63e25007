"""XML as labelling tools write it: any encoding, any declaration, and nothing that can expand or fetch."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from jdet.data.sources.label_text import decode
from jdet.types import DataError

_DECLARATION = re.compile(r"\s*<\?xml\b.*?\?>", re.DOTALL)
_ENCODING = re.compile(rb"<\?xml\b[^>]*?encoding\s*=\s*[\"']([\w.:-]+)", re.DOTALL)
_ROOT = re.compile(rb"<([A-Za-z_][\w:.-]*)")


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a label file, and nothing that can expand or fetch entities.

    Tags lose their namespace and are in lower case.
    """

    def start(self, tag: str, attrs: dict, /) -> ElementTree.Element:
        return super().start(_plain(tag), attrs)

    def end(self, tag: str, /) -> ElementTree.Element:
        return super().end(_plain(tag))

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"declares a document type ({name!r}); entities are not read")


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


def read_xml(path: str | Path) -> ElementTree.Element:
    """The root of an XML file, tags without namespace and in lower case.

    What its declaration says of version and encoding counts for little (``label_text.decode``), for many
    tools write another.

    Raises:
        DataError: the file is missing, is not XML (line and column are named), or declares a document type
            or entities.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"annotation {path} is missing") from None
    except OSError as error:
        raise DataError(f"{path}: {error}") from error
    declared = _ENCODING.match(
        data[:200].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    )
    text = decode(data, str(path), declared[1].decode() if declared else "")
    if declaration := _DECLARATION.match(text):
        text = "\n" * declaration[0].count("\n") + text[declaration.end() :]
    try:
        return ElementTree.fromstring(text, ElementTree.XMLParser(target=_Builder()))
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(f"{path}, line {line}, column {column}: not XML: {error.msg}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def root_tag(path: Path) -> str:
    """The tag that an XML file begins with, from its first bytes; "" where there is none."""
    try:
        with path.open("rb") as file:
            head = file.read(4096).replace(b"\0", b"")
    except OSError:
        return ""
    found = _ROOT.search(re.sub(rb"<!--.*?-->", b"", head, flags=re.DOTALL))
    return found[1].decode().lower().rpartition(":")[2] if found else ""
