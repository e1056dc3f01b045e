"""What is measured of nets: robustness, margins and ranks of every layer, controls; against loops and libraries."""

import base64

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from muonlab.data import images
from muonlab.data.dataset import Examples, Sheet
from muonlab.jobs.files import read_json
from muonlab.measure.corrupt_images import corrupt
from muonlab.measure.margins import margins
from muonlab.stats.proportions import chance_limit
from muonlab.studies.features.config import Measure
from muonlab.studies.features.work import layers, material, measuring, weights
from muonlab.studies.features.work.layers import spectrum
from muonlab.studies.features.work.robustness import Judged, Robustness, corrupt_all, judge
from muonlab.studies.features.work.states import LOGITS_BYTES, ROWS, Subject, hidden_states, rows, subject
from nested import equal

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
    *_, order = (torch.randperm(len(part), generator=generator) for part in (split.train, split.validation, split.test))
    for severity in (2, 5):
        hits = 0
        for row in split.test[order][:60]:
            changed = corrupt(pixels[row][None], name, severity, seeds=[int(row)])
            hits += int(nets[0]((changed - train.mean()) / train.std()).argmax() == chosen.labels[row])
        assert of_state(result, "final")[0]["accuracy"][name][severity - 1] == pytest.approx(hits / 60)


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
    changed = [digits.corrupted(name, 3, 30)[0] for name in digits.judged.corruptions]
    for net, row in zip(nets, result["path"][2:], strict=True):
        assert row["clean"] == measuring.judge(subject(net, digits), clean).accuracy
        assert row["corrupted"] == pytest.approx(
            np.mean([measuring.judge(subject(net, digits), each).accuracy for each in changed])
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
    changed = [digits.corrupted(name, 3, 60)[1] for name in digits.judged.corruptions]
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
        for key, tested in (("clean", [test]), ("corrupted", changed)):
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


def test_where_there_is_nothing_to_find_nothing_is_found(result):
    found, trained = result["controls"]["shuffled_labels"], of_state(result, "final")
    limit = chance_limit(result["probe_chance"], found["num_test"], num_looks=1)
    assert found["num_test"] == 225
    assert found["test_accuracy"] < limit < trained[0]["layers"][0]["probe"]["test_accuracy"]
    assert found["below_zero"] > 0.6
    counts = [value for kind in ("raw", "centred") for value in result["controls"]["rank_one"][kind].values()]
    assert counts == pytest.approx([1.0] * len(counts), abs=1e-4)
    limit = chance_limit(result["chance"], 60, num_looks=2)
    for own, untrained in zip(trained, of_state(result, "untrained"), strict=True):
        assert untrained["clean_accuracy"] <= limit < own["clean_accuracy"]


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


# -- several nets at once, and parts of the measures -------------------------------------------------


@pytest.fixture(scope="module")
def subjects(digits):
    """Three nets of other weights, untrained."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = digits.build(digits.judged).eval()
        found.append(subject(net, digits))
    return found


@pytest.fixture(scope="module")
def states(subjects, digits, few):
    return [each.states for each in corrupt_all(subjects, digits, few)]


@pytest.mark.kernels
def test_the_rows_of_a_net_are_those_that_it_has_alone(subjects, states, digits, few):
    # To what a fit leaves open, which rounding may use up (tests/measure/test_probes.py).
    together = layers.layers(subjects, digits.measured, states, few, by_example=True)
    for k, measured in enumerate(subjects):
        (alone,) = layers.layers([measured], digits.measured, [states[k]], few, by_example=True)
        equal(alone, together[k], rel=layers.TOLERANCE, abs=layers.TOLERANCE)


def test_only_what_is_asked_for_is_measured(subjects, digits, few, states):
    ((row,),) = layers.layers(subjects[:1], digits.measured, [], few, measures=["rank"])
    assert row.keys() == {"tap", "width", "num_examples", "raw", "centred", "effective_rank_interval"}
    ((other,),) = layers.layers(subjects[:1], digits.measured, states[:1], few, measures=["margins"])
    assert other.keys() == {"tap", "probe", "margins"}
    ((both,),) = layers.layers(subjects[:1], digits.measured, states[:1], few)
    assert both == row | other


def test_margins_of_examples_average_to_the_mean(subjects, states, digits, few):
    for (row,) in layers.layers(subjects, digits.measured, states, few, by_example=True):
        for kind in ("by_norm", "raw"):
            listed = row["margins_by_example"][kind]
            assert len(listed) == 60
            assert sum(listed) / 60 == pytest.approx(row["margins"]["clean"][kind]["mean"], rel=1e-12)


def test_a_probe_that_is_zero_has_raw_margins_alone(subjects):
    found = margins(torch.tensor([[[0.5, 0.2], [0.5, 0.2]]]), torch.tensor([0, 1]), torch.zeros(1, 2, 3))
    (row,) = layers.summaries(found)
    assert row["by_norm"]["mean"] is None
    assert row["raw"]["mean"] == pytest.approx(0, abs=1e-7)


def test_the_rank_of_wide_hidden_states_has_about_the_same_interval_by_the_jackknife(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 16, generator=generator) * torch.linspace(0.2, 2, 16)
    low, high = layers.spectrum(hidden)["effective_rank_interval"]
    monkeypatch.setattr(layers, "BOOTSTRAPPED", 8)
    found = layers.spectrum(hidden)
    assert found["effective_rank_interval"] != [low, high]
    # The bootstrap's interval is not around the value: resampled examples repeat, which lowers ranks.
    width = found["effective_rank_interval"][1] - found["effective_rank_interval"][0]
    assert width == pytest.approx(high - low, rel=0.35)
    middle = sum(found["effective_rank_interval"]) / 2
    assert middle == pytest.approx(found["raw"]["effective_rank"], rel=1e-9)


def test_only_the_controls_of_what_is_measured_are_made(subjects, digits, few):
    found = layers.controls(subjects[0], digits.measured, few)
    for measure, key in (("rank", "rank_one"), ("margins", "shuffled_labels")):
        own = layers.controls(subjects[0], digits.measured, few, [measure])
        assert own == {"tap": "blocks.0", key: found[key]}


def test_loss_and_hits_of_tokens_are_means_over_the_tokens_of_an_example():
    table = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2], [3, 3, 3], [1, 0, 1], [2, 2, 2]])
    net = nn.Embedding(5, 4, _weight=table)
    inputs = torch.arange(12).view(4, 3) % 5
    found = judge(Subject(net, (), "", "", rows=3), Examples(inputs, labels))
    logits = table[inputs].double()
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item())
    torch.testing.assert_close(found.hits, (logits.argmax(-1) == labels).double().mean(1))
    assert found.accuracy == pytest.approx((logits.argmax(-1) == labels).double().mean().item())


def test_examples_average_to_the_accuracies(subjects, digits, few):
    (found,) = corrupt_all(subjects[:1], digits, few)
    row, by_example = found.row(), found.by_example()
    assert len(by_example["clean_by_example"]) == len(by_example["corrupted_by_example"]) == 60
    assert np.mean(by_example["clean_by_example"]) == pytest.approx(row["clean_accuracy"])
    assert np.mean(by_example["corrupted_by_example"]) == pytest.approx(np.mean(list(row["accuracy"].values())))


def test_a_place_that_a_corruption_leaves_out_is_averaged_over_the_others():
    full, short = Judged(0.0, torch.tensor([1.0, 0.0, 1.0])), Judged(0.0, torch.tensor([0.0, 1.0]))
    found = Robustness(full, {"drop": [short], "case": [full]}).by_example()
    assert found["corrupted_by_example"] == [0.5, 0.5, 1.0]


def test_hidden_states_are_kept_at_the_margins_severity_alone_and_if_asked_for(subjects, digits, few):
    one_severity = few.model_copy(update={"margin_severity": 2})
    steps = []
    (found,) = corrupt_all(subjects[:1], digits, one_severity, severities=(), advance=steps.append)
    assert found.corrupted == {}
    assert len(steps) == len(found.states["blocks.0"]) == 15
    (other,) = corrupt_all(subjects[:1], digits, one_severity, severities=(2,), keep_states=False)
    assert other.states == {}
    assert list(map(len, other.corrupted.values())) == [1] * 15


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
