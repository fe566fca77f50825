#!/bin/sh
# Install a wheel into an empty environment, away from the checkout, and use it: sh tests/try_wheel.sh python3 dist/*.whl
set -eu
python=$1
wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$python" -m venv venv
venv/bin/pip install -q "$wheel"
venv/bin/geed-onnx --version
venv/bin/geed-onnx demo --samples 8 > demo.txt
grep -q 'block6' demo.txt
venv/bin/geed-onnx demo --samples 8 --json | venv/bin/python -c 'import json, sys; n = [json.loads(line)["value"] for line in sys.stdin]; assert len(n) == 20, n'
echo "the wheel works without the checkout"
