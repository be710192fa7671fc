"""Times batched beam search against a list of hypotheses, with decoders that have attention and that have none.

python benchmarks/beam.py                                        beam 5, 16 sentences and one, 30 steps, 8000 tokens
python benchmarks/beam.py --only "RNNsearch, beam" --rounds 5    some of it
python benchmarks/beam.py --dry --words 97 --width 16            a quick look

The list is the search as it is usually written down: for each sentence a list of (score, tokens, state), for each of
them a call of the decoder, its best continuations, a sort. "one sentence at a time" is our search on batches of one.
The encoder runs once for all sentences in each of them. All have the same random weights; the scores of all hypotheses
must be the same.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Case, run
from torch import Tensor, nn

from papercode.decoding import Step, beam_search
from papercode.recurrent.layers import Stack
from papercode.recurrent.rnnsearch import RNNsearch
from papercode.recurrent.seq2seq import Seq2Seq
from papercode.recurrent.seq2seq_decoding import unpenalised
from papercode.recurrent.unroll import State, select, shown, stepping

START, LENGTH, STEPS = 1, 20, 30
END = -1  # no such token: all do all of the steps
Advance = Callable[[State, Tensor], tuple[Tensor, State]]
"""From states and the last token of each to the scores of the next tokens and the new states."""


def seq2seq(model: Seq2Seq, source: Tensor) -> tuple[State, Advance]:
    decoder = Stack(list(model.decoder.cells))

    def advance(state: State, token: Tensor) -> tuple[Tensor, State]:
        state = decoder(model.target(token), state)
        return model.output(shown(state)), state

    return tuple(reversed(model.encode(source))), advance


def rnnsearch(model: RNNsearch, source: Tensor) -> tuple[State, Advance]:
    def advance(before: State, token: Tensor) -> tuple[Tensor, State]:
        x = model.target(token)
        state = model.decoder(x, before)
        return model.output(before.s, x, state.context), state

    return model.encode(source), advance


def by_lists(begin: Callable[[Tensor], tuple[State, Advance]], source: Tensor, beam: int) -> Tensor:
    """Scores of the best hypotheses of each sentence, with Python's lists."""
    states, advance = begin(source)
    results = []
    for sentence in range(len(source)):
        one = torch.tensor([sentence], device=source.device)
        living: list[tuple[float, list[int], State]] = [(0.0, [START], select(states, one))]
        done: list[tuple[float, list[int]]] = []
        for step in range(1, STEPS + 1):
            candidates = []
            for score, tokens, state in living:
                logits, new = advance(state, torch.tensor(tokens[-1:], device=source.device))
                best, token = logits[0].log_softmax(-1).topk(2 * beam)
                more = zip(best.tolist(), token.tolist())
                candidates += [(score + log_p, [*tokens, next_token], new) for log_p, next_token in more]
            candidates.sort(key=lambda candidate: -candidate[0])
            candidates = candidates[: 2 * beam]
            for score, tokens, _ in candidates[:beam]:
                if tokens[-1] == END or step == STEPS:
                    done.append((score, tokens))
            if len(done) >= beam:
                break
            living = [candidate for candidate in candidates if candidate[1][-1] != END][:beam]
        done.sort(key=lambda hypothesis: -hypothesis[0])
        results.append([score for score, _ in done[:beam]])
    return torch.tensor(results)


def batched(step: Step, source: Tensor, beam: int) -> Tensor:
    prompt = source.new_full((len(source), 1), START)
    return beam_search(step, prompt, end=END, max_new=STEPS, beam=beam, penalty=unpenalised)[1]


def at_once(model: Seq2Seq | RNNsearch, source: Tensor, beam: int) -> Tensor:
    return batched(model.steps(source), source, beam)


def one_by_one(begin: Callable[[Tensor], tuple[State, Advance]], source: Tensor, beam: int) -> Tensor:
    states, advance = begin(source)

    def steps(state: State) -> Step:
        return stepping(lambda token, state: advance(state, token), state)

    ones = torch.arange(len(source), device=source.device)[:, None]
    return torch.cat([batched(steps(select(states, one)), source[one], beam) for one in ones])


@torch.no_grad()
def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    torch.manual_seed(0)
    words, width = arguments.words, arguments.width
    with torch.device(arguments.device):
        sizes = {"d_embedding": width, "d": width, "d_score": width, "d_maxout": width // 2}
        models = {
            "RNNsearch": (RNNsearch(words, words, **sizes), rnnsearch),
            "Seq2Seq, 2 layers": (Seq2Seq(words, words, width, 2), seq2seq),
        }
    for name, (model, begin) in models.items():
        last = model.output.logits if isinstance(model, RNNsearch) else model.output
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        for weight, std in ((model.source.weight, 1), (model.target.weight, 1), (last.weight, 0.5)):
            nn.init.normal_(weight, std=std)  # far from uniform, so that no two hypotheses are as good
        for beam, sentences in ((5, 16), (5, 1), (1, 16)):
            source = torch.randint(2, words, (sentences, LENGTH), device=arguments.device)
            providers = {
                "all sentences at once": partial(at_once, model, source, beam),
                "one sentence at a time": partial(one_by_one, partial(begin, model), source, beam),
                "list of hypotheses": partial(by_lists, partial(begin, model), source, beam),
            }
            if sentences == 1:
                del providers["one sentence at a time"]
            shape = f"{sentences} x {STEPS}, {words} words"
            yield Case(f"{name}, beam {beam}", shape, providers, inference=True)


if __name__ == "__main__":
    run("beam", cases, __doc__, words=(8000, "in each vocabulary"), width=(512, "of all layers"))
