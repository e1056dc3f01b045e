"""The data sets of a family: for pretraining, probes, transfer and corruptions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from muonlab.data import images, text
from muonlab.data.dataset import DATA_SEED, Dataset, Examples
from muonlab.data.examples import LIMITS, adapted
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.sources import DataError
from muonlab.data.text_datasets import PassageDataset, TextDataset
from muonlab.data.tokens import build as build_tokenizer
from muonlab.nets import named
from muonlab.studies.features.config import Family, ImageData, Net, OwnNet, TextData, ViTConfig
from muonlab.studies.work import own_nets


@dataclass(frozen=True, eq=False)
class Material:
    """The data sets of a study of features, and its net."""

    judged: Dataset  # what nets answer, and are pretrained on
    probed: Dataset | None  # labelled examples whose hidden states are probed; windows of a text have no labels
    transfers: Mapping[str, Dataset] = field(default_factory=dict)  # what is learnt after: "classes", "language"
    notes: tuple[str, ...] = ()  # for the report: what was read, and what was left out
    # How states become one vector per example, of `muonlab.measure.features`; None goes by their shapes.
    pool: str | None = None
    rank_pool: str | None = None  # the same for the states whose rank is measured
    net: Net | None = None  # the architecture, where the data come with one
    classes: tuple[str, ...] | None = None  # in the order of the outputs that any net must have, if there is one
    vocabulary: int | None = None  # token ids, padding left out, that any net must have; None likewise
    adapted: tuple[str, ...] = ()  # limits of a preset that the data do not reach, a sentence each; in notes, too

    def build(self, data: Dataset) -> nn.Module:
        """Return the net for one of the data sets, with weights of torch's global generator."""
        assert self.net is not None
        if isinstance(self.net, OwnNet):
            return own_net(self.net, data)
        return named.build(self.net.kind, data.sizes, **self.net.model_dump(exclude={"kind"}))

    def builder(self, data: Dataset) -> partial[nn.Module]:
        """Return the function that builds the net for a data set."""
        return partial(self.build, data)

    def head(self, data: Dataset) -> str:
        """Return the name of what gives the logits: `head`, or the last module with parameters of a user's own net."""
        if not isinstance(self.net, OwnNet):
            return "head"
        names = [name for name, module in self.build(data).named_modules() if [*module.parameters(recurse=False)]]
        return "head" if any(name.split(".")[0] == "head" for name in names) else names[-1]

    @property
    def measured(self) -> Dataset:
        """The data whose states are measured: what is probed; of a text alone its windows, for ranks."""
        return self.probed or self.judged

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Examples, Examples]:
        """Return the first test examples of what is judged, and of what is measured, under a corruption."""
        judged = self.judged.corrupted(name, severity, number)
        is_one = self.measured is self.judged
        return judged, judged if is_one else self.measured.corrupted(name, severity, number)


EXACT = (*LIMITS, "transfer_per_class")


def read(family: Family, exact: Collection[str] = EXACT) -> Material:
    """Return what the nets of a family are trained, probed and corrupted on.

    Args:
        family: net and data.
        exact: which limits on examples per class must be met; the others are upper bounds.

    Raises:
        DataError: what is wrong with the files or the choice of classes.
    """
    if family.data.kind == "images":
        return _images(family.net, family.data, exact)
    return _texts(family.net, family.data, exact)


def own_net(net: OwnNet, data: Dataset) -> nn.Module:
    """Return a user's own net for a data set, with weights of torch's global generator.

    Raises:
        ValueError: its function lacks an argument, raises, or returns no net.
    """
    sizes = dict(data.sizes)
    if "vocabulary" in sizes:
        sizes = {"classes": None, "padding": None, **sizes}  # none where the next token is predicted
    return own_nets.build(net.call, sizes, net.arguments)


def _images(net: Net, data: ImageData, exact: Collection[str]) -> Material:
    """Half of the classes to pretrain on and to be probed with, the other half to transfer to.

    Images are standardised by mean and deviation of the channels of the pretraining images, downstream too, as the
    pretrained weights expect it. They are corrupted before.
    """
    given = (data.classes or (), data.transfer_classes or ())
    whole = images.load(
        data.source,
        test=data.test,
        size=data.size,
        # Every class once; a limit applies to each.
        classes=tuple(dict.fromkeys(given[0] + given[1])) if all(given) else None,
        per_class=data.per_class,
        test_per_class=data.test_per_class,
        seed=DATA_SEED,
        exact=exact,
    )
    names = whole.classes
    if not any(given) and len(names) < 4:
        raise DataError(
            f"{data.source} has {len(names)} classes; expected 4 or more, as half of them are pretrained on and the "
            "others transferred to; give images of more classes"
        )
    own = given[0] or (tuple(name for name in names if name not in given[1]) if given[1] else names[: len(names) // 2])
    others = given[1] or tuple(name for name in names if name not in own)
    if both := sorted({*own} & {*others}):
        raise DataError(f"classes and transfer_classes both have {', '.join(both)}; give a class to one of them")
    dataset = partial(ImageDataset, validation=data.validation, test_share=data.test_share)
    pretrained_on = dataset(images.subset(whole, classes=own))
    # With a test set the limit is on all that is outside of it; without one on what is trained on.
    limit, has_test = data.transfer_per_class, bool(whole.is_test.any())
    is_exact = "transfer_per_class" in exact
    of_transfer = {"per_class": limit if has_test else None, "exact": ("per_class",) if is_exact else ()}
    chosen = images.subset(whole, classes=others, seed=DATA_SEED, **of_transfer)
    named_limit = None if limit is None else ("transfer_per_class", limit)
    other = dataset(chosen, scaling=pretrained_on, limit=named_limit, is_exact=is_exact)
    pool: str | None = "mean_pixels"
    if isinstance(net, ViTConfig):
        pool = "cls" if net.pooling == "class" else "mean_tokens"
    elif isinstance(net, OwnNet):
        pool = None
    said = adapted(whole, "images.", data.model_dump(include={*LIMITS}))
    notes = (str(whole), f"pretrained on {', '.join(own)}; transferred to {', '.join(others)}", *said)
    return Material(pretrained_on, pretrained_on, {"classes": other}, notes, pool, pool, net, adapted=tuple(said))


def _texts(net: Net, data: TextData, exact: Collection[str]) -> Material:
    """A text to pretrain a language model on, another to transfer to, and labelled texts to probe and transfer to."""
    encoder = build_tokenizer(data.tokenizer, ())
    own, other = (
        TextDataset(text.language(source, limit=limit), data.length, encoder)
        for source, limit in ((data.source, data.limit), (data.transfer_source, data.transfer_limit))
    )
    named = data.examples != "packages"  # those have no columns
    passages = text.examples(
        data.examples,
        test=data.examples_test,
        text_column=data.text_column if named else None,
        label_column=data.label_column if named else None,
        per_class=data.per_class,
        test_per_class=data.test_per_class,
        seed=DATA_SEED,
        exact=exact,
    )
    said = adapted(passages, "text.", data.model_dump(include={*LIMITS}))
    labelled = PassageDataset(passages, data.length, encoder)
    overlap = "; some of these passages may stand in the text pretrained on, for every optimizer alike"
    is_inside = (data.source, data.examples) == ("sources", "packages")
    notes = (
        f"pretrained on {own}",
        f"transferred to {other}",
        f"probed with, and transferred to, {labelled}" + overlap * is_inside,
        *said,
    )
    transfers = {"classes": labelled, "language": other}
    pools = (None, None) if isinstance(net, OwnNet) else ("mean_tokens", "last_token")
    return Material(own, labelled, transfers, notes, *pools, net, adapted=tuple(said))
