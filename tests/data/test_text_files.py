"""Line ends and numbers of text files are exact, and binary files are recognized."""

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, text
from tests.data.conftest import PACKED

from gnano.data.text_files import RecordError, find_undecodable, is_binary, read_lines

# what str.splitlines() would cut at, and what no line ends in
inner = text("ab é🙂\u2028\u2029\x85\x0c\x0b\x1c\x00\t", max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    parts=lists(inner, min_size=1, max_size=9),
    end=sampled_from(["\n", "\r\n", "\r"]),
    packing=sampled_from(list(PACKED)),
    marks=sampled_from(["", "\ufeff"]),
)
def test_lines_end_only_in_lf_crlf_or_cr(tmp_path_factory, parts, end, packing, marks):
    path = tmp_path_factory.mktemp("lines") / f"a.txt{packing}"
    path.write_bytes(PACKED[packing]("".join(f"{marks}{part}{end}" for part in parts).encode()))
    assert list(read_lines(path)) == [(n, f"{part}\n") for n, part in enumerate(parts, 1)]


@settings(deadline=None, max_examples=60)
@given(
    parts=lists(inner, min_size=1, max_size=9),
    end=sampled_from(["\n", "\r\n", "\r"]),
    number=integers(0, 8),
    packing=sampled_from(list(PACKED)),
)
def test_a_byte_that_is_not_utf8_drops_only_its_line(tmp_path_factory, parts, end, number, packing):
    number %= len(parts)
    encoded = [part.encode() for part in parts]
    encoded[number] += b"caf\xe9"
    path = tmp_path_factory.mktemp("bytes") / f"a.txt{packing}"
    path.write_bytes(PACKED[packing](b"".join(line + end.encode() for line in encoded)))
    found = list(read_lines(path))
    bad = [find_undecodable(path, line, content) for line, content in found]
    assert [one.line for one in bad if one] == [number + 1]
    assert [content for (_, content), one in zip(found, bad, strict=True) if not one] == [
        f"{part}\n" for n, part in enumerate(parts) if n != number
    ]
    # and where it is in a longer text
    one = find_undecodable(path, 11, "".join(content for _, content in found))
    assert one and one.line == 11 + number and "0xE9" in str(one)


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    "content",
    [
        "Zwölf Boxkämpfer jagen Viktor".encode("latin-1") * 9,
        "Съешь же ещё этих мягких французских булок".encode("cp1251") * 9,
        "いろはにほへと".encode("shift-jis") * 9,
        "色は匂へど".encode() * 9,
        b"\x1b[31mred\x1b[0m a page\x0c and one \x00 in a long text" + 90 * b"a" + b"\n",
        b"",
    ],
)
def test_text_of_any_encoding_is_not_binary(file, content, packing):
    assert not is_binary(file(f"a{packing}", PACKED[packing](content)))


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    "content",
    [bytes(range(256)), "UTF-16".encode("utf-16-le"), b"\x00\x05\x16\x07Mac OS X", 512 * b"\x00"],
)
def test_other_content_is_binary(file, content, packing):
    assert is_binary(file(f"a{packing}", PACKED[packing](content)))


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(file, encoding, packing):
    path = file(f"a.txt{packing}", PACKED[packing]("\ufeffwords".encode(encoding)))
    with pytest.raises(ValueError, match=r"a\.txt.* is UTF-16 text.*iconv -f UTF-16 -t UTF-8"):
        is_binary(path)


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("part", [0, 0.02, 0.5, 0.99])
def test_no_line_of_a_truncated_archive_is_used(file, packing, part):
    content = "".join(f"{n} {n**9} {n**7}\n" for n in range(20_000)).encode()
    packed = PACKED[packing](content)
    path = file(f"a.txt{packing}", packed[: int(part * len(packed))])
    lines: list[tuple[int, str]] = []
    with pytest.raises(RecordError, match=r"it is damaged after line [\d,]+ ") as error:
        lines += read_lines(path)
    assert not lines
    # it counts for about as many records as were in the part
    assert abs(error.value.record_count - part * 20_000) < 0.2 * 20_000
