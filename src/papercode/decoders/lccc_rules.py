"""The rules by which LCCC's dialogues were cleaned [@wang2020large, section 3], one small function each.

An *edit* returns the turn without what does not belong in it; a *rule* tells whether a turn is bad. The paper names the
rules; patterns, word lists and limits that it does not give are ours, and can be replaced.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping

# edits: what platforms and people put into a text that nobody said

_URL = re.compile(r"(?:https?://|www\.|(?<![A-Za-z0-9.])t\.cn/)[!-~]+", re.I)
_COLON, _OPEN, _CLOSE = "[:\uff1a]", "(\uff08", ")\uff09"  # each of them also as wide as a Chinese character
_REPLY = re.compile(rf"^\s*(?:回复|reply\s+to)\s*@[^\s:\uff1a@]{{1,30}}\s*{_COLON}?\s*", re.I)
_REPOST = re.compile(r"//\s*@.*$", re.S)
_MENTION = re.compile(rf"(?<![A-Za-z0-9._-])@[\w·-]{{1,30}}{_COLON}?\s?")
_TOPIC = re.compile("[#\uff03][^#\uff03\n]{1,40}[#\uff03]")
_EMOTE = re.compile(r"[\[\uff3b][\w\s]{1,8}[\]\uff3d]")
_PLAIN = rf"\w\s{_OPEN}{_CLOSE}\uff0c\u3002\uff01\uff1f\u3001,.!?+=/%&$:;\uff1a\uff1b~\u201c\u201d\"'-"
_SMILEY = re.compile(
    rf"[{_OPEN}](?=[^{_OPEN}{_CLOSE}]{{0,12}}(?:[^{_PLAIN}]|[T><^;Q]_))[^\u4e00-\u9fff\d{_OPEN}{_CLOSE}]{{2,14}}[{_CLOSE}]"
)
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0f\u200d\u20e3]+")
_SPACE = re.compile(r"\s+")


def without_reply_tag(turn: str) -> str:
    """“回复 @小明:好的” becomes “好的”, as does “Reply to @someone: …”."""
    return _REPLY.sub("", turn)


def without_repost(turn: str) -> str:
    """“说得对//@小红:今天下雨” becomes “说得对”: after // comes what somebody else wrote."""
    return _REPOST.sub("", turn)


def without_mentions(turn: str) -> str:
    """“@小明 你看” becomes “你看”; an address such as a@b.cn stays (and is a contact, see below)."""
    return _MENTION.sub("", turn)


def without_topics(turn: str) -> str:
    """“#旅行# 出发了” becomes “出发了”: Weibo's hashtags stand between two signs."""
    return _TOPIC.sub("", turn)


def without_urls(turn: str) -> str:
    """“看这里 http://t.cn/abc” becomes “看这里”; the text after an address stays if it is Chinese."""
    return _URL.sub("", turn)


def without_emotes(turn: str) -> str:
    """“好笑[doge]” becomes “好笑”: names of pictures in brackets."""
    return _EMOTE.sub("", turn)


def without_emoji(turn: str) -> str:
    """“好吃😋” becomes “好吃”, and “哼(╯‵□′)” becomes “哼”: pictures, and faces made of signs."""
    return _SMILEY.sub("", _EMOJI.sub("", turn))


def without_repeats(turn: str, times: int = 6) -> str:
    """A phrase that stands more than `times` times in a row stands once: “哈哈哈哈哈哈哈” (7) becomes “哈”."""
    return re.sub(rf"(.{{1,20}}?)\1{{{times},}}", r"\1", turn)


def with_single_spaces(turn: str) -> str:
    """Tabs, line ends and runs of spaces become one space, none at the ends."""
    return _SPACE.sub(" ", turn).strip()


EDITS: Mapping[str, Callable[[str], str]] = {
    "reply tag": without_reply_tag,
    "repost": without_repost,
    "address of a page": without_urls,
    "mention": without_mentions,
    "topic": without_topics,
    "emote": without_emotes,
    "emoji": without_emoji,
    "repeats": without_repeats,
    "spaces": with_single_spaces,
}
"""In the order in which they are done: an address may hold a #, and a repost begins with a mention."""

# rules: what makes a turn useless

_GENERIC = re.compile(
    r"(?:[哈嘿呵嘻]+|[嗯恩哦噢喔啊呃额]+|好[的吧呀啊]?|是[的啊吧呀]?|对[的啊呀]?|谢谢(?:你|您|了)?|不知道|可以[的啊]?|没[有事]?|"
    r"转发微博|转发|支持(?:一下)?|顶(?:一下)?|沙发|路过|加油|同意|赞)"
)
_CONTACT = re.compile(
    r"(?<!\d)1[3-9]\d{9}(?!\d)|[\w.+-]+@[\w-]+\.[A-Za-z]{2,}|(?:qq|q群|微信|薇信|vx|wechat)[号群]?\s*[:\uff1a]?\s*[A-Za-z0-9_-]{5,}",
    re.I,
)
_TRADE = (
    "代购", "包邮", "优惠券", "淘宝", "加微信", "加我微信", "关注公众号", "点击链接", "点击查看", "秒杀", "批发",
    "招代理", "货到付款", "折扣价", "领取红包", "刷单", "兼职日结",
)  # fmt: skip


def bare(turn: str) -> str:
    """Letters and digits of a turn, in small letters: what is left when nobody looks at punctuation."""
    return "".join(c for c in turn.lower() if c.isalnum())


def too_short(turn: str, least: int = 1) -> bool:
    """Fewer letters than `least`; with 1, a turn of nothing but signs."""
    return len(bare(turn)) < least


def too_long(turn: str, most: int = 100) -> bool:
    """More signs than `most`: no short-text conversation."""
    return len(turn) > most


def generic(turn: str) -> bool:
    """One of the forms that fit after everything: “哈哈”, “嗯嗯”, “好的”, “转发微博”."""
    return _GENERIC.fullmatch(bare(turn)) is not None


def contact(turn: str) -> bool:
    """A telephone number, a mail address, or the number of a messenger: private, or an advertisement."""
    return _CONTACT.search(turn) is not None


def advertisement(turn: str) -> bool:
    """Words of trade: “代购”, “包邮”, “优惠券”, …"""
    return any(word in turn for word in _TRADE)


def foreign(turn: str, least: float = 0.5) -> bool:
    """Less than `least` of the letters and digits are Chinese characters."""
    letters = bare(turn)
    return sum("\u4e00" <= c <= "\u9fff" for c in letters) < least * len(letters)


def broken(turn: str) -> bool:
    """Signs that no keyboard makes: control characters, private and unassigned ones, U+FFFD for a lost byte."""
    return any(c == "\ufffd" or unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs") for c in turn)


def same_as_post(turn: str, post: str) -> bool:
    """The reply repeats what it replies to, punctuation aside."""
    return bare(turn) == bare(post)


class Blacklist:
    """A rule: whether a turn holds one of these words, in whatever case.

    Args:
        words: The paper's lists (insults, sensitive words, dialect, names, special topics) are not ours to repeat.

    Raises:
        ValueError: If a word is empty, which every turn would hold.
    """

    def __init__(self, words: Collection[str]):
        if any(not word.strip() for word in words):
            raise ValueError("words holds an empty word, and every turn would hold it")
        longest_first = sorted((word.strip().lower() for word in words), key=lambda word: (-len(word), word))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, turn: str) -> bool:
        """Whether the turn is bad."""
        return self._pattern is not None and self._pattern.search(turn.lower()) is not None


RULES: Mapping[str, Callable[[str], bool]] = {
    "broken signs": broken,
    "too short": too_short,
    "too long": too_long,
    "contact": contact,
    "advertisement": advertisement,
    "foreign": foreign,
}
"""For every turn; `generic` and `same_as_post` are for replies only: a first turn may say hello."""
