"""Tasks for the tiny model of tests/tiny.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

TaskWriter = Callable[..., Path]


@pytest.fixture
def write_task(tmp_path: Path) -> TaskWriter:
    """Writes a task folder: rows of data and a YAML that names them relatively."""

    def write(rows: list[dict[str, Any]], changes: Mapping[str, Any] | None = None, *, name: str = "tiny") -> Path:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["<eos>"], "max_gen_toks": 8, "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }
        config |= changes or {}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}))
        return path

    return write
