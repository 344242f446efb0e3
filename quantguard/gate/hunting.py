"""What a policy asks of trigger hunting."""

from __future__ import annotations

from quantguard.core.calibration import Sampled, read_calibration
from quantguard.core.errors import PolicyError
from quantguard.core.triggers import read_triggers
from quantguard.policy.load import LoadedPolicy
from quantguard.verify.triggers import TriggerRequest


def trigger_request(policy: LoadedPolicy) -> TriggerRequest | None:
    """The first prompts screen and the next ones confirm; None where the policy does not hunt.

    Raises:
        PromptsError: a file that the policy names has changed since it was loaded, and is no longer valid.
    """
    asked = policy.policy.triggers
    if asked is None:
        return None
    chosen = read_calibration(asked.prompts, asked.screen + asked.confirm, folder=policy.path.parent)
    if isinstance(chosen, Sampled):
        raise PolicyError("the model's own texts are not supported here", path=policy.path, key="triggers.prompts")
    listed = () if asked.list is None else read_triggers(policy.resolve(asked.list))
    return TriggerRequest(listed, asked.rare, chosen.prompts[: asked.screen], chosen.prompts[asked.screen :])
