"""A compiled function is the function, and is found again by what it depends on; without a compiler it is None."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from muonlab.train import program
from muonlab.train.program import compiled

pytestmark = pytest.mark.xdist_group("compiled")  # two processes that compile one function write the same files

SCALE = torch.tensor([1.0, 2.0, 3.0])


def function(x, y):
    return [(x * SCALE + y).tanh(), (x - y).square().sum(dim=0)]


def example(rows=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 3, generator=generator).to(dtype) for _ in range(2)]


def traced(of, arguments):
    return program.make_fx(of, tracing_mode="real")(*arguments)


@pytest.fixture
def built(compiled_programs):
    assert compiled(function, example()) is not None
    return compiled_programs


def test_it_is_the_function_on_other_values_loaded_from_disk(built, monkeypatch):
    monkeypatch.setattr(program, "_build", lambda *_: pytest.fail("compiled again"))
    found = compiled(function, example())
    x, y = (torch.full((4, 3), value) for value in (0.3, -2.0))
    for actual, expected in zip(found(x, y), function(x, y), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_its_name_follows_from_operations_constants_shapes_and_dtypes():
    arguments = example()
    name = program.key(traced(function, arguments), arguments)
    assert name == program.key(traced(function, arguments), [each + 1 for each in arguments])

    def other(x, y):
        return [(x * SCALE - y).tanh(), (x - y).square().sum(dim=0)]

    def other_constant(x, y):
        return [(x * (SCALE + 1) + y).tanh(), (x - y).square().sum(dim=0)]

    names = {name, *(program.key(traced(of, arguments), arguments) for of in (other, other_constant))}
    for others in (example(rows=5), example(dtype=torch.float64)):
        names.add(program.key(traced(function, others), others))
    assert len(names) == 5


def test_its_name_follows_from_parameters_that_it_holds_and_from_branches():
    x = [torch.ones(3)]

    def times(value):
        t = torch.nn.Parameter(torch.tensor(value), requires_grad=False)
        return lambda x: [x * t]

    def either(of):
        return lambda x: [torch.cond(x.sum() > 0, of, torch.exp, (x,))]

    functions = [times(1.0), times(5.0), either(torch.sin), either(torch.cos)]
    assert len({program.key(traced(of, x), x) for of in functions}) == 4


def test_nothing_is_left_in_the_temporary_folder(built, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(program.tempfile, "tempdir", None)
    found = compiled(function, example())
    assert list(tmp_path.iterdir()) == []
    for actual, expected in zip(found(*example()), function(*example()), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_what_a_killed_process_left_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda _, package_path: Path(package_path).touch())
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: function)
    (tmp_path / ".name.123.pt2").write_bytes(b"half")
    assert program._build(traced(function, example()), tuple(example()), tmp_path / "name.pt2") is function
    assert [path.name for path in tmp_path.iterdir()] == ["name.pt2"]


def test_a_torn_program_is_compiled_again(built, monkeypatch):
    arguments = example()
    path = built / f"{program.key(traced(function, arguments), arguments)}.pt2"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    rebuilt = []
    monkeypatch.setattr(program, "_build", lambda graph, given, at: rebuilt.append(at) or function)
    assert compiled(function, arguments) is function
    assert rebuilt == [path]
    path.write_bytes(whole)


@pytest.mark.parametrize("reason", [RuntimeError("no C++ compiler\nlong trace"), OSError("disk full"), ValueError()])
def test_what_cannot_be_compiled_stays_eager_with_one_line_of_warning(tmp_path, monkeypatch, reason):
    def failing(*_):
        raise reason

    monkeypatch.setenv("MUONLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(program, "_build", failing)
    with pytest.warns(UserWarning, match="not compiled, and so slower") as warned:
        assert compiled(function, example()) is None
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)


def test_without_a_compiler_it_stays_eager(built, tmp_path, monkeypatch):  # built: torch asks for its processor once
    monkeypatch.setenv("MUONLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    without = torch._inductor.config.patch({"cpp.cxx": ("/nowhere/c++",)})  # monkeypatch would leave no cxx behind
    with without, pytest.warns(UserWarning, match="not compiled, and so slower"):
        assert compiled(lambda x: [x.cosh() + 1], [torch.ones(3)]) is None
    assert list(tmp_path.glob("*.pt2")) == []


def test_without_a_folder_it_stays_eager_and_what_cannot_be_traced_is_named_with_what_to_write(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MUONLAB_CACHE", str(tmp_path / "file" / "programs"))
    with pytest.warns(UserWarning, match="not compiled"):
        assert compiled(function, example()) is None
    monkeypatch.setenv("MUONLAB_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match=r"takes a number out of a tensor .*in place of F.one_hot .*torch.arange"):
        assert compiled(lambda tokens: [F.one_hot(tokens, 5)], [torch.arange(5)]) is None


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("MUONLAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert program.folder() == tmp_path / "muonlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert program.folder() == tmp_path / "home" / ".cache" / "muonlab"
