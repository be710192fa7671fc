"""GPT's and GPT-2's released weights: written and read by transformers, of every kind of file there is."""

import copy
import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from toys import SIZES, tokens, written

from helpers import assert_differs, assert_same
from papercode.attention.backends import auto, sdpa
from papercode.attention.transformer import attention
from papercode.attention.wrapping import wrapped
from papercode.decoders.fast_generation import FastGPT2
from papercode.decoders.generation import cached_generation, left_padded
from papercode.decoders.gpt import GPT
from papercode.decoders.gpt2 import GPT2
from papercode.decoding import beam_search, greedy_search

CASES = {
    "openai-gpt": (GPT, hf.OpenAIGPTLMHeadModel, hf.OpenAIGPTModel),
    "gpt2": (GPT2, hf.GPT2LMHeadModel, hf.GPT2Model),
}
ATTENDS = {"attention": attention, "sdpa": sdpa, "auto": auto}


@pytest.fixture(params=CASES)
def kind(request):
    return request.param


def config(kind, **changes):
    made = copy.deepcopy(SIZES[kind])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def rewritten(folder, change):
    """Changes the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def logits(model, x, **kwargs):
    with torch.no_grad():
        return model(x, **kwargs).logits


@pytest.mark.parametrize("attend", ATTENDS)
def test_logits_equal_transformers(kind, attend, tmp_path, parity):
    ours, theirs, _ = CASES[kind]
    reference = written(theirs, config(kind), tmp_path)
    model, x = ours.from_pretrained(tmp_path), tokens(3, 11)
    with wrapped(model, lambda _: ATTENDS[attend]), torch.no_grad():
        found = model(x)
    parity(
        ours.__name__, f"transformers.{theirs.__name__}", f"3 layers, 5 heads, {attend}", found, logits(reference, x)
    )
    assert not model.training
    assert_differs(found, logits(reference, x.flip(1)))


def test_one_layer_another_epsilon_and_width(tmp_path, parity):
    for kind, changes in (
        ("openai-gpt", {"n_layer": 1, "layer_norm_epsilon": 0.3}),
        ("gpt2", {"n_layer": 1, "layer_norm_epsilon": 0.3, "n_inner": None, "n_head": 1}),
    ):
        ours, theirs, _ = CASES[kind]
        reference = written(theirs, config(kind, **changes), tmp_path / kind)
        model, x = ours.from_pretrained(tmp_path / kind), tokens()
        told = "1 layer, epsilon 0.3"
        parity(ours.__name__, f"transformers.{theirs.__name__}", told, model(x), logits(reference, x))
        assert model.layers[0].residuals[0].norm.eps == 0.3


def test_left_padding_equals_transformers(kind, tmp_path, parity):
    ours, theirs, _ = CASES[kind]
    reference = written(theirs, config(kind), tmp_path)
    model = ours.from_pretrained(tmp_path)
    x, keep = left_padded([[3, 1, 4, 1, 5], [9], [2, 6]])
    places = (keep.long().cumsum(1) - 1).clamp(min=0)
    expected = logits(reference, x, attention_mask=keep.long(), position_ids=places)
    with torch.no_grad(), cached_generation(model, keep=keep) as step:
        found = step(x, torch.arange(3))
    parity(ours.__name__, f"transformers.{theirs.__name__}", "left padding", found, expected[:, -1])
    assert_differs(found, logits(reference, x)[:, -1])


def test_generation_equals_generate(kind, tmp_path):
    ours, theirs, _ = CASES[kind]
    reference = written(theirs, config(kind), tmp_path)
    model, x = ours.from_pretrained(tmp_path), tokens(3, 4)
    settings = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": 95, "pad_token_id": 95}
    expected = reference.generate(x, attention_mask=torch.ones_like(x), **settings)
    beams = reference.generate(
        x, attention_mask=torch.ones_like(x), **settings, num_beams=4, length_penalty=1.0, early_stopping=True
    )
    steps = [lambda: cached_generation(model)]
    with torch.no_grad(), steps[0]() as step:
        assert torch.equal(greedy_search(step, x, end=95, max_new=9), expected)
    with torch.no_grad(), steps[0]() as step:
        found, _ = beam_search(step, x, end=95, max_new=9, beam=4, penalty=lambda length: length)
    assert torch.equal(found[:, 0, : beams.shape[1]], beams)
    if kind == "gpt2":
        assert torch.equal(greedy_search(FastGPT2(model, 3).steps(), x, end=95, max_new=9), expected)


def test_there_and_back(kind, tmp_path):
    ours, theirs, _ = CASES[kind]
    reference = written(theirs, config(kind), tmp_path / "theirs")
    ours.from_pretrained(tmp_path / "theirs").to_transformers(tmp_path / "ours")
    again, stranger = (
        hf.AutoModelForCausalLM.from_pretrained(tmp_path / f, dtype=torch.float64) for f in ("ours", "theirs")
    )
    assert type(again) is theirs
    x = tokens()
    assert_same(logits(again.eval(), x), logits(stranger.eval(), x), 1e-12)
    assert_same(logits(again, x), logits(reference, x), 1e-12)
    keys = {name for name, value in reference.config.to_dict().items() if again.config.to_dict()[name] != value}
    assert keys <= {"_name_or_path", "dtype", "architectures", "transformers_version"}
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [theirs.__name__]
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_files_of_the_body_alone(kind, tmp_path):
    """GPT2Model's files lack the prefix, as the gpt2 on the hub does."""
    ours, _, body = CASES[kind]
    reference = written(body, config(kind), tmp_path)
    assert not any(name.startswith("transformer.") for name in load_file(tmp_path / "model.safetensors"))
    x = tokens()
    with torch.no_grad():
        states = reference(x).last_hidden_state
    assert_same(ours.from_pretrained(tmp_path).encode(x), states)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_masks_that_old_files_hold_are_no_weights(kind, prefix, tmp_path):
    ours, theirs, body = CASES[kind]
    written(theirs if prefix else body, config(kind), tmp_path)
    x = tokens()
    expected = ours.from_pretrained(tmp_path)(x)

    def old(tensors):
        for i in range(3):
            tensors[f"{prefix}h.{i}.attn.bias"] = torch.ones(1, 1, 31, 31).tril()
            if kind == "gpt2":
                tensors[f"{prefix}h.{i}.attn.masked_bias"] = torch.tensor(-1e4)

    rewritten(tmp_path, old)
    assert_same(ours.from_pretrained(tmp_path)(x), expected)

    def strange(tensors):
        tensors[f"{prefix}h.0.attn.rotary"] = torch.ones(3)

    rewritten(tmp_path, strange)
    with pytest.raises(ValueError, match=r"nothing was loaded. unexpected: (transformer\.)?h\.0\.attn\.rotary"):
        ours.from_pretrained(tmp_path)


def test_a_head_that_is_stored_again_must_be_the_table_of_words(kind, tmp_path):
    ours, theirs, _ = CASES[kind]
    written(theirs, config(kind), tmp_path)
    table = "transformer.tokens_embed.weight" if kind == "openai-gpt" else "transformer.wte.weight"
    rewritten(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[table].clone()}))
    ours.from_pretrained(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[table] + 1}))
    with pytest.raises(ValueError, match=f"lm_head.weight that differs from {table}; here they are one"):
        ours.from_pretrained(tmp_path)


REFUSED = {
    "gpt2": [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True; only False is supported"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn=True; only False is supported"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False; only True is supported"),
        ({"activation_function": "relu"}, "activation_function='relu'; only 'gelu_new' is supported"),
        ({"add_cross_attention": True}, "add_cross_attention=True; only False is supported"),
        ({"embd_pdrop": 0.0}, r"resid_pdrop=0.1, embd_pdrop=0.0, attn_pdrop=0.1; GPT has one rate of dropout"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False; only True is supported"),
        ({"alibi": True}, "attributes that are not handled: alibi=True"),
    ],
    "openai-gpt": [
        ({"afn": "relu"}, "afn='relu'; only 'gelu' is supported"),
        ({"attn_pdrop": 0.2}, r"config\.json has resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.2; GPT has one rate"),
        ({"n_inner": 7}, "attributes that are not handled: n_inner=7"),
    ],
}


@pytest.mark.parametrize(("kind", "changes", "message"), [(k, *case) for k, cases in REFUSED.items() for case in cases])
def test_what_is_not_handled_is_refused_by_name(kind, changes, message, tmp_path):
    written(CASES[kind][1], config(kind), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | changes))
    with pytest.raises(ValueError, match=message):
        CASES[kind][0].from_pretrained(tmp_path)


def test_rates_of_dropout_and_epsilon_are_read_and_written(kind, tmp_path):
    rates = {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3, "layer_norm_epsilon": 0.2}
    written(CASES[kind][1], config(kind, **rates), tmp_path)
    model = CASES[kind][0].from_pretrained(tmp_path)
    assert (model.dropout.p, model.layers[0].attention.dropout) == (0.3, 0.3)
    model.to_transformers(tmp_path / "again")
    values = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: values[name] for name in rates} == rates
    assert (values["afn"] if kind == "openai-gpt" else values["activation_function"]) in ("gelu", "gelu_new")


def test_what_old_configurations_of_gpt_say_and_leave_out(tmp_path):
    written(hf.OpenAIGPTLMHeadModel, config("openai-gpt"), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "layer_norm_epsilon"):
        del values[name]
    values |= {"n_ctx": 31, "n_special": 0, "predict_special_tokens": False, "summary_activation": None}
    values |= {"summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index"}
    (tmp_path / "config.json").write_text(json.dumps(values | {"summary_use_proj": True}))
    model = GPT.from_pretrained(tmp_path)
    assert (model.dropout.p, model.layers[0].residuals[0].norm.eps) == (0.1, 1e-5)


def test_gpt_has_no_name_for_another_width_inside(tmp_path):
    with pytest.raises(ValueError, match="d_ff=30 is not 4 times d_model=20, and the layout of GPT has no other"):
        GPT(7, n_positions=5, d_model=20, n_heads=2, d_ff=30, n_layers=1).to_transformers(tmp_path)


def test_one_is_not_read_as_the_other(tmp_path):
    written(hf.GPT2LMHeadModel, config("gpt2"), tmp_path)
    with pytest.raises(ValueError, match="model_type='gpt2'; GPT reads 'openai-gpt'"):
        GPT.from_pretrained(tmp_path)


def test_a_full_size_gpt2(tmp_path, parity):
    with torch.device("meta"):
        reference = hf.GPT2LMHeadModel(hf.GPT2Config())
    reference = reference.to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, p in reference.named_parameters():
            p.fill_(1.0) if p.ndim == 1 and ".weight" in name else p.uniform_(-0.05, 0.05)
    reference.tie_weights()
    reference.save_pretrained(tmp_path)
    model = GPT2.from_pretrained(tmp_path)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808
    x = tokens(1, 5, 50_257)
    expected = logits(reference, x)
    with torch.no_grad():
        found = model(x)
        fast = FastGPT2(model).steps()(x, torch.arange(1))
    scale = expected.abs().max()
    parity("GPT2", "transformers.GPT2LMHeadModel", "gpt2, full size, float32", found / scale, expected / scale, 1e-5)
    assert_same(fast / scale, expected[:, -1] / scale, 1e-5)
