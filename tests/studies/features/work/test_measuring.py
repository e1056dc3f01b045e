import base64

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from muonlab.data import images
from muonlab.data.dataset import Sheet
from muonlab.jobs.files import read_json
from muonlab.measure.corrupt_images import corrupt
from muonlab.stats.proportions import chance_limit
from muonlab.studies.features.config import Measure
from muonlab.studies.features.work import material, measuring, weights
from muonlab.studies.features.work.layers import spectrum
from muonlab.studies.features.work.states import subject

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def make(make_family, make_state, pretrained, few):
    """A function that makes a measuring job of the pretrained digits; keywords replace fields."""

    def make(**fields):
        states = (make_state(), make_state("untrained", steps=(0, 0)))
        own = {"family": make_family(), "weights": pretrained.name, "seeds": SEEDS, "measuring": few}
        return Measure(**own | {"states": states, "looks": (0, 40)} | fields)

    return make


@pytest.fixture(scope="module")
def result(make, run, pretrained):
    """What was measured, with the controls."""
    return run(make(control=True), pretrained.parent / "measured")


@pytest.fixture(scope="module")
def nets(digits, pretrained, make_state):
    """The nets of the first state."""
    models = weights.load_models([make_state()], SEEDS, pretrained, digits.builder(digits.judged))
    return [model.net for model in models]


def hidden(net, inputs):
    """Return the states of the one block, the mean over their pixels."""
    seen = []
    handle = net.blocks[0].register_forward_hook(lambda module, taken, output: seen.append(output))
    with torch.no_grad():
        net(inputs)
    handle.remove()
    return seen[0].mean((2, 3))


def of_state(result, name):
    return [model for model in result["models"] if model["state"] == name]


# -- which weights ---------------------------------------------------------------------------------


def test_every_seed_of_every_state_is_measured_with_every_tap(result):
    found = [(model["state"], model["seed"], model["step"]) for model in result["models"]]
    assert found == [("final", 0, 40), ("final", 1, 40), ("untrained", 0, 0), ("untrained", 1, 0)]
    for model in result["models"]:
        assert [layer["tap"] for layer in model["layers"]] == ["blocks.0"]
        assert list(model["accuracy"]) == result["corruptions"]
        assert {len(severities) for severities in model["accuracy"].values()} == {5}


def test_a_state_has_for_each_seed_the_weights_of_its_own_step(digits, make_state, pretrained):
    state = make_state("matched", seeds=(1, 0), steps=(0, 40))
    first, second = weights.load_models([state], SEEDS, pretrained, digits.builder(digits.judged))
    assert [(model.seed, model.step) for model in (first, second)] == [(1, 0), (0, 40)]
    for model, member in ((first, 1), (second, 0)):
        kept = weights.load(pretrained, model.step)
        for name, each in model.net.named_parameters():
            assert each.equal(kept[f"parameter/{name}"][member]), name
        assert not model.net.training


def test_weights_of_another_net_are_refused_by_name(make, make_family, run, tmp_path, pretrained):
    place = pretrained.parent / "refused"
    with pytest.raises(ValueError, match=r"do not fit the net, which has stem.weight \(16, 1, 3, 3\), not \(8, 1, 3"):
        run(make(family=make_family(net={"width": 16})), place)
    with pytest.raises(ValueError, match=r"blocks.1.conv1.weight .*, not there"):
        run(make(family=make_family(net={"depths": (2,)})), place)
    assert not (place / "result.json").exists()


# -- robustness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["contrast", "gaussian_noise"])
def test_accuracy_under_a_corruption_is_that_of_a_plain_loop(result, nets, name):
    # The same test images, from scikit-learn's digits by hand, up to the random order in which they are taken.
    chosen = images.subset(images.digits(), classes=range(5))
    split = images.split(chosen, validation=0.15, test=0.25, seed=0)
    pixels = chosen.images.float() / 255
    train = pixels[split.train]
    generator = torch.Generator().manual_seed(0)
    for rows in (split.train, split.validation, split.test):
        order = torch.randperm(len(rows), generator=generator)
    rows = split.test[order][:60]
    for net, model in zip(nets, of_state(result, "final"), strict=True):
        for severity in range(1, 6):
            hits = 0
            for row in rows:
                spoilt = corrupt(pixels[row][None], name, severity, seeds=[int(row)])
                hits += int(net((spoilt - train.mean()) / train.std()).argmax() == chosen.labels[row])
            assert model["accuracy"][name][severity - 1] == pytest.approx(hits / 60)


def test_clean_loss_and_accuracy_are_those_of_the_test_set(result, nets, digits):
    test = digits.judged.test.first(60)
    for net, model in zip(nets, of_state(result, "final"), strict=True):
        logits = net(test.inputs)
        assert model["clean_loss"] == pytest.approx(nn.functional.cross_entropy(logits, test.labels).item(), rel=1e-5)
        assert model["clean_accuracy"] == pytest.approx((logits.argmax(1) == test.labels).double().mean().item())
    assert (result["num_examples"], result["num_probe_test"], result["num_probe_train"]) == (60, 60, 150)


def test_the_path_has_clean_and_corrupted_accuracy_of_every_seed_at_every_look(result, nets, digits):
    assert [(row["step"], row["seed"]) for row in result["path"]] == [(0, 0), (0, 1), (40, 0), (40, 1)]
    clean = digits.judged.test.first(30)
    spoilt = [digits.corrupted(name, 3, 30)[0] for name in digits.judged.corruptions]
    for net, row in zip(nets, result["path"][2:], strict=True):
        assert row["clean"] == measuring.judge(subject(net, digits), clean).accuracy
        assert row["corrupted"] == pytest.approx(
            np.mean([measuring.judge(subject(net, digits), each).accuracy for each in spoilt])
        )
    assert result["path"][0]["clean"] < result["path"][2]["clean"]


# -- layers ----------------------------------------------------------------------------------------


def test_ranks_are_those_of_numpys_singular_values(result, nets, digits):
    inputs = digits.measured.test.inputs[:60]
    for net, model in zip(nets, of_state(result, "final"), strict=True):
        states = hidden(net, inputs).double().numpy()
        (layer,) = model["layers"]
        assert (layer["num_examples"], layer["width"]) == (60, 8)
        for key, matrix in (("raw", states), ("centred", states - states.mean(0))):
            sigma = np.linalg.svd(matrix, compute_uv=False)
            energy, share = sigma**2 / (sigma**2).sum(), sigma / sigma.sum()
            assert layer[key]["effective_rank"] == pytest.approx(np.exp(-(energy * np.log(energy)).sum()), rel=1e-5)
            assert layer[key]["effective_rank_sigma"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
            assert layer[key]["stable_rank"] == pytest.approx(1 / energy[0], rel=1e-5)
            assert layer[key]["participation_ratio"] == pytest.approx(1 / (energy**2).sum(), rel=1e-5)
        lower, upper = layer["effective_rank_interval"]
        assert lower < upper


def test_probes_and_margins_are_those_of_scikit_learn(result, nets, digits):
    probing = digits.measured
    train, validation, test = probing.train.first(150), probing.validation.first(60), probing.test.first(60)
    spoilt = [digits.corrupted(name, 3, 60)[1] for name in digits.judged.corruptions]
    for net, model in zip(nets, of_state(result, "final"), strict=True):
        (layer,) = model["layers"]
        states = hidden(net, train.inputs).double().numpy()
        mean, scale = states.mean(0), states.std(0)
        fitted = LogisticRegression(C=layer["probe"]["strength"], max_iter=1000, tol=1e-6)
        fitted.fit((states - mean) / scale, train.labels.numpy())

        def logits(part, net=net, mean=mean, scale=scale, fitted=fitted):
            return fitted.decision_function((hidden(net, part.inputs).double().numpy() - mean) / scale)

        for name, part in (("validation_accuracy", validation), ("test_accuracy", test)):
            accuracy = np.mean(logits(part).argmax(1) == part.labels.numpy())
            assert layer["probe"][name] == pytest.approx(accuracy, abs=0.02)  # one of 60
        for key, tested in (("clean", [test]), ("corrupted", spoilt)):
            raw = np.array(
                [
                    own[label] - max(np.delete(own, label))
                    for part in tested
                    for own, label in zip(logits(part), part.labels.tolist(), strict=True)
                ]
            )
            found, norm = layer["margins"][key], np.linalg.norm(fitted.coef_)
            assert found["raw"]["mean"] == pytest.approx(raw.mean(), rel=0.03, abs=0.02)
            assert found["by_norm"]["mean"] == pytest.approx(raw.mean() / norm, rel=0.03, abs=0.005)
            assert found["by_norm"]["median"] == pytest.approx(np.median(raw) / norm, rel=0.1, abs=0.01)
            assert found["below_zero"] == pytest.approx(np.mean(raw < 0), abs=0.02)
            lower, upper = found["raw"]["mean_interval"]
            assert lower < found["raw"]["mean"] < upper


def test_a_layer_that_is_dead_has_no_margins_and_is_a_result(make, make_state, run, tmp_path, pretrained):
    (tmp_path / "dead").mkdir()
    weights.save(tmp_path / "dead", 0, {name: 0 * each for name, each in weights.load(pretrained, 40).items()})
    result = run(make(weights="dead", states=(make_state(seeds=(0,), steps=(0,)),), looks=(0,)), tmp_path / "measured")
    (layer,) = result["models"][0]["layers"]
    assert layer["raw"]["effective_rank"] == 0
    for side in ("clean", "corrupted"):
        assert layer["margins"][side]["by_distance"]["mean"] is None
        assert layer["margins"][side]["by_norm"]["median_interval"] is None
        assert layer["margins"][side]["raw"]["mean"] < 0 < layer["margins"][side]["below_zero"]
    assert read_json(tmp_path / "measured" / "result.json") == result


# -- controls --------------------------------------------------------------------------------------


def test_shuffled_labels_are_not_found(result):
    found = result["controls"]["shuffled_labels"]
    limit = chance_limit(result["probe_chance"], found["num_test"], num_looks=1)
    assert found["num_test"] == 225
    assert found["test_accuracy"] < limit < of_state(result, "final")[0]["layers"][0]["probe"]["test_accuracy"]
    assert found["below_zero"] > 0.6


def test_a_representation_of_rank_one_has_rank_one_by_every_count(result):
    found = result["controls"]["rank_one"]
    for kind in ("raw", "centred"):
        for count, value in found[kind].items():
            assert value == pytest.approx(1, abs=1e-4), (kind, count)
    for model in result["models"]:
        assert model["layers"][0]["raw"]["numerical_rank"] > 1


def test_untrained_weights_guess(result):
    limit = chance_limit(result["chance"], 60, num_looks=2)
    for trained, untrained in zip(of_state(result, "final"), of_state(result, "untrained"), strict=True):
        assert untrained["clean_accuracy"] <= limit < trained["clean_accuracy"]


def test_without_control_there_are_none(make, run, tmp_path, pretrained, make_state):
    seen = []
    states = (make_state(seeds=(1,), steps=(40,)),)
    result = run(make(states=states, looks=(40,)), pretrained.parent / "plain", report=seen.append)
    assert not {"controls", "sheet"} & result.keys()
    assert [event["step"] for event in seen] == sorted(event["step"] for event in seen)
    assert seen[-1]["step"] == seen[-1]["budget"]


# -- text ------------------------------------------------------------------------------------------


def test_a_language_model_is_measured_on_next_tokens_and_probed_on_classes(
    make, make_family, make_pretrain, make_state, few, run, tmp_path
):
    family = make_family("gpt", net={"depth": 2})
    run(make_pretrain(family, seeds=(4,)), tmp_path / "text")
    state = make_state(seeds=(4,), steps=(6,))
    less = few.model_copy(update={"examples": 10, "path_examples": 5})
    config = make(family=family, weights="text", seeds=(4,), states=(state,), looks=(6,), measuring=less, control=True)
    result = run(config, tmp_path / "measured")
    (model,) = result["models"]
    found = material.read(family)
    (net,) = (each.net for each in weights.load_models([state], (4,), tmp_path / "text", found.builder(found.judged)))
    windows, _ = found.corrupted("drop", 2, 10)
    hits = (net(windows.inputs).argmax(-1) == windows.labels).double().mean().item()
    assert model["accuracy"]["drop"][1] == pytest.approx(hits)
    assert [layer["tap"] for layer in model["layers"]] == ["blocks.0", "blocks.1"]
    # Ranks are those of the last token that is real.
    tested = found.measured.test.first(10).inputs
    seen = []
    net.get_submodule("blocks.1").register_forward_hook(lambda module, taken, output: seen.append(output))
    net(tested)
    last = torch.stack([own[tokens.ne(256).sum() - 1] for own, tokens in zip(seen[0], tested, strict=True)])
    expected = spectrum(last.detach())
    assert model["layers"][1]["raw"] == pytest.approx(expected["raw"], rel=1e-6)
    assert len(result["sheet"]["lines"]) == 10
    assert result["controls"]["tap"] == "blocks.1"


# -- sheets ------------------------------------------------------------------------------------------


def test_a_picture_is_its_bytes_row_by_row():
    picture = torch.linspace(0, 1, 12).view(3, 2, 2)
    found = measuring.sheet(Sheet(("a",), ("0",), picture=picture))
    assert (found["width"], found["height"], found["channels"]) == (2, 2, 3)
    expected = bytes((picture.permute(1, 2, 0) * 255).round().byte().flatten().tolist())
    assert base64.b64decode(found["pixels"]) == expected
