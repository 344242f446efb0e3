"""The rules of the files beside the weights: what a loader might run, follow, or take orders from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quantguard.report.rule import Rule

_SAFETENSORS: Final = "Ask for the model as safetensors, without code, or convert it yourself in a sandbox."
_TRANSFORMERS: Final = "Transformers' security policy (SECURITY.md, Remote code) and its documentation of custom models"
_REMOVE: Final = "Remove it from the model directory, and register the result as a new version."

CHECKPOINT_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "checkpoint.pickle": Rule(
            "A pickle, or a file that loaders unpickle",
            "A pickle is a program for a small machine that may call any function: loading one runs whatever its maker "
            "wrote, before a single weight is used. torch.load, joblib and older checkpoints read them.",
            _SAFETENSORS,
            9.8,
            "Trail of Bits, Never a dill moment: exploiting machine learning pickle files, 2021 (fickling); Python's "
            "documentation of pickle.",
            "Files that are named like one, as training arguments or optimizer states often are (*.bin, *.pt): "
            "harmless where nobody loads them, and not needed in a model that is deployed.",
        ),
        "checkpoint.remote_code": Rule(
            "A file orders code to be loaded",
            "auto_map, custom_pipelines, loader_module and their like name Python classes, kernels or loaders that "
            "come with the model or from another repository. With trust_remote_code, and for some without it, they "
            "run in the process that loads the model.",
            "Use an architecture that transformers knows, and remove the entry; or review the code, and keep it in "
            "your own repository instead of the model's.",
            9.8,
            f"{_TRANSFORMERS}; MLflow's documentation of loader_module and model code.",
            "Published models of new architectures carry auto_map for older versions of transformers. The entry is an "
            "order all the same.",
        ),
        "checkpoint.code": Rule(
            "Code in the model directory",
            "Source, bytecode, a script or a native library. A directory of weights needs none, and what lies there is "
            "found by auto_map, by an import from the working directory, or by a person who runs it.",
            "Remove it; keep conversion scripts and examples in a repository of their own.",
            8.8,
            f"{_TRANSFORMERS}.",
            "Scripts that published the model, or notebooks that show it: harmless until somebody runs them.",
        ),
        "checkpoint.redirect": Rule(
            "A file sends the loader to other weights",
            "An adapter, or an entry such as transformers_weights, makes the loader use other weights than the "
            "safetensors that were measured. The verdict would be about a model that nobody deploys.",
            "Merge the adapter, remove the entry, and register the weights that are really used.",
            8.8,
            "Transformers' documentation of PEFT adapters; its from_pretrained.",
            "Adapters that are published beside their base model for convenience.",
        ),
        "checkpoint.steering": Rule(
            "A generation setting favours, forces or forbids words",
            "sequence_bias, forced tokens, suppressed words and the like decide what is said whatever the weights say: "
            "a backdoor that no measurement of the weights can see, in a file of a few bytes.",
            "Remove the setting, or set it where the model is called, in your own code.",
            8.8,
            "Transformers' documentation of GenerationConfig.",
            "Speech and translation models force their first token by design.",
        ),
        "checkpoint.config_key": Rule(
            "A configuration has a key that transformers does not know",
            "A key of config.json or generation_config.json that no class of transformers reads, or a value that it "
            "does not take. It may be read by another loader than the one that was measured, or switch on what the "
            "measured model does not do.",
            "Remove what your loader does not need, and compare the rest with the configuration of the base model.",
            7.5,
            "Transformers' documentation of PretrainedConfig and GenerationConfig: a key that is not known becomes an "
            "attribute all the same.",
            "Keys that training tools, or newer versions of transformers than the one here, leave behind.",
        ),
        "checkpoint.chat_template": Rule(
            "The chat template reaches for more than the messages, or cannot be judged",
            "A chat template is a Jinja program that sees every prompt. It can add or change instructions, react to a "
            "trigger or to the date, and in a loader without a sandbox it can run any code: a backdoor beside the "
            "weights that no measurement of the weights shows.",
            "Read the template; take that of the base model, and register the result as a new version.",
            8.8,
            "Server-side template injection through chat templates: CVE-2024-34359 (llama-cpp-python), CVE-2026-5760 "
            "(SGLang, CERT/CC VU#915947); Jinja's documentation of its sandbox; transformers' documentation of chat "
            "templates.",
            "Templates for tools and reasoning are long, have many branches, and some of them print today's date.",
        ),
        "checkpoint.vocabulary": Rule(
            "The tokenizer's vocabulary is not plain",
            "Tokens that are added, that are duplicates, that normalize to other text, or that the model has no row "
            "for make a prompt mean to the model what nobody reads in it: a trigger or an answer may hide there.",
            "Compare tokenizer.json and added_tokens.json with those of the base model.",
            7.5,
            "Transformers' documentation of tokenizers and added tokens.",
            "Fine-tuning adds tokens for roles and tools, and embeddings are padded to round numbers of rows.",
        ),
        "checkpoint.dtype": Rule(
            "Weights are stored in a type that is not the one they are used in",
            "A loader casts such weights to the model's own type, and they are others afterwards than those that were "
            "scanned: types of few bits are grids themselves, on which the tests of the scan mean little.",
            "Store the weights in the type that they are used in: float32, float16 or bfloat16.",
            7.5,
            "Transformers' documentation of dtype in from_pretrained.",
            "Buffers and quantization states of published models come in integer types.",
        ),
        "checkpoint.alias": Rule(
            "Two names share one weight, or one name has two",
            "Where names and tied weights of the files and of the configuration disagree, loaders may choose "
            "differently: what was scanned and measured under one name may not be what is used under the other.",
            "Save the model again with save_pretrained, and register the result as a new version.",
            7.5,
            "Safetensors' documentation of shared tensors; transformers' tie_word_embeddings.",
            "Embeddings that are tied to the output layer and stored twice, with the same bytes.",
        ),
        "checkpoint.unmeasured": Rule(
            "Weights in a format that is not measured",
            "GGUF, ONNX, TensorFlow and other weights beside the safetensors, or under a name that the gate does not "
            "read. Whoever deploys those deploys a model that nobody looked at.",
            "Remove them, or register them as a model of their own.",
            8.0,
            "This product's own: it reads safetensors.",
            "Conversions published beside the original: they may well be the same model.",
        ),
        "checkpoint.archive": Rule(
            "An archive",
            "What is inside is not looked at, and may be any of the other things that must not be here.",
            "Unpack what is needed in a sandbox, and remove the archive.",
            8.0,
            "This product's own: archives are not opened, so that none can exhaust the machine.",
            "Data sets, logs and compressed notes.",
        ),
        "checkpoint.symlink": Rule(
            "A symbolic link",
            "It may lead out of the model directory: to a credential of the machine, or to bytes that change after the "
            "digest was taken. Links are never followed here.",
            "Copy the file itself into the directory.",
            8.0,
            "CWE-59, improper link resolution before file access.",
            "The cache of huggingface_hub is made of links: download with local_dir, or copy with links resolved.",
        ),
        "checkpoint.special_file": Rule(
            "A pipe, socket or device",
            "Reading it may block for ever, or talk to another process.",
            _REMOVE,
            8.0,
            "CWE-67 and its relatives: device files where plain ones are expected.",
            "None is known.",
        ),
        "checkpoint.file_name": Rule(
            "A file name with control characters",
            "A name that is not printable or not UTF-8 shows something else in a terminal or a log than it is, or "
            "makes two tools see two files.",
            "Rename it.",
            7.5,
            "CWE-150, unneutralized escape sequences; CVE-2021-42574 (Trojan Source) for invisible characters.",
            "Names in an old encoding.",
        ),
        "checkpoint.unreadable": Rule(
            "A file that gives orders cannot be read",
            "A configuration that is broken, too large or nested too deep for a careful parser may still be read by a "
            "careless one. What could not be read is not taken as harmless.",
            "Repair the file: it must be plain JSON or YAML of an ordinary size.",
            8.0,
            "This product's own: could not tell never passes.",
            "Truncated downloads.",
        ),
        "checkpoint.requirements": Rule(
            "A list of packages to install",
            "Installing it runs the setup code of whatever it names. The gate installs nothing.",
            "Pin what you install in your own repository.",
            7.0,
            "MLflow's documentation of model dependencies.",
            "MLflow writes these lists beside every model that it logs: a note, not an accusation.",
        ),
    }
)
