import pytest

from papercode.decoders.lccc_pipeline import Cleaner, Removal, Report

GOOD = ["火锅我吃了七八顿", "那我的嘴巴要烂掉", "不会的就是油腻"]


def reasons(removed):
    return [(removal.reason, removal.turn) for removal in removed]


def test_a_good_dialogue_stays_as_it_is():
    cleaner = Cleaner()
    assert cleaner.clean(GOOD) == ([GOOD], [])
    assert cleaner.report == Report(read=1, kept=1, untouched=1)


def test_edits_come_first_and_are_counted():
    cleaner = Cleaner()
    kept, removed = cleaner.clean(["回复@小明:去吃火锅吧[哈哈]", "好呀 http://t.cn/a 明天去"])
    assert (kept, removed) == ([["去吃火锅吧", "好呀 明天去"]], [])
    assert cleaner.report.edited == {"reply tag": 1, "emote": 1, "address of a page": 1, "spaces": 1}
    assert cleaner.report.untouched == 0


def test_edits_are_done_until_nothing_changes():
    assert Cleaner().edited("[哈[哈哈]哈]走吧") == "走吧"
    assert Cleaner(edits={}).edited("[哈]") == "[哈]"


CASES = {
    "same as post": ([*GOOD, "不会的,就是油腻!"], 3),
    "generic": ([GOOD[0], "哈哈哈"], 1),
    "too short": ([GOOD[0], "…", GOOD[1]], 1),
    "contact": (["打给我13812345678", *GOOD], 0),
    "foreign": (["what is this", *GOOD], 0),
}


@pytest.mark.parametrize("reason", CASES)
def test_one_bad_turn_removes_the_dialogue(reason):
    dialogue, turn = CASES[reason]
    cleaner = Cleaner()
    kept, removed = cleaner.clean(dialogue)
    assert kept == []
    assert removed == [Removal(reason, turn, dialogue)]
    assert cleaner.report.removed == {reason: 1}
    assert cleaner.report.as_dict()["examples"] == {reason: [{"turn": turn, "turns": dialogue}]}


def test_a_first_turn_may_be_generic():
    assert Cleaner().clean(["哈哈哈", GOOD[0]])[0] == [["哈哈哈", GOOD[0]]]


def test_the_first_reason_is_the_one_that_counts():
    cleaner = Cleaner(rules={"a": lambda turn: "坏" in turn, "b": lambda turn: "坏" in turn})
    assert reasons(cleaner.clean(["好", "坏"])[1]) == [("a", 1)]
    assert reasons(Cleaner(reply_rules={"c": lambda turn: True}).clean(GOOD)[1]) == [("c", 1)]


def test_salvage_keeps_what_is_good_on_both_sides():
    cleaner = Cleaner(salvage=True)
    dialogue = [*GOOD, "加我微信吧包邮", "今天天气好", "明天也好", "后天呢"]
    kept, removed = cleaner.clean(dialogue)
    assert kept == [GOOD, dialogue[4:]]
    assert removed == [Removal("advertisement", 3, ["加我微信吧包邮"])]
    assert cleaner.report.kept == 2
    # nothing is lost: what is kept and what is removed are all turns
    alone = ["今天天气好", "包邮", "明天也好", "代购", "后天呢", "大后天"]
    kept, removed = Cleaner(salvage=True).clean(alone)
    assert kept == [["后天呢", "大后天"]]
    assert [r.turns for r in removed] == [["今天天气好"], ["包邮"], ["明天也好"], ["代购"]]
    assert {r.reason for r in removed} == {"nobody replies", "advertisement"}


def test_after_a_cut_a_turn_is_a_first_turn():
    kept, _ = Cleaner(salvage=True).clean(["今天天气好", "代购", "哈哈", "你笑什么"])
    assert kept == [["哈哈", "你笑什么"]]


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("dialogue", [[], ["一个人说"]])
def test_somebody_has_to_reply(dialogue, salvage):
    kept, removed = Cleaner(salvage=salvage).clean(dialogue)
    assert kept == []
    assert removed == [Removal("nobody replies", None, dialogue)]


def test_nothing_stands_between_two_bad_turns():
    kept, removed = Cleaner(salvage=True).clean([*GOOD, "包邮", "代购", "今天天气好", "明天也好"])
    assert kept == [GOOD, ["今天天气好", "明天也好"]]
    assert reasons(removed) == [("advertisement", 3), ("advertisement", 4)]


def test_salvage_ends_with_a_bad_turn():
    kept, removed = Cleaner(salvage=True).clean([*GOOD, "包邮"])
    assert kept == [GOOD]
    assert reasons(removed) == [("advertisement", 3)]


def test_long_dialogues_are_cut():
    turns = [f"这是第{'一二三四五六七'[i]}句话" for i in range(7)]
    cleaner = Cleaner(most_turns=3)
    kept, removed = cleaner.clean(turns)
    assert kept == [turns[:3], turns[3:6]]
    assert removed == [Removal("nobody replies", None, turns[6:])]
    assert cleaner.report.split == 1
    assert len(Cleaner().clean([f"{i}你好吗" for i in range(100, 130)])[0]) == 1
    kept, _ = Cleaner().clean([f"{i}你好吗在家吗" for i in range(100, 132)])
    assert [len(piece) for piece in kept] == [30, 2]


def test_a_bad_piece_does_not_cost_the_others():
    turns = ["第一句话", "哈哈", "第三句话", "第四句话"]
    kept, removed = Cleaner(most_turns=2).clean(turns)
    assert kept == [turns[2:]]
    assert removed == [Removal("generic", 1, turns[:2])]


def test_a_dialogue_counts_once():
    cleaner = Cleaner()
    assert cleaner.clean(GOOD)[0] == [GOOD]
    again = [*GOOD[:2], GOOD[2] + "!"]
    assert cleaner.clean(again) == ([], [Removal("seen before", None, again)])
    assert cleaner.clean(GOOD[:2])[0] == [GOOD[:2]]
    assert Cleaner(once=False).clean(GOOD)[0] == [GOOD]
    free = Cleaner(once=False)
    assert [free.clean(GOOD)[0] for _ in range(2)] == [[GOOD], [GOOD]]


def test_what_is_removed_was_not_seen():
    cleaner = Cleaner(noise=lambda turns: 1.0)
    cleaner.clean(GOOD)
    assert cleaner.clean(GOOD)[1][0].reason == "noise"


def test_any_scorer_is_a_noise_filter():
    def share_of_fire(turns):
        return sum("火" in turn for turn in turns) / len(turns)

    assert Cleaner(noise=share_of_fire, threshold=0.3).clean(GOOD)[1][0].reason == "noise"
    assert Cleaner(noise=share_of_fire, threshold=0.4).clean(GOOD)[0] == [GOOD]
    assert Cleaner(noise=share_of_fire, threshold=1 / 3).clean(GOOD)[0] == [GOOD]  # above, not at


def test_the_report():
    cleaner = Cleaner()
    for i in range(5):
        cleaner.clean([f"第{i}个问题呢", "哈哈"])
    cleaner.clean([GOOD[0], "…"])
    found = cleaner.report.as_dict()
    assert list(found["removed"].items()) == [("generic", 5), ("too short", 1)]
    assert [len(found["examples"][reason]) for reason in ("generic", "too short")] == [3, 1]
    assert (found["read"], found["kept"], found["untouched"], found["split"]) == (6, 0, 0, 0)
    assert found["edited"] == {}


def test_errors():
    with pytest.raises(ValueError, match="most_turns=1 must be at least 2"):
        Cleaner(most_turns=1)
    for threshold in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"threshold={threshold} must be between 0 and 1"):
            Cleaner(threshold=threshold)
