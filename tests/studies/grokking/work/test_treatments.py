import torch

from matrices import draw
from muonlab.nets.transformer import Transformer
from muonlab.rules import adamw, muon, sgd
from muonlab.rules.polar import orthogonalize
from muonlab.studies.grokking.config import AdamWConfig, MuonConfig, SGDConfig
from muonlab.studies.grokking.work.treatments import treatments

NET = Transformer(9, 7, depth=1, width=16, heads=2, ff_width=16)


def rules(config) -> dict[str, object]:
    return {name: treatment.rule for name, treatment in treatments(NET, config).items()}


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest_with_a_rate_of_its_own():
    found = treatments(NET, MuonConfig(lr=0.03, adamw_lr=0.002, adamw_beta2=0.9))
    assert found["blocks.0.attention.query.weight"].rule is muon
    assert found["blocks.0.attention.query.weight"].hyper["lr"] == 0.03
    for name in ("embedding.weight", "head.weight", "norm.weight", "blocks.0.attention_norm.weight"):
        assert found[name].rule is adamw
        assert found[name].hyper == {"lr": 0.002, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8}


def test_what_muon_takes_can_be_chosen():
    assert rules(MuonConfig(takes="hidden+head"))["head.weight"] is muon
    assert rules(MuonConfig(takes="hidden+embedding"))["embedding.weight"] is muon
    assert set(rules(MuonConfig(takes="matrices")).values()) == {muon, adamw}


def test_the_others_take_everything():
    assert set(rules(AdamWConfig()).values()) == {adamw}
    assert set(rules(SGDConfig()).values()) == {sgd}


def test_every_field_reaches_its_rule():
    parameter = torch.ones(16, 16)
    for config in (
        MuonConfig(orthogonalize=False, polar_dtype="bfloat16", steps=3, scale=False, nesterov=False),
        AdamWConfig(),
        SGDConfig(nesterov=True),
    ):
        treatment = treatments(NET, config)["blocks.0.attention.query.weight"]
        fields = {name for name in type(config).model_fields if name != "name" and not name.startswith("adamw_")}
        renamed = {"orthogonalize": "is_orthogonal", "scale": "adjust_lr_fn", "takes": None}
        expected = {renamed.get(name, name) for name in fields} - {None}
        assert set(treatment.hyper) == expected
        treatment.rule.update(parameter, treatment.rule.init(parameter), parameter, **treatment.hyper)


def test_the_dtype_of_the_iteration_follows_the_parameters_unless_named():
    name = "blocks.0.attention.query.weight"
    assert treatments(NET, MuonConfig())[name].hyper["polar_dtype"] is None
    assert treatments(NET, MuonConfig(polar_dtype="bfloat16"))[name].hyper["polar_dtype"] is torch.bfloat16


def test_without_the_scale_the_learning_rate_is_that_of_every_shape():
    name = "blocks.0.attention.query.weight"
    assert treatments(NET, MuonConfig())[name].hyper["adjust_lr_fn"] == "original"
    assert treatments(NET, MuonConfig(scale=False))[name].hyper["adjust_lr_fn"] == "none"


def test_muon_iterates_as_the_study_did_whatever_other_methods_there_are():
    p = draw(3, 8, 16, dtype=torch.float32)
    treatment = treatments(NET, MuonConfig(lr=1.0, weight_decay=0.0, scale=False))["blocks.0.attention.query.weight"]
    new_p, _ = muon.update(p, muon.init(p), torch.zeros_like(p), **treatment.hyper)
    expected = -orthogonalize((0.95 * 0.05 + 0.05) * p, "quintic", steps=5)
    torch.testing.assert_close(new_p, expected, rtol=0, atol=1e-5)
