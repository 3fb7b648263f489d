#!/usr/bin/env bash
# Makes .venv as requirements/cpu.txt says; `make` calls it. One line a stage; what pip says goes to .venv/setup.log.
#
#   PYTHON       the interpreter; without it the first of python3.11, python3.12, python3 that is a 3.11 or 3.12
#   TORCH_INDEX  asked for torch where the indexes that pip is configured for have no CPU build of that version
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv
LOCK=requirements/cpu.txt
LOG=$VENV/setup.log

fail() { echo "error: $1" >&2; exit 2; }

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1; }

find_python() {
  local found
  for found in ${PYTHON:-python3.11 python3.12 python3}; do
    if suits "$found"; then echo "$found"; return; fi
  done
  fail "no Python 3.11 or 3.12 (${PYTHON:-python3.11, python3.12, python3} tried); name one: make PYTHON=/path/to/python3.11"
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@" >>"$LOG" 2>&1; }
# Most files of these packages are never imported: what every role imports is compiled below, the rest when it is.
install() { pip install --no-compile --no-deps "$@"; }

explain() { fail "$1: $(grep -a '^ERROR' "$LOG" | tail -n 1 | cut -c 1-300); all that pip said: $LOG"; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "$LOCK is for x86-64 Linux, this is $(uname -sm)"
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || ! suits "$VENV/bin/python"; then  # none, or one cut off
  python=$(find_python)
  echo "making $VENV with $python ..."
  said=$("$python" -m venv --clear "$VENV" 2>&1) || fail "$python -m venv failed: $(echo "$said" | head -n 3 | tr '\n' ' ')"
fi
: >"$LOG"

torch=$(grep '^torch==' "$LOCK")
echo "installing $torch (about 1 minute) ..."
if ! install "$torch"; then
  echo "  pip's own indexes have none: asking $TORCH_INDEX ..."
  install --index-url "$TORCH_INDEX" "$torch" ||
    explain "$torch is neither there nor at $TORCH_INDEX; make TORCH_INDEX=URL names another index"
fi
echo "installing the other $(($(grep -c '==' "$LOCK") - 1)) packages (about 2 minutes) ..."
install -r "$LOCK" || explain "a package of $LOCK was not installed"
install --no-build-isolation --editable . || explain "sppo itself was not installed"
site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# It ends with an error where a file is a template and no Python, which is nobody's module.
"$VENV/bin/python" -m compileall -q -j 0 -x 'transformers/models/|/tests?/' \
  "$site"/{torch,vllm,transformers,ray,sympy,scipy,numpy} >>"$LOG" 2>&1 || true
echo "$VENV is ready"
