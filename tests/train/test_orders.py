import torch

from muonlab.train.orders import Orders


def test_every_seed_has_an_order_of_its_own_in_every_epoch():
    orders = Orders(7, 3, (4, 9, 4))
    assert orders(0).shape == (3, 3)
    first, second = (torch.cat([orders(2 * epoch), orders(2 * epoch + 1)], 1) for epoch in range(2))
    for rows in (*first, *second):
        assert rows.unique().numel() == 6
    assert first[0].equal(first[2])
    assert not first[0].equal(first[1])
    assert not first[0].equal(second[0])


def test_a_batch_follows_from_its_step_and_seed_alone():
    orders = Orders(7, 3, (4, 9))
    seen = [orders(step) for step in range(6)]
    for step in (5, 0, 3):
        assert Orders(7, 3, (9,))(step)[0].equal(seen[step][1])
        assert orders(step).equal(seen[step])


def test_a_batch_is_at_most_all_examples():
    orders = Orders(5, 64, (0,))
    assert orders.batch == 5
    assert orders(0)[0].sort().values.tolist() == [0, 1, 2, 3, 4]
