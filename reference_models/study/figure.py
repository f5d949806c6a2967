#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""figure.py RUNS... -o FILE.svg [--against bf16] [--table]: validation losses of kept runs (keep.py) as differences to those of
another recipe of the same seed, a dot a seed, the mean and Student's 95 % interval over the seeds; --table prints what the figure
shows as Markdown, at every step of validation. RUNS are folders called MODEL-RECIPE-SEED; a recipe needs two seeds or more.
"""
import argparse
import collections
import json
import math
import os
import re

# Student's t for 95 % of both sides, by degrees of freedom
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]


def read(folders):
    """Validation loss by recipe, seed and step."""
    losses = collections.defaultdict(dict)
    for folder in folders:
        recipe, seed = re.fullmatch(r"(?:gla-27m|gla-tiny)-(.+)-(\d+)", os.path.basename(os.path.normpath(folder))).groups()
        with open(os.path.join(folder, "log.jsonl"), encoding="utf-8") as f:
            for line in map(json.loads, f):
                if "val_loss" in line:
                    losses[recipe].setdefault(int(seed), {})[line["step"]] = line["val_loss"]
    return losses


def interval(values):
    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, T[n - 2] * deviation / math.sqrt(n)


def pairs(losses, recipe, base, step):
    return {s: v[step] - losses[base][s][step] for s, v in losses[recipe].items() if s in losses[base]}


def draw(rows, base, step):
    left, width, height, top = 150, 660, 34, 34
    ends = [e for _, d, m, h in rows for e in (m - h, m + h, *d.values())] + [0.0]
    low, high = min(ends), max(ends)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    x = lambda v: left + (v - low) / (high - low) * (width - left - 20)
    total = top + height * len(rows) + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{total}" fill="white"/>',
           f'<text x="{left}" y="20">validation loss less that of {base}, nats a byte, step {step}: seeds, mean, 95 %</text>']
    tick = 10 ** math.floor(math.log10((high - low) / 2))
    tick *= 2 if (high - low) / tick > 10 else 1
    for i in range(math.ceil(low / tick), math.floor(high / tick) + 1):
        at = x(i * tick)
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{total - 34}" stroke="{"#444" if i == 0 else "#ddd"}"/>')
        out.append(f'<text x="{at:.1f}" y="{total - 16}" text-anchor="middle">{i * tick:.3f}</text>')
    for i, (recipe, differences, mean, half) in enumerate(rows):
        y = top + height * (i + 0.5)
        out.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{recipe} ({len(differences)})</text>')
        out.append(f'<line x1="{x(mean - half):.1f}" x2="{x(mean + half):.1f}" y1="{y}" y2="{y}" stroke="#1f5fa8" stroke-width="3"/>')
        out.append(f'<line x1="{x(mean):.1f}" x2="{x(mean):.1f}" y1="{y - 8}" y2="{y + 8}" stroke="#1f5fa8" stroke-width="3"/>')
        out += [f'<circle cx="{x(d):.1f}" cy="{y}" r="4" fill="#d9822b" fill-opacity="0.8"/>' for d in differences.values()]
    return "\n".join(out + ["</svg>\n"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+")
    p.add_argument("-o", "--output")
    p.add_argument("--against", default="bf16")
    p.add_argument("--table", action="store_true")
    o = p.parse_args()
    losses = read(o.runs)
    steps = sorted({s for seeds in losses.values() for v in seeds.values() for s in v})
    rows = []
    for recipe in losses:
        differences = pairs(losses, recipe, o.against, steps[-1])
        if recipe == o.against or len(differences) < 2:
            continue
        rows.append((recipe, differences, *interval(list(differences.values()))))
        if o.table:
            cells = ["%+.4f +- %.4f" % interval(list(pairs(losses, recipe, o.against, s).values())) for s in steps]
            relative = [100 * d / losses[o.against][s][steps[-1]] for s, d in differences.items()]
            print(f"| `{recipe}` - `{o.against}`, {len(differences)} | " + " | ".join(cells) + " | %+.2f +- %.2f |" % interval(relative))
    rows.sort(key=lambda r: r[2])
    if o.output:
        with open(o.output, "w", encoding="utf-8") as f:
            f.write(draw(rows, o.against, steps[-1]))


if __name__ == "__main__":
    main()
