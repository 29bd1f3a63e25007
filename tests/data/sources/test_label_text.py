"""Text of label files: encodings, flags, names, ids."""

import pytest

from jdet.data.sources.label_text import class_name, decode, flag, record_id
from jdet.types import DataError

CHINESE = "<name>汽车</name><name>行人 person</name>\n"
FRENCH = "<name>vélo</name><name>chaîne à vélo</name>\n"


@pytest.mark.parametrize("text", [CHINESE, FRENCH, "<name>cat</name>\n"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("declared", ["", "utf-8", "utf-16", "iso-8859-1", "nonsense", "base64"])
def test_what_is_certain_counts_more_than_what_is_declared(text, encoding, declared):
    assert decode(text.encode(encoding), "a.xml", declared) == text


@pytest.mark.parametrize(
    "text, encoding, declared",
    [
        (CHINESE, "gbk", ""),
        (CHINESE, "gbk", "utf-8"),
        (CHINESE, "gbk", "gb2312"),
        ("联通", "gbk", "gb2312"),  # valid UTF-8 by chance
        (CHINESE, "big5hkscs", "big5-hkscs"),
        ("<name>自転車</name>", "shift_jis", "Shift_JIS"),
        (FRENCH, "latin-1", ""),
        (FRENCH, "latin-1", "utf-8"),
        ("“œuf”", "cp1252", ""),
        ("caf\x81é", "latin-1", ""),  # 81 means nothing in Windows-1252
        ("кот", "cp1251", "windows-1251"),
    ],
)
def test_other_encodings(text, encoding, declared):
    assert decode(text.encode(encoding), "a.xml", declared) == text


def test_text_that_contradicts_its_byte_order_mark():
    with pytest.raises(DataError, match=r"a\.xml: begins as utf-16-le"):
        decode(b"\xff\xfea\0b", "a.xml")


@pytest.mark.parametrize(
    "value, expected",
    [
        *(
            (v, False)
            for v in (None, 0, 0.0, False, "0", " false\n", "No", "", "0.0", "Unspecified")
        ),
        *((v, True) for v in (1, 1.0, True, "1", "TRUE", "yes", "1.0")),
        (float("nan"), False),
    ],
)
def test_flags(value, expected):
    assert flag(value, "iscrowd") is expected


@pytest.mark.parametrize("value", ["perhaps", [], {}])
def test_what_is_no_flag(value):
    with pytest.raises(DataError, match="iscrowd is .* expected 0 or 1"):
        flag(value, "iscrowd")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("cat\n", "cat"),
        ("\tbig\r\n cat ", "big cat"),
        (7, "7"),
        (7.0, "7"),
        (0.5, "0.5"),
        ("a  b", "a  b"),
        ("ve\u0301lo", "v\u00e9lo"),
    ],
)
def test_class_names(name, expected):
    assert class_name(name, "here") == expected


@pytest.mark.parametrize("name", ["", " \n", None, True, ["cat"]])
def test_what_is_no_class_name(name):
    with pytest.raises(DataError, match="here: a class"):
        class_name(name, "here")


def test_ids():
    assert [record_id(v) for v in (7, 7.0, "7", " 7", "-7", "007", "x7")] == [
        7,
        7,
        7,
        7,
        -7,
        "007",
        "x7",
    ]
    assert [record_id(v) for v in (None, 0.5, True, [])] == [None] * 4
