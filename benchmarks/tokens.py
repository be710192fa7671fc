"""Times our subword tokenizers against the `tokenizers` library: the same vocabulary, the same text, the same ids.

python benchmarks/tokens.py                       all of it
python benchmarks/tokens.py --only WordPiece      one tokenizer

The natural text is the documentation that comes inside Python (the topics of its help), one document after the other.
Of the random words hardly any comes twice, so that a cache of words is of no use. `cold` begins with an empty cache,
`warm` with what the text has left in it. All run on one thread. (The file does not bear the library's name, which it
would hide.)
"""

import argparse
import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pydoc_data.topics import topics

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from harness import Case, run
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from papercode.tokens.byte_bpe import ByteLevelBPE
from papercode.tokens.wordpiece import SPECIAL, WordPiece

SIZE = 8000  # of the vocabularies


def natural() -> list[str]:
    return list(topics.values())


def random_words(number: int = 100_000) -> list[str]:
    """One document, words of 3 to 12 letters."""
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [" ".join("".join(generator.choices(letters, k=generator.randint(3, 12))) for _ in range(number))]


def texts() -> dict[str, list[str]]:
    """What is encoded, by name."""
    return {"English": natural(), "random words": random_words()}


def size(documents: list[str]) -> str:
    return f"{sum(map(len, documents)) / 1e6:.2f} M characters"


def the_same(what: str, *works: Callable[[], list[list[int]]]) -> None:
    """The harness compares tensors; ids must be equal, and are compared here."""
    expected, *others = [work() for work in works]
    if any(found != expected for found in others):
        raise SystemExit(f"{what}: the ids differ")


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    yield from wordpiece()
    yield from byte_level_bpe()
    yield from bpe_training()


def wordpiece() -> Iterator[Case]:
    peer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    peer.normalizer, peer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=list(SPECIAL), show_progress=False)
    peer.train_from_iterator(natural(), trainer)
    vocabulary = sorted(peer.get_vocab(), key=peer.token_to_id)
    warm = WordPiece(vocabulary)
    for name, documents in texts().items():
        works = {
            "WordPiece, cold": lambda documents=documents: encode_all(WordPiece(vocabulary), documents),
            "WordPiece, warm": partial(encode_all, warm, documents),
            "tokenizers encode": partial(peer_encode, peer, documents),
            "tokenizers encode_batch_fast": partial(peer_encode_batch, peer, documents),
        }
        the_same(f"WordPiece, {name}", *works.values())
        yield Case(f"WordPiece encode, {name}", size(documents), works, dtype="text", tolerance=None)


def byte_level_bpe() -> Iterator[Case]:
    peer = byte_level_peer()
    peer.train_from_iterator(natural(), byte_level_trainer(SIZE))
    model = json.loads(peer.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    warm = ByteLevelBPE(merges, model["vocab"])
    for name, documents in texts().items():
        works = {
            "ByteLevelBPE, cold": lambda documents=documents: encode_all(ByteLevelBPE(merges), documents),
            "ByteLevelBPE, warm": partial(encode_all, warm, documents),
            "tokenizers encode": partial(peer_encode, peer, documents),
            "tokenizers encode_batch_fast": partial(peer_encode_batch, peer, documents),
        }
        the_same(f"ByteLevelBPE, {name}", *works.values())
        yield Case(f"byte-level BPE encode, {name}", size(documents), works, dtype="text", tolerance=None)


def bpe_training() -> Iterator[Case]:
    """The merges are the same, one by one."""
    documents = natural()
    for vocabulary in (SIZE // 4, SIZE):
        works = {
            "ByteLevelBPE.learn": lambda n=vocabulary: ByteLevelBPE.learn(documents, n - 256).merges,
            "tokenizers BpeTrainer": partial(peer_train, vocabulary, documents),
        }
        expected, found = works["ByteLevelBPE.learn"](), works["tokenizers BpeTrainer"]()
        if json.loads(found.to_str())["model"]["merges"] != [list(merge) for merge in expected]:
            raise SystemExit("BPE training: the merges differ")
        shape = f"{size(documents)}, {vocabulary // 1000}k"
        yield Case("byte-level BPE training", shape, works, dtype="text", tolerance=None)


def byte_level_peer() -> Tokenizer:
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return peer


def byte_level_trainer(vocabulary: int) -> trainers.BpeTrainer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False, initial_alphabet=alphabet)


def peer_train(vocabulary: int, documents: list[str]) -> Tokenizer:
    peer = byte_level_peer()
    peer.train_from_iterator(documents, byte_level_trainer(vocabulary))
    return peer


def encode_all(tokenizer, documents: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for text in documents]


def peer_encode(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text).ids for text in documents]


def peer_encode_batch(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
    return [found.ids for found in tokenizer.encode_batch_fast(documents)]


if __name__ == "__main__":
    run("tokens", cases, __doc__)
