import pytest
import torch
from torch.nn.functional import batch_norm, conv2d

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.preact_units import (
    FullPreActivation,
    NormAfterAddition,
    Original,
    ReLUBeforeAddition,
    ReLUOnlyPreActivation,
    ResidualUnit,
    chain,
    norm_relu,
)
from papercode.convolutional.residual_blocks import BasicBlock, basic, bottleneck
from papercode.convolutional.shortcut_variants import ConvolutionShortcut, convolution_at_changes
from papercode.convolutional.shortcuts import option_b

# what each unit does, by Figure 4: c convolution, n norm, r ReLU, + the sum; and | where the shortcut begins if the
# shape changes
FIGURE = {
    Original: "|cnrcn+r",
    NormAfterAddition: "|cnrc+nr",
    ReLUBeforeAddition: "|cnrcnr+",
    ReLUOnlyPreActivation: "r|cnrcn+",
    FullPreActivation: "nr|cnrc+",
}


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def by_figure(unit, x, recipe):
    """Runs the recipe letter by letter, in training, with convolutions and norms in their order of registration."""
    modules = [m for part in (unit.before, unit.residual, unit.after) for m in part.modules()]
    convs = iter([m for m in modules if isinstance(m, torch.nn.Conv2d)])
    norms = iter([m for m in modules if hasattr(m, "gain")])
    carried, y = x, x
    for letter in recipe:
        if letter == "c":
            conv = next(convs)
            y = conv2d(y, conv.weight, None, conv.stride, conv.weight.shape[-1] // 2)
        elif letter == "n":
            norm = next(norms)
            y = batch_norm(y, None, None, norm.gain, norm.bias, training=True)
        elif letter == "r":
            y = y.clamp(min=0)
        elif letter == "|":
            carried = y if unit.shared else x
        else:
            y = unit.shortcut(carried, y)
    assert next(convs, None) is next(norms, None) is None
    return y


@pytest.mark.parametrize("sizes", [(8, 8, 1), (8, 12, 1), (8, 12, 2)])
@pytest.mark.parametrize("convolutions", [basic, bottleneck])
@pytest.mark.parametrize("kind", FIGURE)
def test_figure_4(parity, kind, convolutions, sizes):
    unit = randomise(kind(*sizes, shortcut=convolution_at_changes, convolutions=convolutions))
    x = images(3, 8, 7, 5)
    recipe = FIGURE[kind] if convolutions is basic else FIGURE[kind].replace("cnrc", "cnrcnrc", 1)
    configuration = f"{kind.__name__}, {convolutions.__name__}, {sizes[0]} to {sizes[1]} channels, stride {sizes[2]}"
    parity("PreAct ResNet, one unit", "Figure 4, step by step", configuration, unit(x), by_figure(unit, x, recipe))
    for other in set(FIGURE.values()) - {FIGURE[kind]}:
        if sorted(other.replace("|", "")) == sorted(FIGURE[kind].replace("|", "")) and convolutions is basic:
            try:
                wrong = by_figure(unit, x, other)
            except RuntimeError:  # a norm for other channels
                continue
            assert_differs(unit(x), wrong)


def test_the_shortcut_is_the_identity_unless_the_shape_changes():
    same, changed = FullPreActivation(8, 8), FullPreActivation(8, 12, 2)
    assert not same.shared
    assert changed.shared
    assert FullPreActivation(8, 8, 2).shared
    x = images(2, 8, 5, 5)
    same.double()
    assert_same(same(x) - same.residual(same.before(x)), x)


def test_a_shared_activation_begins_both_paths():
    unit, x = randomise(FullPreActivation(3, 3)), images(2, 3, 5, 5)
    apart = unit(x)
    unit.shared = True
    together = unit(x)
    assert_same(together - apart, unit.before(x) - x)
    assert_differs(together, apart)


def test_original_is_the_block_of_the_first_paper():
    block, unit, x = randomise(BasicBlock(3, 5, 2)), Original(3, 5, 2, shortcut=option_b).double(), images(2, 3, 7, 7)
    unit.load_state_dict(
        {
            "residual.0.weight": block.convs[0].weight,
            "residual.3.weight": block.convs[1].weight,
            **{f"residual.1.{name}": value for name, value in block.norms[0].state_dict().items()},
            **{f"residual.4.{name}": value for name, value in block.norms[1].state_dict().items()},
            **{f"shortcut.{name}": value for name, value in block.shortcut.state_dict().items()},
        }
    )
    assert_same(unit(x), block(x))


def test_signs():
    """What may be negative: the paper's argument against ReLU before the sum (section 4.1)."""
    x = images(4, 3, 5, 5)
    negative = {kind: (randomise(kind(3, 3))(x) - x).min() < -1e-9 for kind in FIGURE}
    assert not negative[ReLUBeforeAddition]
    assert negative[ReLUOnlyPreActivation]
    assert negative[FullPreActivation]
    assert randomise(Original(3, 3))(x).min() == randomise(NormAfterAddition(3, 3))(x).min() == 0


@pytest.mark.parametrize("kind", FIGURE)
def test_head_and_tail_complete_the_network(kind):
    """Before the first sum and behind the last everything is normalised and activated, once."""
    names = {
        part: [type(m).__name__ for m in module.modules() if not list(m.children())]
        for part, module in (("head", kind.head(4)), ("tail", kind.tail(4)))
    }
    expected = {
        ReLUOnlyPreActivation: {"head": ["BatchNorm2d"], "tail": ["ReLU"]},
        FullPreActivation: {"head": ["Identity"], "tail": ["BatchNorm2d", "ReLU"]},
    }
    assert names == expected.get(kind, {"head": ["BatchNorm2d", "ReLU"], "tail": ["Identity"]})


def test_chain():
    assert [type(m).__name__ for m in chain(basic(3, 5))] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert [type(m).__name__ for m in chain(bottleneck(3, 8), norm_last=True)][-3:] == ["ReLU", "Conv2d", "BatchNorm2d"]
    assert [len(m.gain) for m in chain(bottleneck(3, 8), norm_last=True) if hasattr(m, "gain")] == [2, 2, 8]
    assert norm_relu(3)(torch.randn(2, 3, 4, 4)).min() == 0


@pytest.mark.parametrize("kind", FIGURE)
def test_every_shortcut_fits(kind):
    assert kind(3, 5, 2, shortcut=ConvolutionShortcut)(torch.randn(2, 3, 7, 7)).shape == (2, 5, 4, 4)
    assert kind(3, 5, 2)(torch.randn(2, 3, 7, 7)).shape == (2, 5, 4, 4)


def test_a_unit_says_what_stands_where():
    with pytest.raises(NotImplementedError, match="ResidualUnit does not say what stands where"):
        ResidualUnit(3, 3)
