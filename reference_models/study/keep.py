#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""keep.py RUNS... -o FOLDER: what is kept of finished runs as evidence, small enough to store: run.json, diagnostics.jsonl,
and of log.jsonl the losses of all steps, validation, and the whole last line with its digests. `nvfp4 report FOLDER`
reads it. A run that has not reached its last step is refused.
"""
import argparse
import json
import os
import shutil
import sys


def slim(line, last):
    j = json.loads(line)
    return line if last else json.dumps({k: j[k] for k in ("step", "loss", "val_loss") if k in j}, separators=(",", ":")) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", help="folders of runs")
    p.add_argument("-o", "--output", required=True)
    o = p.parse_args()
    for run in o.runs:
        with open(os.path.join(run, "run.json"), encoding="utf-8") as f:
            steps = json.load(f)["options"]["steps"]
        with open(os.path.join(run, "log.jsonl"), encoding="utf-8") as f:
            lines = f.readlines()
        end = json.loads(lines[-1])
        if end["step"] != steps and not end.get("diverged"):
            sys.exit(f"keep.py: {run}: expected step {steps}, got {end['step']}: the run is not finished")
        to = os.path.join(o.output, os.path.basename(os.path.normpath(run)))
        os.makedirs(to)
        with open(os.path.join(to, "log.jsonl"), "w", encoding="utf-8") as f:
            f.writelines(slim(line, i + 1 == len(lines)) for i, line in enumerate(lines))
        for name in ("run.json", "diagnostics.jsonl"):
            if os.path.exists(os.path.join(run, name)):
                shutil.copyfile(os.path.join(run, name), os.path.join(to, name))


if __name__ == "__main__":
    main()
