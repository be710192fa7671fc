"""What readers type into the search, and what has to come of it: on a server and without one."""

# what is typed; a page that must be among the first results
QUERIES = {
    # words of the text
    "low intrinsic rank": "papers/adaptation/lora",
    "vanishing gradient": "papers/recurrent/lstm",
    "additive attention": "papers/recurrent/bahdanau",
    # the names of papers: the note, not the modules that carry the name
    "Transformer": "papers/attention/transformer",
    "LoRA": "papers/adaptation/lora",
    "BERT": "papers/encoders/bert",
    "seq2seq": "papers/recurrent/seq2seq",
    # identifiers
    "scaled_dot_product": "papers/attention/transformer",
    "scaled_dot_product_attention": "papers/attention/transformer",
    "LoRALinear": "papers/adaptation/lora",
    "MultiHeadAttention": "papers/attention/transformer",
    # authors and keys
    "Vaswani": "papers/attention/transformer",
    "Kalchbrenner": "bibliography",
    "hu2022lora": "papers/adaptation/lora",
    "vaswani2017attention": "papers/attention/transformer",
    # Chinese
    "注意力机制": "papers/recurrent/bahdanau",
    "残差连接": "papers/convolutional/resnet",
    "自注意力": "papers/attention/transformer",
    # papers without a note
    "word2vec": "bibliography",
    "T5": "bibliography",
}
FIRST = 4


def results(page, query: str) -> list[str]:
    """The pages that the search gives for `query`, best first, named as their sources are: `papers/adaptation/lora`.

    Args:
        page: a page of the site, from a server or from a file; its search may be open or not.
        query: what a reader types.
    """
    if not page.locator("[data-md-toggle=search]").is_checked():
        page.keyboard.press("/")
    field = page.locator("[data-md-component=search-query]")
    found = page.locator(".md-search-result__item")
    field.fill("")
    field.press("End")  # a key, so that the search looks at what is there
    found.first.wait_for(state="detached")
    field.fill(query)
    field.press("End")
    found.first.wait_for()
    links = found.locator("a.md-search-result__link:first-child").evaluate_all("links => links.map(a => a.href)")
    home = page.evaluate("new URL(__md_scope, location).href")
    return [_name(link.removeprefix(home)) for link in links]


def _name(link: str) -> str:
    return link.partition("?")[0].partition("#")[0].removesuffix("index.html").removesuffix(".html").strip("/")


def unanswered(page) -> dict[str, list[str]]:
    """The QUERIES whose page is not among the first results, with what came first instead."""
    first = {query: results(page, query)[:FIRST] for query in QUERIES}  # one page: the index is loaded once
    return {query: found for query, found in first.items() if QUERIES[query] not in found}
