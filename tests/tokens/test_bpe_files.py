"""vocab.json and merges.txt: there and back, and every way in which they may be damaged."""

import json

import pytest

from papercode.tokens.bpe_files import (
    MERGES,
    VOCABULARY,
    checked_vocabulary,
    read_merges,
    read_vocabulary,
    write_files,
)


def test_there_and_back(tmp_path):
    # pieces that begin like a comment, and spaces and line ends of Unicode other than the plain ones
    merges = [("#", "version:"), ("#", "#"), ("\x85", "\u2028"), ("\xa0", "é</w>"), ("\x0b", "\x0c")]
    vocabulary = {"b": 1, "Ġ\u3000": 0, "\U0001f642": 7}
    write_files(tmp_path / "new" / "folder", vocabulary, merges)
    assert read_merges(tmp_path / "new" / "folder" / MERGES) == merges
    read = read_vocabulary(tmp_path / "new" / "folder" / VOCABULARY)
    assert read == vocabulary
    assert list(read.values()) == [0, 1, 7]


def test_files_of_others(tmp_path):
    path = tmp_path / MERGES
    for text in ("#version: 0.2\na b\n# #\n", "a b\n# #", "#version: 0.2 - Trained by x\r\na b\r\n# #\r\n"):
        path.write_bytes(text.encode())
        assert read_merges(path) == [("a", "b"), ("#", "#")]
    path.write_bytes(b"")
    assert read_merges(path) == []


@pytest.mark.parametrize("line", ["ab", "a  b", "a b c", " a", "a ", "", "#version: 0.2"])
def test_a_line_that_is_no_merge(tmp_path, line):
    path = tmp_path / MERGES
    path.write_text(f"#version: 0.2\na b\n{line}\nc d\n", "utf-8")
    if line.startswith("#"):  # two pieces, on a later line
        assert len(read_merges(path)) == 3
        return
    with pytest.raises(ValueError, match=r"merges\.txt:3: a merge is two pieces with a space between, got '"):
        read_merges(path)


def test_pieces_that_merges_txt_cannot_hold(tmp_path):
    for merge in (("a b", "c"), ("a\n", "b"), ("a", "b\r"), ("", "b c")):
        with pytest.raises(ValueError, match=r"merges\.txt cannot hold the merge"):
            write_files(tmp_path / "none", {"a": 0}, [merge])
    assert not (tmp_path / "none").exists()


def test_damaged_files(tmp_path):
    path = tmp_path / VOCABULARY
    with pytest.raises(FileNotFoundError):
        read_vocabulary(path)
    for content in (b'{"a": 0', b"\xff{}", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"vocab\.json is no JSON"):
            read_vocabulary(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="holds list, not an object"):
        read_vocabulary(path)
    (tmp_path / MERGES).write_bytes(b"a \xff\n")
    with pytest.raises(ValueError, match=r"merges\.txt is not UTF-8"):
        read_merges(tmp_path / MERGES)


@pytest.mark.parametrize("bad", [-1, 1.0, True, "1", None, [1]])
def test_ids_are_whole_numbers(tmp_path, bad):
    path = tmp_path / VOCABULARY
    path.write_text(json.dumps({"a": 0, "b": bad}))
    with pytest.raises(ValueError, match=r"vocab\.json: the id of 'b' must be a whole number from 0, got "):
        read_vocabulary(path)


def test_ids_are_distinct():
    with pytest.raises(ValueError, match="here: 'a' and 'b' have the same id 3"):
        checked_vocabulary({"a": 3, "b": 3}, "here")
