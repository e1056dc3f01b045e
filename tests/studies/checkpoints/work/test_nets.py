from types import SimpleNamespace

import pytest
import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.work.nets import builder, digest, fill, is_finite, logits


def test_a_function_of_a_module_in_the_current_folder_makes_the_net(package, make_net):
    net = builder(f"{package}:build")()
    assert [each.shape for each in net.parameters()] == [each.shape for each in make_net().parameters()]
    assert isinstance(builder("torch.nn:Identity")(), nn.Identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "build",
            "net=build is not valid; expected package.module:attribute or path/file.py:attribute",
        ),
        ("no_such_package.x:build", "no_such_package.x cannot be imported .ModuleNotFoundError"),
        ("{package}:bild", "there is no 'bild' in usersnets.*did you mean 'build'"),
        ("{package}:needs", "needs width, depth; expected a function without arguments"),
        ("{package}:MODULE.x", "there is no 'MODULE'"),
        ("torch:pi", "net=torch:pi is a float; expected a function"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(package, name, message):
    with pytest.raises(DataError, match=message):
        builder(name.format(package=package))


def test_a_function_that_fails_or_makes_no_module_says_so_in_a_line(package):
    with pytest.raises(DataError, match=r"raised RuntimeError: no such width; expected a function"):
        builder(f"{package}:fails")()
    with pytest.raises(DataError, match=r"returned a int, no torch.nn.Module"):
        builder(f"{package}:nothing")()


def test_a_module_that_fails_at_import_says_why(tmp_path, package):
    (tmp_path / "usersbroken.py").write_text("raise ValueError('half done')")
    with pytest.raises(DataError, match=r"usersbroken cannot be imported \(ValueError: half done\)"):
        builder("usersbroken:build")


def test_weights_that_do_not_fit_name_five_and_count_the_others(make_net):
    net, other = make_net(), make_net(number=3)
    with pytest.raises(DataError, match=r"^w.pt: the weights do not fit the net, which has no 2.2.0.weight \(16, 16\)"):
        fill(net, other.state_dict(), "w.pt")
    with pytest.raises(DataError) as refused:
        fill(nn.Sequential(*(nn.Linear(2, 2) for _ in range(4))), {}, "w.pt")
    assert str(refused.value).count("not there") == 5
    assert str(refused.value).endswith("and 3 more")


def test_tied_weights_may_be_in_a_file_once():
    def make():
        net = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
        net["head"].weight = net["embedding"].weight
        return net

    kept = {"embedding.weight": torch.randn(5, 3)}
    net = make()
    fill(net, kept, "w")
    assert net["head"].weight.equal(kept["embedding.weight"])
    untied = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    with pytest.raises(DataError, match=r"head.weight \(5, 3\), not there"):
        fill(untied, kept, "w")


def test_weights_are_finite_or_not(make_net):
    net = make_net()
    assert is_finite(net)
    net[1].weight.data[0, 0] = torch.nan
    assert not is_finite(net)


def test_logits_are_found_in_what_nets_return():
    expected = torch.randn(2, 3)
    for output in (expected, SimpleNamespace(logits=expected), {"logits": expected}, (expected, None)):
        assert logits(output) is expected
    assert logits(expected.bfloat16()).dtype == torch.float32
    for output in (None, {"loss": expected}, torch.ones(3), ()):
        with pytest.raises(DataError, match=r"the net returned a .*expected logits"):
            logits(output)


def test_a_digest_is_that_of_the_modules_and_of_all_weights():
    def made(between: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 2), between, nn.BatchNorm1d(2)).bfloat16()

    net = made(nn.ReLU())
    assert digest(net) == digest(made(nn.ReLU()))
    assert digest(net) != digest(made(nn.Tanh()))
    net[2].num_batches_tracked += 1
    assert digest(net) != digest(made(nn.ReLU()))
