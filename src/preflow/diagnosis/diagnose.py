"""All run findings, in the order of their strength."""

from collections.abc import Callable, Iterator

from preflow.diagnosis import cues, data, labels, movement, other_stages, stability
from preflow.diagnosis.finding import RunFinding
from preflow.diagnosis.measurements import RunMeasurements

Check = Callable[[RunMeasurements], Iterator[RunFinding]]
_OF_ALIGNMENT: tuple[Check, ...] = (
    movement.hardly_trained,
    movement.still_rising,
    movement.memorised,
    movement.near_limit,
    movement.stopped_early,
    movement.displacement,
    stability.unstable,
    stability.broken_precision,
    data.reward_without_preference,
    cues.cues,
    labels.label_noise,
    labels.contradictions,
    data.too_few_pairs,
    data.at_ceiling,
    data.off_policy,
)
_OF_EVERY_RUN: tuple[Check, ...] = (other_stages.fine_tuning, other_stages.memory)
_OF_CUES = {"cue_exploited", "no_signal_beyond_cue"}
#: Every run finding by name, with what it means; the documentation's table.
RUN_FINDINGS = {
    "hardly_trained": "KL and margins near zero: the rate is too low for so many steps",
    "too_few_steps": "the same, after fewer than 20 optimizer steps",
    "beta_too_high": "the same, with a beta that holds the policy where it is",
    "adapter_too_small": "the same, at a high rate, with an adapter of a tiny rank",
    "stopped_too_soon": "accuracy on new pairs was still rising when training ended",
    "memorised": "training pairs are ordered far better than held-out ones after several epochs",
    "near_kl_limit": "the KL is near its limit or beyond it",
    "stopped_early": "training was stopped and the weights of an earlier step, or of none, were kept",
    "displacement": "chosen responses lose probability too, much or as much as the rejected ones",
    "unstable": "gradients or losses far above the others, or a held-out margin that changes its sign",
    "broken_precision": "training changed log-probs by no more than the precision rounds away",
    "reward_without_preference": "rewards order pairs better than chance while preference accuracy or a win rate fell",
    "cue_exploited": "the reward follows length or another cue of form where the label does not",
    "no_signal_beyond_cue": "the same, in pairs whose label the cue predicts: nothing else was learnt",
    "label_noise": "a share of flipped labels explains the margins better than a weak signal does",
    "contradictions": "many rows prefer the opposite of others",
    "too_few_pairs": "what was gained cannot be distinguished from chance on so many held-out pairs",
    "not_learnable": "the model moved and orders held-out pairs hardly better than chance",
    "labels_reversed": "held-out pairs are ordered against their labels: exchanged columns, or a wrong loss",
    "reference_at_ceiling": "the reference prefers the chosen response nearly always before DPO",
    "off_policy": "chosen responses are far rarer under the reference than what it says itself",
    "sft_memorised": "SFT learnt its demonstrations by heart",
    "sft_made_worse": "held-out demonstrations are less likely after SFT",
    "memory_above_estimate": "a training took over a quarter more memory than was estimated (on a CPU, over 60 %)",
}


def diagnose(run: RunMeasurements) -> list[RunFinding]:
    """What one run's measurements show to be wrong, the strongest evidence first; empty for a healthy run."""
    aligned = "dpo" in run.evaluation["models"]
    checks = (*(_OF_ALIGNMENT if aligned else ()), *_OF_EVERY_RUN)
    found = [finding for check in checks for finding in check(run)]
    if any(finding.name in _OF_CUES for finding in found):
        # a reward that follows a cue is surely wrong wherever the cue is: no sign of flipped labels
        found = [finding for finding in found if finding.name != "label_noise"]
    return sorted(found, key=lambda finding: -finding.strength)
