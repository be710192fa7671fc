"""A folder as it is downloaded, weights and tokenizer: the right masked word, and the right continuation."""

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)

from helpers import randomise
from papercode.decoders.generation import cached_generation
from papercode.decoders.gpt2 import GPT2
from papercode.decoding import beam_search, greedy_search
from papercode.encoders.bert_pretraining import BERTForMaskedLM
from papercode.tokens.bert_inputs import batch
from papercode.tokens.byte_bpe import ByteLevelBPE
from papercode.tokens.wordpiece import WordPiece

TEXT = "The bank of the river was steep, and the flood rose above it. Nobody had seen such a flood before."


@pytest.fixture
def bert(tmp_path):
    """Reference model and tokenizer, saved to tmp_path."""
    words = sorted(set(TEXT.lower().replace(".", " .").replace(",", " ,").split()))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *words, "##s", "##ed"]), "utf-8")
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    model = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes))
    model = randomise(model).eval()
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    return model, tokenizer


def test_the_right_masked_word(bert, tmp_path):
    reference, their_tokenizer = bert
    model, tokenizer = BERTForMaskedLM.from_pretrained(tmp_path), WordPiece.from_pretrained(tmp_path)
    texts = ["The [MASK] of the river was steep.", "nobody had seen [MASK] floods"]
    tokens, segments, keep = batch(tokenizer, texts).tensors()
    given = their_tokenizer(texts, padding=True, return_tensors="pt")
    assert torch.equal(tokens, given["input_ids"])
    masked = tokens == tokenizer.encode("[MASK]")[0]
    assert masked.sum() == 2
    with torch.no_grad():
        ours = model(tokens, segments, keep)[masked]
        theirs = reference(**given).prediction_logits[masked]
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    words = [tokenizer.decode([i]) for i in ours.argmax(-1).tolist()]
    assert words == [their_tokenizer.decode([i]) for i in theirs.argmax(-1).tolist()]


@pytest.fixture
def gpt2(tmp_path):
    """The same of GPT-2."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([TEXT], vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    trained.save_model(str(tmp_path))
    tokenizer = GPT2Tokenizer.from_pretrained(tmp_path)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "bos_token_id": end, "eos_token_id": end}
    model = randomise(GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))).eval()
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    return model, tokenizer, end


def test_the_right_continuation(gpt2, tmp_path):
    reference, their_tokenizer, end = gpt2
    model, tokenizer = GPT2.from_pretrained(tmp_path), ByteLevelBPE.from_pretrained(tmp_path)
    prompt = "Nobody had seen the naïve 河"
    ids = tokenizer.encode(prompt)
    assert ids == their_tokenizer(prompt)["input_ids"]
    x = torch.tensor([ids])
    for beam in (1, 3):
        settings = GenerationConfig(
            max_new_tokens=12,
            num_beams=beam,
            do_sample=False,
            pad_token_id=end,
            eos_token_id=end,
            early_stopping=beam > 1,
        )
        expected = reference.generate(x, attention_mask=torch.ones_like(x), generation_config=settings)[0]
        with cached_generation(model) as step:
            if beam == 1:
                found = greedy_search(step, x, end=end, max_new=12)[0]
            else:
                found = beam_search(step, x, end=end, max_new=12, beam=beam, penalty=float)[0][0, 0]
        assert found.tolist() == expected.tolist()
        assert tokenizer.decode(found.tolist()).startswith(prompt)
