#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where each kernel of a program stands against the roofline, by Nsight Compute's counters.

    gpu/probes/profile_kernels.py [--kernels REGEX] [--skip N] [--count N] PROGRAM ARGUMENTS...

Runs PROGRAM under ncu, which repeats every launch, and prints a line a kernel (launches of one name and grid together):
time, share of the peak rate of memory (DRAM), of the multiprocessors' issue slots, of the FP32 (FMA), integer (ALU) and tensor
pipes, of resident warps, and the busiest of them all. Times under ncu are with cold caches. Exit code: ncu's.
"""
import argparse
import collections
import csv
import io
import re
import subprocess
import sys

METRICS = {
    "us": "gpu__time_duration.sum",
    "DRAM": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "L1/shm": "l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed",
    "issue": "sm__inst_issued.avg.pct_of_peak_sustained_elapsed",
    "FMA": "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "ALU": "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "tensor": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "warps": "sm__warps_active.avg.pct_of_peak_sustained_active",
}


def short(name):
    """The kernel without namespaces, return type and parameters."""
    name = re.sub(r"[<(]?(unnamed|anonymous namespace)[>)]|\((int|bool|long|unsigned int)\)", "", name)
    name = re.sub(r"(\w+)?::", "", name)
    name = name.split("(")[0]
    return name.removeprefix("void ").strip()


def table(text, rows_at_most):
    start = text.find('"ID"')
    if start < 0:
        sys.exit("profile_kernels: ncu profiled no kernel; its last words: " + text[-300:].strip())
    launches = collections.defaultdict(dict)
    for row in csv.DictReader(io.StringIO(text[start:])):
        if not (row["ID"] or "").isdigit():
            continue
        of = launches[row["ID"]]
        of["key"] = (short(row["Kernel Name"]), row["Grid Size"])
        try:
            of[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
        except ValueError:
            of[row["Metric Name"]] = float("nan")
        if row["Metric Name"] == METRICS["us"]:
            of[row["Metric Name"]] *= {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}[row["Metric Unit"].replace("nsecond", "ns")]
    groups = collections.defaultdict(list)
    for launch in launches.values():
        groups[launch["key"]].append(launch)
    total = sum(x.get(METRICS["us"], 0) for x in launches.values())
    print(f"{'kernel':58} {'grid':>16} {'times':>5} {'share':>6} " + " ".join(f"{k:>7}" for k in METRICS))
    ordered = sorted(groups.items(), key=lambda g: -sum(x.get(METRICS["us"], 0) for x in g[1]))
    for (name, grid), members in ordered[:rows_at_most]:
        time = sum(x.get(METRICS["us"], 0) for x in members)
        means = []
        for metric in METRICS.values():  # weighted by time
            value = sum(x.get(metric, 0) * x.get(METRICS["us"], 0) for x in members) / max(time, 1e-9)
            means.append(time / len(members) if metric == METRICS["us"] else value)
        grid = grid.strip("()").replace(" ", "").replace(",", "x")
        print(f"{name[:58]:58} {grid:>16} {len(members):5d} {100 * time / total:5.1f}% " + " ".join(f"{x:7.1f}" for x in means))
    print(f"all: {len(launches)} launches, {total / 1e3:.2f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", help="only kernels whose name matches this regular expression")
    parser.add_argument("--skip", type=int, default=0, help="launches to leave out first")
    parser.add_argument("--count", type=int, default=400, help="launches to look at")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    o = parser.parse_args()
    if not o.command:
        parser.error("expected a program to run")
    call = ["ncu", "--csv", "--page", "details", "--clock-control", "none", "--print-units", "base",
            "--metrics", ",".join(METRICS.values()), "--launch-skip", str(o.skip), "--launch-count", str(o.count)]
    if o.kernels:
        call += ["--kernel-name-base", "demangled", "--kernel-name", "regex:" + o.kernels]
    run = subprocess.run(call + o.command, capture_output=True, text=True)
    table(run.stdout, o.rows)
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
