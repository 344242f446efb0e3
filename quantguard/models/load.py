"""Open a clean model directory with transformers, quantized by the real bitsandbytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from quantguard.core.errors import ModelLoadError
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.models.device import device_label, library_versions, resolve_device
from quantguard.models.foreign import said
from quantguard.models.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

    from quantguard.models.kept import KeptAnswers
    from quantguard.models.placement import Room

__all__ = ["LoadedModel", "device_label", "library_versions", "load_model", "resolve_device"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to answer, with its tokenizer (padding on the left)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    scheme: Scheme | None  # None: as stored
    device: str  # cpu or cuda:N
    chat: bool  # the tokenizer has a chat template
    kept: KeptAnswers | None = None  # its answers on disk; None: all are asked anew


def load_model(
    directory: Path,
    *,
    scheme: Scheme | None,
    device: str,
    room: Room | None = None,
    kept: KeptAnswers | None = None,
) -> LoadedModel:
    """Load the model of a directory made by `safe_directory.rebuild`, in the dtype it is stored in.

    What `kept` holds of its answers need not be asked again.

    With `room` (of `placement`) only so much of it lies on each device, and what has none stays in the files of
    `directory`, which must then outlive the model. Without, all of it lies on `device`.

    Nothing is downloaded (`local_files_only`), no code of the directory runs (`trust_remote_code=False`), no pickle is
    opened (`use_safetensors`). `device` is what `resolve_device` returned.

    Raises:
        ModelLoadError: transformers or bitsandbytes would not load it, tensors are missing or of another shape, or the
            scheme cannot be computed correctly on this device.
    """
    from quantguard.models.quantized import quantized_layers, refuse_broken_shapes, refuse_misshapen

    try:
        with quiet_libraries():
            model = _model(directory, scheme, device, room)
            tokenizer = _tokenizer(directory)
    except ModelLoadError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers' Rust code is no Exception
        message = f"cannot be loaded ({scheme_label(scheme)}, {device}): {said(error)}"
        remedy = "try transformers.AutoModelForCausalLM.from_pretrained on it, or another --device"
        raise ModelLoadError(message, path=directory, remedy=remedy) from error
    if scheme is not None:
        if not quantized_layers(model):
            message = f"bitsandbytes quantizes none of its layers ({scheme.value}): that would measure full precision"
            raise ModelLoadError(message, path=directory, remedy="its layers are fused or of a kind it does not know")
        refuse_misshapen(model)
        refuse_broken_shapes(model, scheme, device)
    return LoadedModel(model, tokenizer, scheme, device, chat=bool(tokenizer.chat_template), kept=kept)


def _model(directory: Path, scheme: Scheme | None, device: str, room: Room | None) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    dtype = config.dtype or _stored_dtype(directory)
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        message = f"dtype {dtype} is not float32, float16 or bfloat16"
        raise ModelLoadError(message, path=directory, remedy="store the weights in one of these")
    quantization = {} if scheme is None else {"quantization_config": bitsandbytes_config(scheme, dtype)}
    factory: Any = AutoModelForCausalLM  # annotated as if it returned the model alone
    model, report = factory.from_pretrained(
        directory,
        config=config,
        dtype=dtype,
        **_placed(directory, device, room),
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported, and refused below by name; else the name is only logged
        **quantization,
    )
    _refuse_incomplete(report, directory)
    model.eval()
    return model  # type: ignore[no-any-return]  # the factory is Any


def _placed(directory: Path, device: str, room: Room | None) -> dict[str, Any]:
    if room is None:
        return {"device_map": {"": device}}
    # Weights that transformers joins or splits while it loads are read from there instead of from the model's files.
    return {"device_map": "auto", "max_memory": dict(room), "offload_folder": directory / "offloaded"}


def _refuse_incomplete(report: dict[str, Any], directory: Path) -> None:
    """transformers fills what a checkpoint lacks with random numbers and only logs it."""
    missing = sorted(report["missing_keys"])
    misshapen = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in report["mismatched_keys"])
    for what, names in (("is missing", missing), ("has another shape than config.json says", misshapen)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            message = f"the weight {names[0]}{more} {what}"
            raise ModelLoadError(message, path=directory, remedy="save the model and its config.json again")


def bitsandbytes_config(scheme: Scheme, dtype: torch.dtype) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    match scheme:
        case Scheme.INT8:
            return BitsAndBytesConfig(load_in_8bit=True)
        case Scheme.FP4 | Scheme.NF4 | Scheme.FP4_DOUBLE | Scheme.NF4_DOUBLE:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=scheme.codes.value,
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_use_double_quant=scheme.double,
            )
        case _:
            assert_never(scheme)


def _stored_dtype(directory: Path) -> torch.dtype | None:
    """The dtype of the first floating tensor, as transformers' dtype="auto" takes it; None where there is none."""
    import torch
    from safetensors import safe_open

    names = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  safe_open is no mapping
                if (dtype := names.get(file.get_slice(key).get_dtype())) is not None:
                    return dtype
    return None


def _tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        directory, trust_remote_code=False, local_files_only=True, padding_side="left"
    )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            message = "the tokenizer has neither a padding nor an end-of-sequence token"
            raise ModelLoadError(message, path=directory, remedy="set eos_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
