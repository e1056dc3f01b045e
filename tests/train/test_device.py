import pytest
import torch

from muonlab.train.device import check_device


def test_a_device_that_is_not_there_is_named_with_what_is(monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=mps has no float64"):
        check_device("mps")
    with pytest.raises(ValueError, match="device=tpu is not on this machine; there is cpu"):
        check_device("tpu")
