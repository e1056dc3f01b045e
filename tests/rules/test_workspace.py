import torch

from muonlab.rules.workspace import Workspace

LIKE = torch.zeros(1)


def test_a_name_keeps_its_memory():
    work = Workspace()
    first = work.take("A", (4, 6), LIKE)
    assert (first.shape, first.dtype, first.is_contiguous()) == ((4, 6), torch.float32, True)
    assert work.take("A", (3, 2, 4), LIKE).data_ptr() == first.data_ptr()
    assert work.take("A", (1, 5), LIKE).is_contiguous()
    assert work.num_bytes == 24 * 4


def test_more_is_given_when_more_is_asked_for():
    work = Workspace()
    work.take("A", (2, 2), LIKE)
    assert work.take("A", (50, 2), LIKE).shape == (50, 2)
    assert work.num_bytes == 100 * 4


def test_names_and_dtypes_have_memory_of_their_own():
    work = Workspace()
    taken = [work.take("A", (8,), LIKE), work.take("B", (8,), LIKE), work.take("A", (8,), LIKE, torch.bfloat16)]
    taken.append(work.take("A", (8,), LIKE.double()))
    for number, tensor in enumerate(taken):
        tensor.fill_(number)
    assert [tensor[0].item() for tensor in taken] == [0, 1, 2, 3]
    assert [tensor.dtype for tensor in taken] == [torch.float32, torch.float32, torch.bfloat16, torch.float64]
    assert work.num_bytes == 8 * (4 + 4 + 2 + 8)
