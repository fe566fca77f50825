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
venv/bin/geed-onnx demo --samples 8 --json | venv/bin/python -c 'import json, sys; n = {json.loads(line)["model"]["path"] for line in sys.stdin}; assert len(n) == 8, n'
venv/bin/geed-onnx demo --samples 8 -o run > /dev/null
venv/bin/geed-onnx report run -o page.html
grep -q 'PyTorch CNN' page.html
venv/bin/geed-export --help > exporters.txt
grep -q 'scikit-learn' exporters.txt
# no framework is here: the exact pip line, not a traceback
! venv/bin/geed-export pytorch timm:resnet18 -o net.onnx 2> missing.txt
grep -q "pip install 'geed-onnx\[pytorch\]'" missing.txt
echo "the wheel works without the checkout"
