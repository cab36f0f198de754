#!/usr/bin/env bash
# What: optuna.importance says how much each hyperparameter matters. Of a complete grid of two widths and two learning
#   rates, as categories, where the width moves the loss by 1.24 and the rate by 0.009, PedAnovaImportanceEvaluator says
#   that both matter alike: it compares how the best tenth of the trials is spread with how all are, and of four trials
#   the best tenth is one, which has one width and one rate. No warning says that the trials are too few.
# Expected: nearly all for the width, as the variance over the grid has it (100.0 % and 0.0 %), or nothing.
#   Seen with optuna 5.0.0: "PED-ANOVA: lr 50%, width 50%".
# Exits with 1 as soon as that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "optuna==5.0.0"
"$folder/venv/bin/python" - <<'PYTHON'
import statistics
import sys

import optuna
from optuna.importance import PedAnovaImportanceEvaluator

optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler({"width": [64, 128], "lr": [1, 2]}))
study.optimize(lambda trial: -3.9 + 1.24 * (trial.suggest_categorical("width", [64, 128]) == 128) +
               0.009 * (trial.suggest_categorical("lr", [1, 2]) == 2), n_trials=4)
losses = {(trial.params["width"], trial.params["lr"]): trial.value for trial in study.trials}
assert len(losses) == 4
whole = statistics.pvariance(losses.values())
for name, place, values in (("width", 0, (64, 128)), ("lr", 1, (1, 2))):
    means = [statistics.mean(loss for key, loss in losses.items() if key[place] == value) for value in values]
    print(f"variance: {name} {statistics.pvariance(means) / whole:.1%}")
found = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
print("PED-ANOVA: " + ", ".join(f"{name} {share:.0%}" for name, share in sorted(found.items())))
sys.exit(0 if all(abs(share - 0.5) < 0.01 for share in found.values()) else 1)
PYTHON
