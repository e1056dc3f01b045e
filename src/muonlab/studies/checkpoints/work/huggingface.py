"""Models in folders as Hugging Face's transformers saves them. Nothing is downloaded, and no code of theirs is run."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from muonlab.data.sources import DataError, package
from muonlab.jobs.files import StudyError, read_json
from muonlab.study.dotted import one_line


def load(folder: Path) -> nn.Module:
    """Return the model of a folder, in float32.

    Raises:
        DataError: transformers is not installed, does not know the architecture without code of the folder's, or the
            weights do not fit.
    """
    make, _ = _classes(folder)
    _check_numbers(folder)
    try:
        net, found = make.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, weights_only=True, output_loading_info=True
        )
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{folder}: its .bin files hold more than tensors and plain values; code in them is never run"
        ) from error
    except Exception as error:  # the package raises what it likes
        raise DataError(f"{folder} cannot be loaded by transformers: {why(error)}") from error
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"{folder}: its weights lack {', '.join(missing[:5])}{more} of {type(net).__name__}; a model without its "
            "head cannot be judged: save the whole"
        )
    return _settled(net)


def _check_numbers(folder: Path) -> None:
    """Raise DataError for weights of whole numbers of which config.json says no scale: they would be read as floats."""
    if read_json(folder / "config.json").get("quantization_config"):
        return
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as held:
            for name in held.keys():  # noqa: SIM118
                if name.endswith("weight") and held.get_slice(name).get_dtype()[0] in "IU":
                    raise DataError(
                        f"{file}: {name} is {held.get_slice(name).get_dtype()}; whole numbers without a scale are not "
                        "weights: save the model dequantised"
                    )


def untrained(folder: Path) -> nn.Module:
    """Return the model of a folder with new weights, of torch's global generator."""
    make, config = _classes(folder)
    return _settled(make(config))


def _settled(net: Any) -> nn.Module:
    if hasattr(net.config, "use_cache"):
        net.config.use_cache = False  # keys and values that only generation needs
    return net.float().eval()


def _classes(folder: Path) -> tuple[Any, Any]:
    """Return the class of the model and its config."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = package("transformers", "transformers", "a folder of Hugging Face's")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise DataError(
            f"{folder}/config.json names an architecture that transformers {transformers.__version__} does not know "
            f"without code of the folder's, which is never run ({why(error)})"
        ) from error
    names = config.architectures or []
    try:
        make = getattr(transformers, names[0], None) if names else None
    except Exception as error:  # it imports the module of the model, and all that this one imports
        raise DataError(f"transformers cannot import {names[0]}: {why(error)}") from error
    if make is None:
        raise DataError(
            f"{folder}/config.json has architectures={names}; expected the name of a class of transformers "
            f"{transformers.__version__}, such as GPT2LMHeadModel"
        )
    return make, config


def why(error: BaseException) -> str:
    """Return what an error of an import comes from at last, and what to do where that is torchvision."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    if "torchvision" not in str(error):
        return one_line(error)
    return (
        f"{one_line(error)}: the torchvision that is installed is built for another torch than {torch.__version__}; "
        "uninstall it (pip uninstall torchvision), or install the build that fits this torch"
    )


def call(net: nn.Module, inputs: Tensor, mask: Tensor | None) -> Any:
    """Return what the model makes of images, or of tokens of which a mask (B, T) says which are real."""
    if mask is None or bool(mask.all()):
        return net(inputs)
    return net(inputs, attention_mask=mask.long())


def levels(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation of each channel as preprocessor_config.json says them; None where it does not."""
    try:
        held = read_json(folder / "preprocessor_config.json")
    except (OSError, StudyError):
        return None
    found = [held.get(key) for key in ("image_mean", "image_std")]
    if not held.get("do_normalize", True) or not all(isinstance(each, list) for each in found):
        return None
    return tuple(found[0]), tuple(found[1])
