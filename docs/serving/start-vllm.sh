#!/bin/sh
# Serves what the gate admitted, and nothing else: where the model is refused, there is no model to serve.
#   MODEL=models:/assistant@champion POLICY=policy.yaml KEY=gate.pub.pem MLFLOW_TRACKING_URI=... start-vllm.sh [vllm options]
set -eu

directory=${DIRECTORY:-/srv/model}
# vLLM's bitsandbytes rounds to NF4 with scales that are rounded too.
quantguard load "$MODEL" "$directory" --policy "$POLICY" --key "$KEY" --scheme nf4-double
# The server needs no registry and no hub: what it serves is all on this disk.
unset MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN
export HF_HUB_OFFLINE=1
exec vllm serve "$directory" --quantization bitsandbytes --served-model-name "$MODEL" "$@"
