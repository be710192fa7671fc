"""A configuration: what is taken, expected, harmless, and what is refused by name."""

import pytest

from papercode.checkpoints.config import FIXED, HARMLESS, Config


def test_what_is_taken_is_handled():
    config = Config({"width": 3, "model_type": "x"}, "here")
    assert (config.take("width"), config.take("depth", 5)) == (3, 5)
    config.finish()
    with pytest.raises(ValueError, match="here does not say depth"):
        config.take("depth")


def test_what_nobody_handles_is_named():
    config = Config({"width": 3, "rope": {"theta": 1}, "norm": "rms"}, "here")
    config.take("width")
    with pytest.raises(
        ValueError, match=r"here holds attributes that are not handled: norm='rms', rope=\{'theta': 1\}"
    ):
        config.finish()
    config.ignore("rope", "norm")
    config.finish()


def test_one_value_only():
    config = Config({"activation": "gelu", "bias": True}, "here")
    config.expect(activation={"gelu", "relu"}, absent=7)
    with pytest.raises(ValueError, match="here has bias=True; only False is supported"):
        config.expect(bias=False)
    with pytest.raises(ValueError, match="here has activation='gelu'; only 'relu' or 'silu' is supported"):
        config.expect(activation={"silu", "relu"})


@pytest.mark.parametrize("name", FIXED)
def test_common_attributes_that_make_another_function(name):
    Config({name: FIXED[name]}, "here").finish()
    other = {1: 2} if FIXED[name] == {} else 17
    with pytest.raises(ValueError, match=f"here has {name}="):
        Config({name: other}, "here").finish()
    config = Config({name: other}, "here")
    assert config.take(name) == other
    config.finish()


def test_bookkeeping_is_harmless():
    Config(dict.fromkeys(HARMLESS, "anything"), "here").finish()


def test_reading(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json: it is no folder of a released model"):
        Config.read(tmp_path)
    (tmp_path / "config.json").write_text('{"width": 3}')
    assert Config.read(tmp_path).take("width") == 3
    (tmp_path / "config.json").write_text('{"width": ')
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        Config.read(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json holds list, not an object"):
        Config.read(tmp_path)
