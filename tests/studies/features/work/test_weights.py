import pytest
import torch
from torch import nn

from muonlab.nets.resnet import ResNet
from muonlab.studies.features.work import weights

TENSORS = {
    "parameter/a": torch.arange(12.0).view(3, 4),
    "buffer/b": torch.tensor([1, 2, 3]),
    "state/a/momentum": torch.ones(3, 4),
    "optimizer/0/step": torch.ones(3),
}


def test_weights_come_back_as_they_were_and_nothing_else_is_kept(tmp_path):
    weights.save(tmp_path, 7, TENSORS)
    found = weights.load(tmp_path, 7)
    assert found.keys() == {"parameter/a", "buffer/b"}
    for name, tensor in found.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert tensor.equal(TENSORS[name])
    assert [file.name for file in tmp_path.iterdir()] == ["weights-7.safetensors"]


def test_what_is_no_contiguous_tensor_is_kept_too(tmp_path):
    turned = torch.arange(12.0).view(3, 4).mT
    weights.save(tmp_path, 0, {"parameter/a": turned})
    assert weights.load(tmp_path, 0)["parameter/a"].equal(turned)


@pytest.mark.parametrize("content", [None, b"", b"torn", 40])
def test_a_file_that_is_torn_or_missing_says_what_to_do(tmp_path, content):
    folder = tmp_path / "a1b2"
    folder.mkdir()
    weights.save(folder, 7, TENSORS)
    file = weights.path(folder, 7)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:content] if isinstance(content, int) else content)
    with pytest.raises(ValueError, match=r"weights-7\.safetensors .*move the folder a1b2 away and run again"):
        weights.load(folder, 7)


def test_a_member_has_its_own_row():
    state = weights.of_member(TENSORS, 2)
    assert state["a"].tolist() == [8, 9, 10, 11]
    assert state["b"].item() == 3


def test_running_statistics_are_kept(tmp_path):
    net, other = (ResNet(3, channels=1, image_size=8, width=4, depths=(1,), norm="batch") for _ in range(2))
    net.train()(torch.randn(6, 1, 8, 8) + 3)
    state = net.state_dict()
    names = dict(net.named_parameters())
    tensors = {f"{'parameter' if name in names else 'buffer'}/{name}": each[None] for name, each in state.items()}
    weights.save(tmp_path, 0, tensors)
    weights.put(other, weights.of_member(weights.load(tmp_path, 0), 0))
    assert any("running_mean" in name and each.abs().max() > 0.01 for name, each in state.items())
    for name, each in other.state_dict().items():
        assert each.equal(state[name]), name


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": torch.ones(2, 3)}, r"bias \(2,\), not there"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, r"weight \(2, 3\), not \(3, 2\)"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(4)}, r"no extra \(4,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(state, words):
    with pytest.raises(ValueError, match=f"the weights do not fit the net, which has {words}"):
        weights.put(nn.Linear(3, 2), state)
