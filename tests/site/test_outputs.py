import pytest

from papercode.site.outputs import OPTIONS, OutputChecker

CHECKER = OutputChecker()


def same(want, got):
    return CHECKER.check_output(want + "\n", got + "\n", OPTIONS)


@pytest.mark.parametrize(
    ("want", "got"),
    [
        ("0.75", "0.75"),
        ("0.75", "0.7512"),
        ("0.75", "0.744"),
        ("0.75", "0.76"),
        ("-0.50", "-0.4951"),
        ("0.00", "-0.001"),
        ("1.5e-05", "1.46e-05"),
        ("loss 0.75 after 10 steps", "loss 0.7512 after 10 steps"),
        ("tensor([0.250, 0.750])", "tensor([0.2503, 0.7497])"),
        ("tensor([1., 2.])", "tensor([1., 2.])"),
        ("[1,\n 2]", "[1, 2]"),
        ("start ... end", "start of a long middle end"),
        ("a   b", "a b"),
    ],
)
def test_accepts(want, got):
    assert same(want, got)


@pytest.mark.parametrize(
    ("want", "got"),
    [
        ("0.75", "0.7712"),
        ("0.75", "0.73"),
        ("0.750", "0.7512"),
        ("0.75", "-0.75"),
        ("0.75", "nan"),
        ("0.75", "75"),
        ("1.5e-05", "1.5e-04"),
        ("3", "3.0"),
        ("3", "3.0001"),
        ("3", "4"),
        ("4161", "4160"),
        ("(2, 3)", "(2, 4)"),
        ("1.", "1.4"),
        ("loss 0.75 after 10 steps", "loss 0.75 after 11 steps"),
        ("0.75", "0.75 0.75"),
        ("0.75 0.75", "0.75"),
        ("0.75 x", "0.75 y"),
        ("True", "False"),
        ("layer_1 0.5", "layer_2 0.5"),
        ("ab", "a b"),
    ],
)
def test_refuses(want, got):
    assert not same(want, got)


def test_a_torch_one_stands_for_exactly_one():
    assert same("tensor([1.])", "tensor([1.])")
    assert not same("tensor([1.])", "tensor([1.0004])")
