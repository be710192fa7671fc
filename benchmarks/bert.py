"""Times BERT-base against transformers (with PyTorch's own attention) on the same weights: forward, and training steps.

python benchmarks/bert.py                         on this machine's GPU if there is one, else on its CPU
python benchmarks/bert.py --only forward          some of it
python benchmarks/bert.py --layers 2 --dry        a quick look

Eight texts of at most 128 tokens (64 of 512 on a GPU), of which a quarter is padding; the states of real tokens must
agree, and so must losses and gradients. A step is forward, loss, backward and AdamW, without dropout, so that both do
the same. A pre-training step asks for 15 % of the words: transformers computes the logits of all of them.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory

import torch
import transformers
from harness import Case, run
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from papercode.attention.backends import sdpa
from papercode.attention.layer_norm import fuse_norms
from papercode.attention.transformer import MultiHeadAttention
from papercode.encoders.bert import BERT
from papercode.encoders.bert_data import mask_tokens
from papercode.encoders.bert_packed import packed
from papercode.encoders.bert_pretraining import BERTForPreTraining

LENGTHS = torch.tensor([128, 128, 110, 101, 93, 80, 68, 56])  # 764 of 1,024


def models(arguments: argparse.Namespace, dtype: torch.dtype) -> tuple[BERTForPreTraining, nn.Module]:
    """Ours and theirs, with equal weights of their own each."""
    config = transformers.BertConfig(
        num_hidden_layers=arguments.layers,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    theirs = transformers.BertForPreTraining(config)
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = BERTForPreTraining.from_pretrained(folder)
    fuse_norms(ours)
    for layer in ours.modules():
        if isinstance(layer, MultiHeadAttention):
            layer.attend = sdpa
    return tuple(model.to(arguments.device, dtype) for model in (ours, theirs))


def step(model: nn.Module, words: nn.Embedding, loss: Callable[[], Tensor]) -> Callable[[], list[Tensor]]:
    """Returns the loss, and the gradient of the table of words."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def work() -> list[Tensor]:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return [value.detach(), words.weight.grad]

    return work


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    cuda = arguments.device == "cuda"
    dtype, loose = (torch.bfloat16, 0.1) if cuda else (torch.float32, 1e-4)
    name = str(dtype).removeprefix("torch.")
    lengths = LENGTHS.repeat(8) * 4 if cuda else LENGTHS
    torch.manual_seed(0)
    x = torch.randint(1000, 30_000, (len(lengths), int(lengths.max())))
    keep = torch.arange(x.shape[1]) < lengths[:, None]
    segments = (torch.arange(x.shape[1]) >= lengths[:, None] // 2).long() * keep
    hidden, targets = mask_tokens(x * keep, mask=103, n_tokens=30_522, special=[0])
    follows = torch.rand(len(x)) < 0.5
    hidden, segments, keep, targets, follows = (
        t.to(arguments.device) for t in (hidden, segments, keep, targets, follows)
    )
    given = {"token_type_ids": segments, "attention_mask": keep.long()}
    shape = f"{len(x)} x {x.shape[1]}, {int(keep.sum())} real"

    def forward(ours: BERTForPreTraining, theirs: nn.Module, way: Callable[..., Tensor]) -> dict[str, Callable]:
        ours.eval(), theirs.eval()
        return {
            "papercode": lambda: way(ours.encoder, hidden, segments, keep)[keep],
            "transformers": lambda: theirs.bert(hidden, **given).last_hidden_state[keep],
        }

    def tuning(ours: BERTForPreTraining, theirs: nn.Module, way: Callable[..., Tensor]) -> dict[str, Callable]:
        def our_loss() -> Tensor:
            pooled = ours.encoder.pool(way(ours.encoder, hidden, segments, keep))
            return cross_entropy(ours.nsp(pooled), (~follows).long())

        def their_loss() -> Tensor:
            pooled = theirs.bert(hidden, **given).pooler_output
            return cross_entropy(theirs.cls.seq_relationship(pooled), (~follows).long())

        return stepping(ours, theirs, our_loss, their_loss)

    def pre_training(ours: BERTForPreTraining, theirs: nn.Module, way: Callable[..., Tensor]) -> dict[str, Callable]:
        def our_loss() -> Tensor:
            states = way(ours.encoder, hidden, segments, keep)
            words = ours.mlm.loss(states, ours.encoder.words.weight, targets)
            return words + cross_entropy(ours.nsp(ours.encoder.pool(states)), (~follows).long())

        def their_loss() -> Tensor:
            return theirs(hidden, labels=targets, next_sentence_label=(~follows).long(), **given).loss

        return stepping(ours, theirs, our_loss, their_loss)

    def stepping(ours, theirs, our_loss, their_loss) -> dict[str, Callable]:
        ours.train(), theirs.train()
        return {
            "papercode": step(ours, ours.encoder.words, our_loss),
            "transformers": step(theirs, theirs.bert.embeddings.word_embeddings, their_loss),
        }

    for what, make in (("forward", forward), ("fine-tuning step", tuning), ("pre-training step", pre_training)):
        for suffix, way in (("", BERT.__call__), (", packed", packed)):
            if re.search(arguments.only, f"{what}{suffix}, {shape}, {name}"):
                providers = make(*models(arguments, dtype), way)
                yield Case(what + suffix, shape, providers, name, loose, inference=make is forward)


if __name__ == "__main__":
    run("bert", cases, __doc__, layers=(12, "of the encoder"))
