"""Load a registered model with transformers, as NF4, only if the gate admitted it; then answer one prompt.

python docs/serving/answer.py models:/assistant@champion "Hello" --policy policy.yaml --key gate.pub.pem \
    --tracking-uri http://mlflow:5000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from quantguard.attest.load import load_verified
from quantguard.core.errors import QuantGuardError
from quantguard.core.scheme import Scheme


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompt")
    parser.add_argument("--directory", type=Path, default=Path("served-model"))
    for name in ("policy", "key"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--environment", default="default")
    parser.add_argument("--tracking-uri", required=True)
    asked = parser.parse_args()
    try:
        loaded = load_verified(
            asked.model,
            asked.directory,
            keys=asked.key,
            policy=asked.policy,
            environment=asked.environment,
            tracking_uri=asked.tracking_uri,
            schemes=(Scheme.NF4,),
        )
    except QuantGuardError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"{answer(loaded.directory, asked.prompt)}\n")


def answer(directory: Path, prompt: str) -> str:
    """What the model in `directory` says, quantized as it was measured."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    # What was signed holds weights and a tokenizer; code beside them is never run, and nothing more is fetched.
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        quantization_config=quantization,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    given = tokenizer(prompt, return_tensors="pt").to(model.device)
    said = model.generate(input_ids=given["input_ids"], max_new_tokens=32, do_sample=False)
    return str(tokenizer.decode(said[0][given["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main()
