import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from papercode.decoders.lccc_cleaning import NAMES, main
from papercode.decoders.lccc_noise import garbled

RAW = [
    ["火锅我在重庆吃了七八顿", "回复@小明:那我的嘴巴要烂掉[允悲]"],
    ["今天怎么样", "哈哈哈哈"],
    ["你在吗", "全场包邮快来买", "你是谁", "我是你爸爸"],
    ["一个人说"],
]


@pytest.fixture
def clean(tmp_path):
    def run(raw, *options, target="out.jsonl"):
        """Exit code, what was written, removed and reported, and what was said."""
        source = tmp_path / "in.jsonl"
        if raw is not None:
            text = raw if isinstance(raw, str) else "\n".join(json.dumps(d, ensure_ascii=False) for d in raw)
            source.write_text(text, "utf-8")
        paths = {name: tmp_path / f"{name}.json" for name in ("removed", "report")}
        arguments = [str(source), str(tmp_path / target), *(x for n, p in paths.items() for x in (f"--{n}", str(p)))]
        done = CliRunner().invoke(main, [*arguments, "--force", *map(str, options)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception

        def read(path):
            return json.loads(path.read_text("utf-8"))

        if done.exit_code:
            return done.exit_code, done.stderr
        out = [json.loads(line) for line in (tmp_path / target).read_text("utf-8").splitlines()]
        return out, read(paths["removed"]), read(paths["report"]), done.stderr

    return run


def test_cleans_a_file(clean):
    out, removed, report, said = clean(RAW)
    assert out == [["火锅我在重庆吃了七八顿", "那我的嘴巴要烂掉"]]
    assert [(row["line"], row["reason"], row["turn"]) for row in removed] == [
        (2, "generic", 1), (3, "advertisement", 1), (4, "nobody replies", None),
    ]  # fmt: skip
    assert [row["before"] for row in removed] == RAW[1:]
    assert (report["read"], report["kept"], report["unreadable"]) == (4, 1, 0)
    assert report["removed"] == {"generic": 1, "advertisement": 1, "nobody replies": 1}
    assert report["edited"] == {"reply tag": 1, "emote": 1}  # once, though there are two passes
    assert "4 dialogues read, 1 written to" in said
    assert "1 removed: generic" in said


def test_nothing_is_lost(clean):
    out, removed, _, _ = clean(RAW, "--salvage")
    assert out == [["火锅我在重庆吃了七八顿", "那我的嘴巴要烂掉"], ["你是谁", "我是你爸爸"]]
    turns = [turn for piece in out for turn in piece] + [turn for row in removed for turn in row["turns"]]
    assert len(turns) == sum(map(len, RAW))


def test_rules_can_be_left_out_and_limits_set(clean):
    assert len(clean(RAW, "--without", "generic", "--without", "advertisement")[0]) == 3
    assert clean(RAW, "--without", "emote")[0] == [["火锅我在重庆吃了七八顿", "那我的嘴巴要烂掉[允悲]"]]
    assert clean([["你好", "我很好"]], "--least", 3)[2]["removed"] == {"too short": 1}
    assert clean([["你好", "我很好"]], "--most", 2)[2]["removed"] == {"too long": 1}
    assert clean([["我在家", "我很好", "你呢在吗", "在的在的"]], "--most-turns", 2)[2]["split"] == 1
    assert clean([["我在家", "我很好"]] * 2)[2]["removed"] == {"seen before": 1}
    assert len(clean([["我在家", "我很好"]] * 2, "--keep-duplicates")[0]) == 2
    code, said = clean(RAW, "--without", "nonsense")
    assert code == 2
    assert "'nonsense' is not one of" in said
    assert {"reply tag", "foreign", "generic", "bland"} < set(NAMES)


def test_counts_over_the_whole_file(clean):
    raw = [[f"问题{a}{b}", "我也不知道这个问题"] for a in "一二三四" for b in "甲乙"]
    assert len(clean(raw)[0]) == 8
    assert clean(raw, "--frequent", 8)[2]["removed"] == {"bland": 8}
    assert clean(raw, "--frequent", 9)[2]["removed"] == {}
    assert clean(raw, "--posts", 7)[2]["removed"] == {"everywhere": 8}
    assert clean(raw, "--posts", 8)[2]["removed"] == {}
    # they are counts of what is left of a turn: the same reply to different people is the same reply
    answered = [[post, f"回复@用户{i}:{reply}"] for i, (post, reply) in enumerate(raw)]
    assert clean(answered, "--posts", 7)[2]["removed"] == {"everywhere": 8}


def test_a_blacklist(clean, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("爸爸\n\n 重庆 \n", "utf-8")
    assert clean([RAW[0], ["你是谁", "我是你爸爸"]], "--blacklist", words)[2]["removed"] == {"blacklist": 2}
    words.write_text("爸爸\n", "utf-8-sig")  # with the mark that some editors put in front
    assert clean([["你是谁", "我是你爸爸"]], "--blacklist", words)[2]["removed"] == {"blacklist": 1}
    words.write_bytes(b"\xff")
    assert "words.txt is not in UTF-8 (byte 1)" in clean(RAW, "--blacklist", words)[1]


def test_a_noise_filter_trained_on_the_spot(clean, tmp_path):
    good = [
        [f"{a}{b}", f"{b}{a}呢"]
        for a in ("今天天气", "火锅很好", "我在家里")
        for b in ("我想去吃", "电影好看", "真的好累")
    ]
    noisy = [garbled(dialogue, i) for i, dialogue in enumerate(good)]
    examples = tmp_path / "examples.jsonl"
    rows = [
        json.dumps({"turns": turns, "noise": bad})
        for pair in zip(good, noisy)
        for turns, bad in zip(pair, (False, True))
    ]
    examples.write_text("\n".join(rows))
    out, removed, report, _ = clean(good[:2] + noisy[:2], "--noise-examples", examples)
    assert out == good[:2]
    assert [row["reason"] for row in removed] == ["noise", "noise"]
    assert {**report["noise filter"], "accuracy": 1} == {"trained on": 15, "tried on": 3, "accuracy": 1}
    assert 0 <= report["noise filter"]["accuracy"] <= 1
    assert clean(noisy[:2], "--noise-examples", examples, "--threshold", 1)[0] == noisy[:2]
    examples.write_text('{"turns": ["a", "b"]}')
    assert 'line 1: has no "noise": true or false' in clean(RAW, "--noise-examples", examples)[1]
    examples.write_text('{"turns": ["a", "b"], "noise": true}')
    assert "examples of both kinds" in clean(RAW, "--noise-examples", examples)[1]
    assert "choose one" in clean(RAW, "--noise-examples", examples, "--scorer", "a:b")[1]


def test_a_scorer_of_ones_own(clean):
    out, removed, report, _ = clean(RAW[:1], "--scorer", "decoders.test_lccc_cleaning:suspicious")
    assert (out, removed[0]["reason"], report["noise filter"]) == (
        [],
        "noise",
        "decoders.test_lccc_cleaning:suspicious",
    )
    for wrong in ("nonsense", "no.module:x", "json:nothing"):
        assert f"--scorer {wrong} must be MODULE:NAME" in clean(RAW, "--scorer", wrong)[1]


def suspicious(turns):
    return 0.9 if "重庆" in turns[0] else 0.1


def test_bad_input_stops_and_writes_nothing(clean, tmp_path):
    raw = json.dumps(RAW[0]) + "\nnonsense\n"
    code, said = clean(raw)
    assert code == 1
    assert "in.jsonl, line 2: is no JSON" in said
    assert "nothing was written" in said
    assert "--keep-going leaves such lines out" in said
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_bad_lines_are_kept_in_view(clean):
    out, removed, report, said = clean(json.dumps(RAW[0]) + "\nnonsense\n", "--keep-going")
    assert len(out) == report["unreadable"] == 1
    assert (removed[0]["line"], removed[0]["reason"], removed[0]["text"]) == (2, "unreadable", "nonsense")
    assert "1 lines could not be read" in said


def test_files_are_not_overwritten_by_mistake(tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('["我在家", "我很好"]')

    def run(*arguments):
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        return done.exit_code, done.stderr

    assert run(source, target)[0] == 0
    code, said = run(source, target)
    assert (code, "out.jsonl exists already; --force overwrites it" in said) == (1, True)
    assert run(source, target, "--force")[0] == 0
    for other in ((source, source), (source, target, "--removed", target), (source, target, "--report", source)):
        assert "must be different files" in run(*other, "--force")[1]
    assert "is no folder" in run(source, tmp_path / "no" / "out.jsonl")[1]
    assert "does not exist" in run(tmp_path / "nothing", target)[1]
    assert source.read_text() == '["我在家", "我很好"]'


def test_helps():
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    for word in ("--removed", "--salvage", "tab-separated", "--report report.json", "[default: 30"):
        assert word in done.output
    assert max(map(len, done.output.split("\n"))) <= 80


def test_runs_as_a_module_without_torch(tmp_path):
    (tmp_path / "in.jsonl").write_text('["我在家", "我很好"]')
    code = (
        "import runpy, sys; sys.argv = ['x', 'in.jsonl', 'out.jsonl']\n"
        "try: runpy.run_module('papercode.decoders.lccc_cleaning', run_name='__main__')\n"
        "except SystemExit as done: assert not done.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "out.jsonl").read_text("utf-8") == '["我在家", "我很好"]\n'
