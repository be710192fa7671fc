import pytest

from papercode.decoders.lccc_rules import (
    EDITS,
    RULES,
    Blacklist,
    advertisement,
    bare,
    broken,
    contact,
    foreign,
    generic,
    same_as_post,
    too_long,
    too_short,
    with_single_spaces,
    without_emoji,
    without_emotes,
    without_mentions,
    without_repeats,
    without_reply_tag,
    without_repost,
    without_topics,
    without_urls,
)

# edit, before, after; what stays as it is stands there twice
CASES = [
    (without_reply_tag, "回复 @小明:好的", "好的"),
    (without_reply_tag, "回复@小明: 好的", "好的"),
    (without_reply_tag, "Reply to @someone: fine", "fine"),
    (without_reply_tag, "reply to @someone fine", "fine"),
    (without_reply_tag, "我回复@小明:好的", "我回复@小明:好的"),
    (without_reply_tag, "回复@小明\uff1a好的", "好的"),
    (without_reply_tag, "回复不了", "回复不了"),
    (without_repost, "说得对//@小红:今天下雨", "说得对"),
    (without_repost, "说得对// @小红:今天\n下雨//@小刚:是", "说得对"),
    (without_repost, "http://a.cn/@b", "http://a.cn/@b"),
    (without_mentions, "@小明 你看", "你看"),
    (without_mentions, "你看@小明:好 @a-b·c 吗", "你看好 吗"),
    (without_mentions, "@小明\uff1a好", "好"),
    (without_mentions, "写给 me@b.cn 吧", "写给 me@b.cn 吧"),
    (without_topics, "#旅行# 出发了", " 出发了"),
    (without_topics, "#旅行#和#美食#", "和"),
    (without_topics, "\uff03旅行\uff03好", "好"),
    (without_topics, "我是#1", "我是#1"),
    (without_urls, "看这里 http://t.cn/abc 很好", "看这里  很好"),
    (without_urls, "看https://a.b/c?d=1好", "看好"),
    (without_urls, "www.baidu.com呢", "呢"),
    (without_urls, "在t.cn/x1呢", "在呢"),
    (without_urls, "best.cn/x", "best.cn/x"),
    (without_emotes, "好笑[doge]", "好笑"),
    (without_emotes, "[哈哈][泪]真的[允悲]", "真的"),
    (without_emotes, "\uff3b哈哈\uff3d好", "好"),
    (without_emotes, "[这里面的字比八个还要多一些]", "[这里面的字比八个还要多一些]"),
    (without_emoji, "好吃😋❤️🇨🇳", "好吃"),
    (without_emoji, "哼(╯‵□′)", "哼"),
    (without_emoji, "哈(≧▽≦)哈(*^▽^*)哈(T_T)", "哈哈哈"),
    (without_emoji, "他(我哥)说(50%)是(a+b)", "他(我哥)说(50%)是(a+b)"),
    (without_emoji, "哼\uff08╯‵□′\uff09他\uff08我哥\uff09好", "哼他\uff08我哥\uff09好"),
    (without_emoji, "好,(嗯)。", "好,(嗯)。"),
    (without_repeats, "哈哈哈哈哈哈哈", "哈"),
    (without_repeats, "哈哈哈哈哈哈", "哈哈哈哈哈哈"),
    (without_repeats, "我好累" * 7 + "啊", "我好累啊"),
    (without_repeats, "我好累" * 6, "我好累" * 6),
    (without_repeats, "!!!!!!!!!", "!"),
    (with_single_spaces, " 今天\t天气\n\u3000好 ", "今天 天气 好"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "before", "after"), CASES)
def test_an_edit(edit, before, after):
    assert edit(before) == after


@pytest.mark.parametrize(("edit", "before", "after"), CASES)
def test_an_edit_leaves_clean_text_alone(edit, before, after):
    for turn in ("火锅我在重庆成都吃了七八顿火锅", "哈哈哈哈!那我的嘴巴可能要烂掉!", "不会的就是好油腻", ""):
        assert edit(turn) == turn


def test_limits_of_edits_are_arguments():
    assert without_repeats("哈哈哈", times=2) == "哈"
    assert without_repeats("哈哈", times=2) == "哈哈"


RULED = [
    (too_short, "!!……", "好"),
    (too_long, "长" * 101, "长" * 100),
    (generic, "哈哈哈哈!", "哈哈,我也是"),
    (generic, "嗯嗯~", "嗯,明天见"),
    (generic, "好的。", "好的,明天见"),
    (generic, "转发微博", "我转发微博了"),
    (generic, "谢谢您!", "谢谢您的帮助"),
    (generic, "是的呀"[:2], "是的呀是的"),
    (contact, "打我电话13812345678", "我有13812345678900块"),
    (contact, "就打13812345678吧", "编号913812345678呢"),
    (contact, "写信到 a.b@c.com", "写信@我"),
    (contact, "加我QQ:1234567", "我没有qq"),
    (contact, "微信号 abc_12345", "微信里说"),
    (advertisement, "全场包邮", "打包"),
    (foreign, "this is english 好", "我爱NLP和你"),
    (broken, "坏\ufffd了", "没坏"),
    (broken, "控制\x07符", "普通\u3000空格"),
    (broken, "私有\ue000", "𠀀生僻字"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "bad", "good"), RULED)
def test_a_rule(rule, bad, good):
    assert rule(bad)
    assert not rule(good)


def test_limits_of_rules_are_arguments():
    assert too_short("好!", least=2)
    assert not too_short("好的!", least=2)
    assert too_long("长" * 5, most=4)
    assert not too_long("长" * 4, most=4)
    assert foreign("好a", least=0.6)
    assert not foreign("好a", least=0.5)
    assert not foreign("")


def test_the_reply_that_repeats_the_post():
    assert same_as_post("今天下雨。", "今天,下雨!")
    assert not same_as_post("今天下雨吗", "今天下雨")


def test_bare():
    assert bare("你好, World! 1️⃣") == "你好world1"


def test_blacklist():
    rule = Blacklist(["坏蛋", "BAD ", "a.b"])
    assert rule("你是坏蛋吗")
    assert rule("so Bad")
    assert rule("A.B")
    assert not rule("acb")
    assert not Blacklist([])("坏蛋")
    with pytest.raises(ValueError, match="words holds an empty word"):
        Blacklist(["坏", " "])


def test_every_edit_and_rule_is_in_the_tables_and_tested():
    assert set(EDITS.values()) == {edit for edit, _, _ in CASES}
    assert set(RULES.values()) | {generic} == {rule for rule, _, _ in RULED}


def test_the_order_of_edits_matters():
    """An address may hold a # or an @; a reply tag is a mention."""
    assert all_of("回复@小明:看 http://a.cn/#x# 好//@小红:嗯") == "看 好"
    assert all_of("看 http://a.cn//@小红:嗯") == "看"  # or the address would swallow the mark of the repost


def all_of(turn):
    for edit in EDITS.values():
        turn = edit(turn)
    return turn
