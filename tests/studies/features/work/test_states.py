import torch
from torch import nn

from muonlab.studies.features.work.states import LOGITS_BYTES, ROWS, Subject, hidden_states, rows, subject


def test_padding_does_not_change_what_is_probed(words):
    net = words.build(words.judged).eval()
    short = words.measured.test.first(3).inputs
    measured = subject(net, words)
    states = hidden_states(measured, short, "mean_tokens")["blocks.0"]
    for row, tokens in zip(states, short, strict=True):
        alone = tokens[tokens != 256][None]
        torch.testing.assert_close(row, hidden_states(measured, alone, "mean_tokens")["blocks.0"][0])


def test_logits_of_a_pass_stay_below_the_limit():
    assert rows(torch.empty(1, 10)) == ROWS
    few = rows(torch.empty(1, 64, 50257, device="meta"))
    assert few * 64 * 50257 * 4 <= LOGITS_BYTES < (few + 1) * 64 * 50257 * 4
    assert rows(torch.empty(1, 1024, 50257, device="meta")) == 1  # one example is the least


def test_a_pass_takes_no_more_than_its_rows_and_calls_the_net_as_it_is_told():
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Linear(3, 2)

        def forward(self, given):
            seen.append(len(given["x"]))
            return {"logits": self.block(given["x"])}

    net, inputs = Net().eval(), torch.randn(7, 3)
    measured = Subject(net, ("block",), "flatten", "flatten", call=lambda net, x: net({"x": x})["logits"], rows=3)
    states = hidden_states(measured, inputs, "flatten")["block"]
    assert seen == [3, 3, 1]
    torch.testing.assert_close(states, net.block(inputs).detach())
    torch.testing.assert_close(measured.logits(inputs), net.block(inputs))
