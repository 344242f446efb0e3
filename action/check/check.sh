#!/usr/bin/env bash
# check.sh: `quantguard check` with the inputs of action.yml, then what the job is to learn: outputs, summary, annotations.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
reports=$(mktemp -d "$RUNNER_TEMP/quantguard-check-XXXXXXXX")
summary_limit=1000000 # bytes; the runner drops a summary of more than 1 MiB whole

arguments=(--output "json=$reports/report.json" --output "md=$reports/report.md" --output "sarif=$reports/report.sarif")
arguments+=(--output "annotations=$reports/annotations.txt")
[ -z "$QUANTGUARD_BASE" ] || arguments+=(--base "$QUANTGUARD_BASE")
[ -z "$QUANTGUARD_MANIFEST" ] || arguments+=(--manifest "$QUANTGUARD_MANIFEST")
[ -z "$QUANTGUARD_TRACKING_URI" ] || arguments+=(--tracking-uri "$QUANTGUARD_TRACKING_URI")
case $QUANTGUARD_ALLOW_LOOSER in
'' | false) ;;
true) arguments+=(--allow-looser) ;;
*)
    printf '::error title=QuantGuard::the input allow-looser is neither true nor false\n'
    printf 'exit-code=4\n' >>"$GITHUB_OUTPUT"
    exit 4
    ;;
esac

# The token travels in the environment, never as an argument; of user:password the runner knows only the whole.
case $QUANTGUARD_TOKEN in
*:*)
    export MLFLOW_TRACKING_USERNAME=${QUANTGUARD_TOKEN%%:*} MLFLOW_TRACKING_PASSWORD=${QUANTGUARD_TOKEN#*:}
    printf '::add-mask::%s\n' "$MLFLOW_TRACKING_PASSWORD"
    ;;
?*) export MLFLOW_TRACKING_TOKEN=$QUANTGUARD_TOKEN ;;
esac
unset QUANTGUARD_TOKEN

code=0
bash "$here/../bootstrap.sh" "$here/requirements.txt" -P -m quantguard.cli.main check "${arguments[@]}" || code=$?

printf 'exit-code=%s\n' "$code" >>"$GITHUB_OUTPUT"
if [ -s "$reports/report.json" ]; then
    printf 'report=%s\n' "$reports" >>"$GITHUB_OUTPUT"
    if [ "$(wc -c <"$reports/report.md")" -lt "$summary_limit" ]; then
        cat -- "$reports/report.md" >>"$GITHUB_STEP_SUMMARY"
    else
        printf 'The report is too long for a summary: see report.md.\n' >>"$GITHUB_STEP_SUMMARY"
    fi
    cat -- "$reports/annotations.txt" # written by QuantGuard, which escapes what it quotes
fi
exit "$code"
