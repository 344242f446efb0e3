"""Where models live: MLflow, a local directory."""
