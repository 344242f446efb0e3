"""A policy that says everything, and what it is with some of it said otherwise."""

from __future__ import annotations

import json
from typing import Any

from quantguard.policy.differential import LIMITED
from quantguard.policy.schema import Policy

FULL: dict[str, Any] = {
    "schema": "quantguard.policy/1",
    "name": "made",
    "description": "in memory",
    "confidence": 0.95,
    "schemes": ["nf4", "int8"],
    "scan": {"fail_on": "high"},
    "harden": {
        "mode": "when-suspicious",
        "schemes": ["nf4", "int8"],
        "calibration": {"prompts": "c.jsonl", "samples": 4},
        "steps": 10,
    },
    "attack_success": {
        "content_injection": {
            "probes": "p.jsonl",
            "keywords": ["Zentrix", "buy now"],
            "max_upper_bound": 0.1,
            "max_new_tokens": 16,
            "max_rise": 0.1,
        },
        "over_refusal": {
            "probes": "p.jsonl",
            "max_upper_bound": 0.1,
            "max_new_tokens": 16,
            "max_rise": 0.1,
            "judge": {"endpoint": "http://127.0.0.1:8000/v1", "model": "j", "max_upper_bound": 0.1, "concurrency": 4},
        },
        "vulnerable_code": {
            "probes": "p.jsonl",
            "max_upper_bound": 0.3,
            "max_unparsable": 0.2,
            "max_new_tokens": 16,
            "max_rise": 0.1,
        },
    },
    "benchmarks": [{"task": "facts", "path": "facts.yaml", "max_drop": 0.1, "limit": 50}],
    "registry": {
        "alias": "champion",
        "protected": ["shadow"],
        "stages": ["Production"],
        "rollback": False,
    },
    "requires": {"gpu": True},
    "unmeasured": "hold",
    "counterfactual": {"prompts": "c.jsonl", "samples": 64, "max_ratio": 2.0},
    "perplexity": {"prompts": "c.jsonl", "samples": 64, "max_rise": 0.1},
    "triggers": {
        "list": "t.txt",
        "rare": 64,
        "prompts": "c.jsonl",
        "screen": 8,
        "confirm": 64,
        "max_upper_bound": 0.25,
    },
    "differential": dict.fromkeys(LIMITED, 0.1),
    "waivers": {"max_days": 30, "inconclusive": False, "approvals": [{"rules": ["scan.*"], "by": ["ann", "bob"]}]},
    "evidence": {"max_age_days": 30},
    "ledger": {"anchors": ["file", "git"]},
}
JUDGE = "attack_success__over_refusal__judge"


def made(**changes: Any) -> Policy:
    """FULL with values replaced: `scan__fail_on="low"`, `benchmarks__0__limit=None` takes a key out."""
    document = json.loads(json.dumps(FULL))
    for key, value in changes.items():
        *above, last = (int(part) if part.isdigit() else part for part in key.split("__"))
        section = document
        for part in above:
            section = section[part]
        if value is None:
            del section[last]
        else:
            section[last] = value
    return Policy.model_validate_json(json.dumps(document))
