"""Everything that a registry says, to be compared before and after."""

from __future__ import annotations

from mlflow import MlflowClient


def picture(client: MlflowClient) -> dict[str, object]:
    """All models, versions, tags, aliases, runs and logged models of the server, ids and times included."""
    experiments = sorted(client.search_experiments(max_results=5000), key=lambda e: str(e.experiment_id))
    ids = [experiment.experiment_id for experiment in experiments]
    return {
        "experiments": [(e.experiment_id, e.name, dict(e.tags)) for e in experiments],
        "models": [
            (model.name, dict(model.tags), dict(model.aliases), model.last_updated_timestamp)
            for model in client.search_registered_models(max_results=1000)
        ],
        "versions": [
            (v.name, v.version, v.source, v.status, v.run_id, dict(v.tags), v.last_updated_timestamp)
            for v in client.search_model_versions(max_results=10000)
        ],
        "runs": [
            (run.info.run_id, run.info.status, dict(run.data.tags)) for run in client.search_runs(ids, max_results=5000)
        ],
        "logged": [(model.model_id, str(model.status), dict(model.tags)) for model in client.search_logged_models(ids)],
    }
