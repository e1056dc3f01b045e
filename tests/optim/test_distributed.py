import pytest

from optim.ranks import check_cases


@pytest.mark.parametrize(("num_ranks", "num_cases"), [(2, 17), (4, 21)])
def test_muon_over_ranks(num_ranks, num_cases, tmp_path):
    check_cases("distributed_muon", num_ranks, tmp_path, num_cases)
