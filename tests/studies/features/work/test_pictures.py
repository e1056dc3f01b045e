import torch

from muonlab.data import images
from muonlab.studies.features.work.pictures import Pictures


def test_a_scaling_that_is_given_is_used():
    digits = images.subset(images.digits(), classes=range(3))
    shares = {"validation": 0.2, "test_share": 0.2}
    own = Pictures(digits, **shares)
    other = Pictures(digits, **shares, scaling=(torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.25)))
    train = own.sets().train.inputs
    assert abs(train.mean()) < 1e-5
    assert abs(train.std() - 1) < 1e-5
    torch.testing.assert_close(other.sets().train.inputs, (own.parts[0].pixels - 0.5) / 0.25)
    torch.testing.assert_close(other.corrupted("fog", 0, 5).inputs, other.sets().test.inputs[:5])
