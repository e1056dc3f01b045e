import pytest
import torch

from muonlab.data.dataset import Dataset, Examples, Tensors, as_dataset
from muonlab.data.sources import DataError
from muonlab.nets.named import build


def part(number, classes=3):
    return torch.randn(number, 4), torch.arange(number) % classes


def test_the_first_examples_are_the_first_of_inputs_and_labels():
    examples = Examples(torch.arange(10).view(5, 2), torch.arange(5))
    assert examples.first(2).inputs.tolist() == [[0, 1], [2, 3]]
    assert examples.first(2).labels.tolist() == [0, 1]
    assert len(examples.first(9).labels) == 5


def test_chance_is_the_share_of_the_commonest_class_or_token():
    assert Examples(torch.zeros(4, 1), torch.tensor([0, 2, 2, 1])).chance == 0.5
    tokens = torch.tensor([[0, 1, 2], [2, 2, 3]])
    assert (Examples(tokens, tokens).chance, Examples(tokens, tokens).kind) == (0.5, "tokens")


def test_tensors_of_a_user_are_a_data_set_that_nets_are_made_for():
    data: Dataset = Tensors(part(12), part(6), part(6))  # type: ignore[arg-type]
    assert data.train.first(2).inputs.shape == (2, 4)
    assert build("mlp", data.sizes, depth=1)(data.test.inputs).shape == (6, 3)
    assert data.corrupted("none", 0, 2).labels.tolist() == [0, 1]
    tokens = torch.arange(10).view(5, 2), torch.arange(5)
    assert Tensors(tokens, tokens, tokens).sizes == {"vocabulary": 10, "classes": 5}  # type: ignore[arg-type]
    with pytest.raises(DataError, match="fog: this data set has no corruptions"):
        data.corrupted("fog", 1, 2)


def test_a_function_is_given_the_sizes_that_it_asks_for():
    data = Tensors(part(12), part(6), part(6))  # type: ignore[arg-type]
    assert build(lambda classes: torch.nn.Linear(4, classes), data.sizes).out_features == 3
    assert build(lambda **sizes: torch.nn.Linear(sizes["inputs"], 1), data.sizes).in_features == 4
    assert build(lambda: torch.nn.Linear(9, 9), data.sizes).in_features == 9


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (part(0), "the validation split has 0 inputs and 0 labels"),
        ((torch.zeros(3, 4), torch.zeros(2)), "the validation split has 3 inputs and 2 labels; expected as many"),
        ((torch.zeros(3, 5), torch.zeros(3)), r"inputs of shape \(5,\), the train split of \(4,\); expected one shape"),
    ],
)
def test_splits_that_do_not_fit_are_refused(validation, message):
    with pytest.raises(DataError, match=message):
        Tensors(part(12), validation, part(6))  # type: ignore[arg-type]


def test_what_a_function_made_is_a_data_set_or_named_with_what_was_expected():
    parts = part(12), part(6), part(6)
    data = Tensors(*parts)  # type: ignore[arg-type]
    assert as_dataset(data, "f") is data
    for made in (parts, dict(zip(("train", "validation", "test"), parts, strict=True))):
        assert as_dataset(made, "f").train.labels.equal(parts[0][1])
    for made in (parts[:2], 3, [1, 2, 3], [parts[0], parts[1], (1, 2)]):
        with pytest.raises(DataError, match=r"f returned a .*; expected a data set, or"):
            as_dataset(made, "f")
