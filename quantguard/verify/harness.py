"""The border to lm-eval (0.4.13): silent, offline, and without code from task files."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from quantguard.core.measurement import Unmeasured
from quantguard.models.load import LoadedModel
from quantguard.models.quiet import quiet_libraries
from quantguard.models.threads import threads_for
from quantguard.verify.task_file import BINARY_METRICS, TaskFile

_LOGGERS = ("lm_eval", "lm-eval", "datasets", "huggingface_hub", "fsspec", "filelock")


def run_tasks(
    loaded: LoadedModel, task: TaskFile | str, *, limit: int | None, batch_size: int, seed: int
) -> str | Unmeasured:
    """Outcomes of local tasks, or of a task or group that lm-eval ships, by name: `1` right and `0` wrong, in order.

    `limit` is of each task.

    A named task reads its data from the local Hugging Face cache; nothing is downloaded. The chat template is not
    applied: the task says how it asks. Unmeasured where the task is unknown, its data is not there, it has no binary
    metric, or the harness fails.
    """
    import torch

    with quiet_libraries(), _contained(), threads_for(loaded.model, loaded.device):
        while True:
            try:
                return _evaluate(loaded, task, limit, batch_size, seed)
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    return Unmeasured(f"{loaded.device} has too little memory for one question")
            except Exception as error:  # noqa: BLE001  task, data and model are not ours: the harness may raise anything
                lines = str(error).strip().splitlines()
                return Unmeasured(
                    f"lm-eval failed: {type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
                )
            batch_size = max(1, batch_size // 2)
            torch.cuda.empty_cache()


def _evaluate(
    loaded: LoadedModel, task: TaskFile | str, limit: int | None, batch_size: int, seed: int
) -> str | Unmeasured:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    tasks = _built_in(task) if isinstance(task, str) else _local(task)
    for each in tasks.values():
        if each.get_config("num_fewshot") is None:
            each.set_config(key="num_fewshot", value=0)
        each.set_fewshot_seed(seed=seed)
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    # evaluate and not simple_evaluate: that one asks git and pip about the machine, for seconds
    results = evaluate(lm=model, task_dict={"tasks": tasks}, limit=limit, bootstrap_iters=0, log_samples=True)
    found = [_outcomes(results["samples"][name], name) for name in tasks]
    for each in found:
        if isinstance(each, Unmeasured):
            return each
    return "".join(str(each) for each in found) or Unmeasured("the task has no questions")


def _local(task: TaskFile) -> dict[str, Any]:
    from lm_eval.api.task import ConfigurableTask

    return {config["task"]: ConfigurableTask(config=dict(config)) for config in task.configs}


def _built_in(name: str) -> dict[str, Any]:
    tasks: dict[str, Any] = _task_manager().load([name])["tasks"]
    return tasks


@functools.cache
def _task_manager() -> Any:
    """lm-eval's index of the tasks it ships: thousands of YAML files are read, once a process."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _outcomes(samples: list[Mapping[str, Any]], name: str) -> str | Unmeasured:
    """One character a question; of several answer filters, the first one of the task counts."""
    if not samples:
        return Unmeasured(f"{name} has no questions")
    chosen = sorted((s for s in samples if s["filter"] == samples[0]["filter"]), key=lambda s: s["doc_id"])
    metric = next((m for m in BINARY_METRICS if m in chosen[0]["metrics"]), None)
    if metric is None:
        return Unmeasured(f"{name} has none of the metrics {', '.join(BINARY_METRICS)}")
    values = [float(sample[metric]) for sample in chosen]
    if not set(values) <= {0.0, 1.0}:  # NaN fails too
        return Unmeasured(f"{name}: {metric} is not right or wrong for each question")
    return "".join("1" if value else "0" for value in values)


@contextmanager
def _contained() -> Iterator[None]:
    """Within it lm-eval logs nothing, shows no bars, reaches no network, and renders templates in a sandbox.

    It reads these from module attributes, so they are exchanged and put back. Its own template environment is not
    sandboxed (utils.env) although templates come from files.
    """
    import datasets
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface
    import lm_eval.utils
    from huggingface_hub import constants
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from tqdm import tqdm

    sandbox = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters.update(lm_eval.utils.env.filters)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]

    def no_bar(*args: Any, **settings: Any) -> Any:
        return tqdm(*args, **{**settings, "disable": True})

    exchanged: list[tuple[Any, str, Any]] = [
        (lm_eval.utils, "env", sandbox),
        (lm_eval.api.model, "tqdm", no_bar),
        (lm_eval.api.task, "tqdm", no_bar),
        (lm_eval.models.huggingface, "tqdm", no_bar),
        (datasets.config, "HF_HUB_OFFLINE", True),
        (constants, "HF_HUB_OFFLINE", True),
    ]
    former = [getattr(owner, name) for owner, name, _ in exchanged]
    bars = datasets.is_progress_bar_enabled()
    for owner, name, value in exchanged:
        setattr(owner, name, value)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for (owner, name, _), value in zip(exchanged, former, strict=True):
            setattr(owner, name, value)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
