"""from_pretrained and to_transformers as a reader calls them."""

import subprocess
import sys

import pytest
import torch
from toys import SIZES, tokens, written
from transformers import GPT2LMHeadModel

from papercode.decoders.gpt2 import GPT2


def test_there_and_back(tmp_path):
    reference = written(GPT2LMHeadModel, SIZES["gpt2"], tmp_path / "theirs")
    model = GPT2.from_pretrained(tmp_path / "theirs")
    model.to_transformers(tmp_path / "ours")
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "ours", dtype=torch.float64).eval()
    x = tokens()
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference(x).logits, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(again(x).logits, reference(x).logits, rtol=1e-9, atol=1e-9)
    assert GPT2.from_pretrained(str(tmp_path / "theirs"), torch.float32)(x).dtype == torch.float32


def test_a_class_without_a_layout_of_its_own_has_that_of_its_parent_but_is_not_in_it(tmp_path):
    class Other(GPT2):
        """A stranger."""

    written(GPT2LMHeadModel, SIZES["gpt2"], tmp_path)
    with pytest.raises(ValueError, match="Other has no entry among the architectures of 'gpt2': GPT2"):
        Other.from_pretrained(tmp_path)


def test_the_table_is_read_when_it_is_asked_for():
    loaded = "[name for name in sys.modules if 'checkpoints' in name or 'safetensors' in name]"
    code = f"import sys, papercode.decoders.gpt2; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['papercode.checkpoints', 'papercode.checkpoints.pretrained']"
