import gzip
import json

import pytest

from papercode.decoders.lccc_files import BadInputError, Writer, read_dialogues

DIALOGUES = [["你好", "你好呀"], ["去哪", "回家", "好"]]


def read(path, **options):
    return [(line, turns) for line, turns, _ in read_dialogues(path, **options)]


@pytest.fixture
def file(tmp_path):
    def write(text, name="in.jsonl"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


LINES = "\n".join(json.dumps(d, ensure_ascii=False) for d in DIALOGUES)
FORMS = {
    "lines": (LINES + "\n", [1, 2]),
    "no newline at the end": (LINES, [1, 2]),
    "windows": ("\ufeff" + LINES.replace("\n", "\r\n") + "\r\n", [1, 2]),
    "empty lines": ("\n" + LINES.replace("\n", "\n\n  \n"), [2, 5]),
    "escaped": ("\n".join(map(json.dumps, DIALOGUES)), [1, 2]),
    "objects": ("\n".join(json.dumps({"id": 3, "dialog": d}) for d in DIALOGUES), [1, 2]),
    "other objects": (json.dumps({"dialogue": DIALOGUES[0]}) + "\n" + json.dumps({"turns": DIALOGUES[1]}), [1, 2]),
    "tabs": ("你好\t你好呀\n去哪\t回家 \t好\n", [1, 2]),
    "one list": (json.dumps(DIALOGUES), [1, 1]),
    "one list of objects": (json.dumps([{"turns": d} for d in DIALOGUES]), [1, 1]),
    "a list over lines": ("[\n" + LINES.replace("\n", ",\n") + "\n]\n", [2, 3]),
    "a list, indented": (json.dumps(DIALOGUES, indent=1), [2, 6]),
    "a list that starts late": ("\n\n" + json.dumps(DIALOGUES, indent=1), [4, 8]),
}


@pytest.mark.parametrize("form", FORMS)
def test_reads(file, form):
    text, lines = FORMS[form]
    assert read(file(text)) == list(zip(lines, DIALOGUES))


def test_reads_compressed(file):
    assert read(file(gzip.compress(LINES.encode()), "in.jsonl.gz")) == list(zip([1, 2], DIALOGUES))


def test_an_object_comes_along(file):
    [(_, _, record)] = read_dialogues(file('{"id": 3, "turns": ["a", "b"]}'))
    assert record == {"id": 3, "turns": ["a", "b"]}
    [(_, _, record)] = read_dialogues(file('["a", "b"]'))
    assert record == {}


def test_empty_files(file):
    assert read(file("")) == read(file("\n\n")) == read(file("[]")) == read(file("[\n]\n")) == []


BAD = {
    "cut off": (LINES + '\n["你好', "line 3: is no JSON (Unterminated string"),
    "no list": (LINES + '\n"你好"', "line 3: is no list of texts"),
    "numbers": (LINES + "\n[1, 2]", "line 3: is no list of texts"),
    "no turns": ('{"text": []}', "line 1: is an object without dialog, dialogue or turns"),
    "no UTF-8": (LINES.encode() + b"\n[\"\xff\"]", "line 3: is not in UTF-8 (byte 3)"),
    "not closed": ("[\n" + LINES.replace("\n", ",\n"), "line 3: the list that begins the file is not closed"),
    "more after a list": ('[]\n["a", "b"]', "line 2: something follows the list that begins the file"),
    "a broken list": ('[["a", "b"],\n["c" "d"]]', "line 2: is no JSON (Expecting ',' delimiter)"),
    "a wrong dialogue in a list": ('[["a", "b"],\n["c",\n 4]]', "line 2: is no list of texts"),
    "no UTF-8 in a list": (b'[["a", "b"],\n["\xff"]]', "line 2: is not in UTF-8 (byte 3)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_says_what_is_wrong_and_where(file, case):
    text, message = BAD[case]
    with pytest.raises(BadInputError) as error:
        read(file(text))
    assert f"in.jsonl, {message}" in str(error.value)


def test_a_damaged_archive(file):
    whole = gzip.compress(LINES.encode())
    for data in (whole[:-9], b"no archive"):
        with pytest.raises(BadInputError, match=r"in\.gz, line \d: cannot be read"):
            read(file(data, "in.gz"))


def test_bad_lines_may_be_passed_by(file):
    found = []
    path = file(b'["a", "b"]\nnonsense\n["c", 1]\n' + b'["\xff"]\n["d", "e"]')
    assert read(path, bad=found.append) == [(1, ["a", "b"]), (5, ["d", "e"])]
    assert [(error.line, error.text) for error in found] == [(2, "nonsense"), (3, '["c", 1]'), (4, '["\\xff"]')]
    found.clear()
    assert read(file('[["a"], 3, ["b"]]'), bad=found.append) == [(1, ["a"]), (1, ["b"])]
    assert [(error.line, error.text) for error in found] == [(1, "3")]
    with pytest.raises(BadInputError, match="the list that begins the file is not closed"):  # where would it go on?
        read(file('[["a"], ["b"]'), bad=found.append)


@pytest.mark.parametrize("form", ["lines", "list"])
def test_reads_one_at_a_time_and_tells_how_far_it_is(file, form):
    many = [["你好", str(i)] for i in range(3000)]
    joined = (",\n" if form == "list" else "\n").join(map(json.dumps, many))
    path = file(f"[{joined}]" if form == "list" else joined)
    steps = []
    dialogues = read_dialogues(path, progress=steps.append)
    for _ in range(10):
        next(dialogues)
    assert not steps
    rest = list(dialogues)
    assert len(rest) == 2990
    assert len(steps) > 5
    assert sum(steps) == path.stat().st_size


def test_writes_what_is_read_again(tmp_path):
    for name in ("a.jsonl", "b.json", "c.tsv", "d.txt", "e.jsonl.gz", "f.json.gz", "g.tsv.gz", "h"):
        path = tmp_path / name
        with Writer(path) as out:
            for dialogue in DIALOGUES:
                out.write(dialogue)
            assert not path.exists()
        assert [turns for _, turns in read(path)] == DIALOGUES
    assert (tmp_path / "a.jsonl").read_text("utf-8").split("\n")[0] == '["你好", "你好呀"]'
    assert json.loads((tmp_path / "b.json").read_text("utf-8")) == DIALOGUES
    assert (tmp_path / "c.tsv").read_text("utf-8") == "你好\t你好呀\n去哪\t回家\t好\n"
    assert sorted(p.name[0] for p in tmp_path.iterdir()) == list("abcdefgh")


def test_writes_nothing_as_an_empty_list(tmp_path):
    with Writer(tmp_path / "a.json"):
        pass
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_tabs_within_a_turn_are_spaces(tmp_path):
    with Writer(tmp_path / "a.tsv") as out:
        out.write(["a\tb", "c\nd"])
    assert read(tmp_path / "a.tsv") == [(1, ["a b", "c d"])]


def test_what_fails_leaves_no_file_and_harms_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with pytest.raises(TypeError), Writer(path) as out:
        out.write([{"a"}])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
