import pytest
import torch
from torch import nn

from muonlab.studies.features.work import weights

TENSORS = {
    "parameter/a": torch.arange(12.0).view(4, 3).mT,  # not contiguous
    "buffer/b": torch.tensor([1, 2, 3]),
    "state/a/momentum": torch.ones(3, 4),
    "optimizer/0/step": torch.ones(3),
}


def test_weights_come_back_as_they_were_and_nothing_else_is_kept(tmp_path):
    weights.save(tmp_path, 7, TENSORS)
    found = weights.load(tmp_path, 7)
    assert found.keys() == {"parameter/a", "buffer/b"}
    assert weights.of_member(found, 2)["a"].tolist() == [2, 5, 8, 11]
    for name, tensor in found.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert tensor.equal(TENSORS[name])
    assert [file.name for file in tmp_path.iterdir()] == ["weights-7.safetensors"]


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
