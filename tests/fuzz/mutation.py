"""Random changes to the bytes of a file, as strategies of hypothesis, which makes failures small."""

import re

from hypothesis import strategies as st

TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b'"',
        b"'",
        b",",
        b";",
        b"\n",
        b"\r",
        b"\t",
        b"<",
        b">",
    ),
    *(b"[", b"]", b"{", b"}", b"[" * 5000, b'{"a":' * 2000, b"- " * 2000, b"<a>" * 3000, b"null"),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1",
        b"0",
        b"1e-320",
        b"9" * 25,
        b"9" * 5000,
        b"true",
        b"1_0",
    ),
    *(
        b"../../../../etc/passwd",
        b"/dev/zero",
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"%00",
        b"\\",
        b"*?[",
    ),
    *(
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b"&b;",
        b"&#0;",
        b"<![CDATA[",
        b"&a *a",
        b"!!python/object:os ",
    ),
    *(b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x01\x86\xa0"),
)
"""What has broken readers before: ends of ranges, other types, nesting, encodings, paths, entities."""

_places = st.floats(0, 1, exclude_max=True)

operations = st.one_of(
    st.tuples(st.just("bit"), _places, st.integers(0, 7)),
    st.tuples(st.just("byte"), _places, st.integers(0, 255)),
    st.tuples(st.just("insert"), _places, st.sampled_from(TOKENS)),
    st.tuples(st.just("delete"), _places, st.integers(1, 64)),
    st.tuples(st.just("repeat"), _places, st.integers(1, 64)),
    st.tuples(st.just("end"), _places, st.just(0)),
    st.tuples(st.just("word"), _places, st.sampled_from(TOKENS)),
    st.tuples(st.just("exchange"), _places, st.integers(1, 64)),
)
"""One change: its kind, where as a share of the file, and with what."""

changes = st.lists(operations, min_size=1, max_size=4)

_WORD = re.compile(rb"[\w.+-]+")


def changed(data, operations):
    """The data after some changes."""
    for kind, share, what in operations:
        place = int(share * len(data))
        before, after = data[:place], data[place:]
        if kind == "bit" and after:
            data = before + bytes([after[0] ^ 1 << what]) + after[1:]
        elif kind == "byte" and after:
            data = before + bytes([what]) + after[1:]
        elif kind == "insert":
            data = before + what + after
        elif kind == "delete":
            data = before + after[what:]
        elif kind == "repeat":
            data = before + after[:what] * 8 + after
        elif kind == "end":
            data = before
        elif kind == "word" and (word := _WORD.search(after)):
            data = before + after[: word.start()] + what + after[word.end() :]
        elif kind == "exchange":
            data = before + after[what : 2 * what] + after[:what] + after[2 * what :]
    return data
