from papercode.decoders.lccc_corpus import Statistics, trigrams


def test_trigrams_leave_punctuation_out():
    assert trigrams("我 不,知道!") == ["我不知", "不知道"]
    assert trigrams("不知") == []


def test_bland_replies_consist_of_frequent_trigrams():
    corpus = [["问题", "我也不知道啊"]] * 5 + [["问题", "火锅很好吃"]]
    statistics = Statistics.of(corpus, frequent=5)
    assert statistics.bland("我也不知道啊")
    assert statistics.bland("我也不知道")
    assert not statistics.bland("火锅很好吃")
    assert not statistics.bland("不知")  # has none
    # four trigrams of which three are frequent: 75 %
    assert not statistics.bland("我也不知道吗")
    assert Statistics.of(corpus, frequent=5, share=0.75).bland("我也不知道吗")
    assert not Statistics.of(corpus, frequent=6).bland("我也不知道啊")


def test_first_turns_are_not_counted():
    statistics = Statistics.of([["我也不知道啊", "火锅"]] * 5, frequent=5)
    assert not statistics.bland("我也不知道啊")


def test_a_reply_to_too_many_posts():
    reply = "欢迎关注我们的小店哦"
    corpus = [[f"帖子{i}", reply] for i in range(4)]
    assert Statistics.of(corpus, posts=3).everywhere(reply + "!")
    assert not Statistics.of(corpus, posts=4).everywhere(reply)
    same = [["同一个帖子", reply]] * 9
    assert not Statistics.of(same, posts=3).everywhere(reply)  # different posts
    assert not Statistics.of(corpus, posts=3).everywhere("没人说过的话呢呢呢")
    short = [[f"帖子{i}", "好吃吗"] for i in range(9)]
    assert not Statistics.of(short, posts=3).everywhere("好吃吗")
    assert Statistics.of(short, posts=3, least=3).everywhere("好吃吗")
    later = [["头", f"帖子{i}", reply] for i in range(4)]  # the post is the turn before
    assert Statistics.of(later, posts=3).everywhere(reply)
