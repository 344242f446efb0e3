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
            "A configuration has a key that nobody knows",
            "A key of config.json or generation_config.json, at any depth, that no configuration of transformers and "
            "none of the programs around it knows. transformers keeps it as an attribute and ignores it; another "
            "loader, or a later version, may obey it, and a reader may take it for the key that decides.",
            "Remove the key, or correct it where it is misspelt; compare the rest with the base model's configuration.",
            7.5,
            "Transformers' documentation of PretrainedConfig and GenerationConfig: a key that is not known becomes an "
            "attribute all the same. Known are the words of the transformers installed here, and a list of those that "
            "published models carry (quantguard/checkpoint/*_words.json).",
            "Keys of an architecture that is newer than the list, or that a tool of your own leaves behind. Only names "
            "are judged here, not values.",
        ),
        "checkpoint.chat_template": Rule(
            "The chat template reaches for more than the messages, or cannot be judged",
            "A chat template is a Jinja program that runs at every request, in a loader without a sandbox with all the "
            "rights of its process. It is judged by its syntax tree and never rendered. Refused are other templates, "
            "names that begin with an underscore or are put together, functions, methods and filters that no published "
            "template needs, numbers and repetitions without bound, more than 64 KiB, and what does not parse.",
            "Take the template of the base model, or rewrite it with what published ones use, and register the result "
            "as a new version.",
            8.8,
            "Server-side template injection through chat templates: CVE-2024-34359 (llama-cpp-python), CVE-2026-5760 "
            "(SGLang, CERT/CC VU#915947); Jinja's documentation of its sandbox; transformers' documentation of chat "
            "templates.",
            "A template that needs a function or filter which none had so far. Which words a template adds to the "
            "conversation is not judged here: that is measured with the model.",
        ),
        "checkpoint.vocabulary": Rule(
            "The vocabulary does not match the weights, the configuration, or itself",
            "The embedding has other rows than vocab_size says; a token has an id beyond them, which ends the process "
            "that embeds it; or tokenizer.json, vocab.json, added_tokens.json and tokenizer_config.json give one id "
            "two texts, or one text two ids. Two loaders then read one prompt as different words, and what was "
            "measured is not what runs.",
            "Save the model and its tokenizer again with save_pretrained, and compare both with those of the base "
            "model.",
            7.5,
            "Transformers' documentation of tokenizers and added tokens.",
            "An added token too many, as gemma-3-1b is published with: a medium finding for that reason. An embedding "
            "that is padded to a round number of rows is none, where vocab_size says so.",
        ),
        "checkpoint.dtype": Rule(
            "The loader would round the weights before it quantizes them",
            "The dtype that config.json names cannot hold the values of the linear weights as they are stored, or it "
            "names none while weights are stored in several. from_pretrained casts first: other weights are quantized "
            "then than those that were scanned.",
            "Store the weights in the dtype that is named, or name the dtype that they are stored in.",
            7.5,
            "Transformers' documentation of dtype in from_pretrained.",
            "Models that were trained in float32 and published with bfloat16 in their configuration: the rounding is "
            "meant, and the weights that run are still not those in the file.",
        ),
        "checkpoint.alias": Rule(
            "Two tensors may be loaded as one parameter",
            "Their names differ in case or in the encoding of characters only, in the name of the base model before "
            "them, or by a word that transformers renames (gamma and beta, weight_g and weight_v). Of two such "
            "tensors the one that is loaded last wins, while the scan counts both.",
            "Keep the tensor that is the model's: load the model, save it again with save_pretrained, and register the "
            "result as a new version.",
            7.5,
            "Transformers' conversion_mapping.py, and base_model_prefix of its model classes.",
            "A file into which two versions of one checkpoint were merged.",
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
