"""Chinese terms for the search, which cuts sentences into words by jieba."""

from collections.abc import Iterable

# what lunr-languages leaves out of a Chinese index: a term cut into pieces of which one is left out is found by nobody
LEFT_OUT = frozenset(
    "的一不在人有是为為以于於上他而后後之来來及了因下可到由这這与與也此但并並个個其已无無小我们們起最再今去好只又或很亦某把那你乃它吧被比别趁"
    "当當从從得打凡儿兒尔爾该該各给給跟和何还還即几幾既看据據距靠啦另么麽每嘛拿哪您凭憑且却卻让讓仍啥如若使谁誰虽雖随隨同所她哇嗡往些向沿哟喲用"
    "咱则則怎曾至致着著诸諸自"
)


def teach(terms: Iterable[str]) -> list[str]:
    """Has jieba keep together what is left out with what follows it, as 自 with 注意力; gives the words it was taught.

    Not whole terms: 注意力 must be found in 多头注意力. Without jieba nothing is cut and nothing need be taught.
    """
    try:
        import jieba
    except ImportError:
        return []
    words = set()
    for term in terms:
        pieces = list(jieba.cut(term))
        for number, piece in enumerate(pieces):
            if piece in LEFT_OUT and len(pieces) > 1:
                words.add("".join(pieces[number : number + 2] if number + 1 < len(pieces) else pieces[-2:]))
    for word in sorted(words):
        jieba.add_word(word)
    return sorted(words)
