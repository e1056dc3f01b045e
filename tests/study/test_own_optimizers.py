import pytest

from muonlab.studies.features import plan
from muonlab.studies.features.jobs import steps, trials
from muonlab.study import optimizers
from muonlab.study.settings import UsageError

RADAM = "torch.optim:RAdam"


def study(chosen, **settings):
    return plan("tiny", {"families": "cnn", "optimizers": chosen, **settings})


def test_an_optimizer_of_a_user_s_own_is_searched_and_trained_like_any_other():
    own = study(["muon", f"r={RADAM}"], **{"r.lr": ["1e-3", "3e-3"], "r.betas": "[0.8,0.9]", "r.foreach": "false"})
    assert [arm.label for arm in own.arms] == ["muon", "r"]
    assert own.arms[1].optimizer.arguments == {"betas": [0.8, 0.9], "foreach": False}
    assert own.searches["r"].rates == (1e-3, 3e-3)
    searches = [step for step in steps(own, {}) if step.role == "search"]
    assert [(step.arm, step.config.rates) for step in searches] == [("muon", (0.003, 0.01)), ("r", (1e-3, 3e-3))]
    held = searches[1].job.config["optimizer"]
    assert (held["name"], held["call"]["name"]) == ("custom", RADAM)
    assert len(held["call"]["sha256"]) == 64
    assert list(trials(own)[0][1]["optimizers"]) == ["r"]
    assert type(own).model_validate(own.model_dump(mode="json")) == own


def test_two_variants_of_one_optimizer_are_two_arms_and_what_names_it_is_of_both():
    own = study(["a=muon", "b=muon"], **{"b.steps": 1, "muon.weight_decay": 0.3, "b.rates": ["0.1", "0.2"]})
    first, second = (arm.optimizer for arm in own.arms)
    assert [arm.name for arm in own.arms] == ["a", "b"]
    assert (first.steps, second.steps, first.weight_decay, second.weight_decay) == (None, 1, 0.3, 0.3)
    assert [own.searches[label].rates for label in "ab"] == [(0.003, 0.01), (0.1, 0.2)]


def test_labels_that_are_names_change_no_job_and_no_study_file():
    plain, labelled = study(["muon", "adamw"]), study(["muon=muon", "adamw=adamw"])
    assert [step.job.id for step in steps(plain, {})] == [step.job.id for step in steps(labelled, {})]
    assert "labels" not in plain.model_dump()


def test_without_a_label_an_optimizer_has_its_own_name():
    own = study(["muon", RADAM], **{"RAdam.rates": ["1e-3", "3e-3"]})
    assert own.arms[1].label == "RAdam"


@pytest.mark.parametrize(
    ("chosen", "settings", "message"),
    [
        (["mun"], {}, r"unknown optimizer 'mun'; did you mean 'muon'\?.*or one of your own, package.module:attribute"),
        ([f"r={RADAM}"], {}, f"r={RADAM} has no learning rates; give two or more, such as r.rates=1e-4,3e-4,1e-3"),
        ([f"r={RADAM}"], {"r.lr": ["1", "2"], "r.bets": 3}, r"unknown setting 'r.bets'; did you mean 'r.betas'\?"),
        ([f"r={RADAM}"], {"r.lr": ["1", "2"], "r.rates": ["1", "2"]}, "r.lr and r.rates are one setting"),
        ([f"cnn={RADAM}"], {}, "'cnn' cannot be a label"),
        (["a=muon", f"muon={RADAM}"], {}, "'muon' cannot be a label"),
        (["a=muon", "a=adamw"], {}, "names a twice; give each once, or variants of one optimizer with labels"),
        (["a=muon", "b=muon"], {}, "a and b are one optimizer with the same settings; give one of them a setting"),
        (["s=torch.optim:SDG"], {}, r"there is no 'SDG' in torch.optim; did you mean 'SGD'"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(chosen, settings, message):
    with pytest.raises(UsageError, match=message):
        study(chosen, **settings)


def needs(params, lr, rho):
    """Stand for an optimizer with an argument of its own."""


def rateless(params):
    """Stand for an optimizer without a learning rate."""


def test_an_optimizer_that_cannot_be_called_so_is_refused():
    with pytest.raises(UsageError, match=rf"n={__name__}:needs needs rho; give n.rho=VALUE"):
        optimizers.custom("n", f"{__name__}:needs", {})
    with pytest.raises(UsageError, match="takes no learning rate lr"):
        optimizers.custom("n", f"{__name__}:rateless", {})
    assert optimizers.custom("n", f"{__name__}:needs", {"rho": ["1"]}).arguments == {"rho": 1}


@pytest.mark.parametrize(
    ("text", "meant"),
    [("1", 1), ("1e-3", 1e-3), ("true", True), ("None", None), ("sum", "sum"), ("[0.9, 1]", [0.9, 1]), ("[2]", [2])],
)
def test_the_text_of_an_argument_is_a_number_a_word_or_a_list_in_brackets(text, meant):
    assert optimizers.value("n.rho", text) == meant


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r.betas": ["0.8", "0.9"]}, r"r.betas=0.8,0.9 is 2 values; expected one; a list .* r.betas=\[0.8,0.9\]$"),
        ({"r.betas": "0.8"}, r"r.betas=0.8 is not valid; expected a list in brackets, such as r.betas=\[0.9,0.99\]$"),
        ({"r.betas": "[0.8"}, r"r.betas=\[0.8 is not valid; expected a value, or a list in brackets"),
    ],
)
def test_a_list_that_could_be_points_of_a_sweep_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        study([f"r={RADAM}"], **{"r.lr": ["1", "2"], **settings})
