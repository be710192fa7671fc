"""Digits: the images of scikit-learn, all of them once, in an order that the seed decides."""

import sys

import pytest
import torch
from sklearn.datasets import load_digits

from papercode.data.digits import N_TEST, digits


def test_shapes_and_scale():
    images, labels, test_images, test_labels = digits()
    assert images.shape == (1797 - N_TEST, 1, 8, 8)
    assert test_images.shape == (N_TEST, 1, 8, 8)
    assert images.dtype == test_images.dtype == torch.float32
    assert (labels.shape, test_labels.shape) == ((1437,), (360,))
    assert abs(images.mean()) < 1e-6
    assert abs(images.square().mean() - 1) < 1e-5
    assert 0 < abs(test_images.mean()) < 0.05  # by the training images' numbers, not by their own
    assert 1e-4 < abs(test_images.square().mean() - 1) < 0.05
    assert all(set(part.tolist()) == set(range(10)) for part in (labels, test_labels))


def test_every_image_is_there_once_with_its_own_label():
    images, labels, test_images, test_labels = digits(3)
    ours, ours_labels = torch.cat([images, test_images]), torch.cat([labels, test_labels])
    grey = (ours - ours.min()) / (ours.max() - ours.min()) * 16
    found = zip(map(tuple, grey.flatten(1).round().int().tolist()), ours_labels.tolist())
    pixels, true = load_digits(return_X_y=True)
    assert sorted(found) == sorted(zip(map(tuple, pixels.astype(int).tolist()), true.tolist()))


def test_the_seed_decides_the_parts():
    assert all(map(torch.equal, digits(1), digits(1)))
    assert not torch.equal(digits(1)[3], digits(2)[3])
    assert not torch.equal(digits()[3], torch.from_numpy(load_digits().target[-N_TEST:]))  # shuffled


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="needs scikit-learn: pip install scikit-learn"):
        digits()
