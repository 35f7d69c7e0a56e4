"""Compares instruction counts with those that were recorded. README.md beside this file says when and how.

python3 benches/instructions/check.py target/gungraun            # fails where a count has grown
python3 benches/instructions/check.py --accept target/gungraun   # records the counts of this run
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

RECORDED = Path(__file__).with_name("expected.json")
# Per cent of what was recorded that a count may grow by.
GROWTH_MAX = 2
# A count that has shrunk by more should be recorded, or the guard lets it grow again.
SHRINKAGE_TOLD = 5
RAISE = "just instructions-accept"


def name_of(summary):
    """What a count is called: `requests::whole_requests::browser`."""
    return "::".join((summary["group"], summary["function_name"], summary.get("id", "only")))


def instructions_of(summary):
    """The instructions of one benchmark, all threads together."""
    total = next(p for p in summary["profiles"] if p["tool"] == "Callgrind")["data"]["total"]
    return total["metrics"]["Ir"]["values"]["new"]


def read_counts(directory):
    """The counts of a run, from the summaries that it left behind."""
    summaries = [json.loads(path.read_text()) for path in sorted(directory.rglob("summary.json"))]
    return {name_of(summary): instructions_of(summary) for summary in summaries}


def output_of(*command):
    """The first line that a program prints."""
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return printed.splitlines()[0].strip()


def tools():
    """What counts depend on besides the code."""
    return {
        "rustc": output_of("rustc", "--version"),
        "valgrind": output_of("valgrind", "--version"),
        "libc": " ".join(platform.libc_ver()),
        "architecture": platform.machine(),
    }


def compare(recorded, counted):
    """Lines of the report, what is wrong, and what should be recorded."""
    lines, faults, hints = [], [], []
    width = max(map(len, [*recorded, *counted]), default=0)
    for name in sorted(recorded | counted):
        before, now = recorded.get(name), counted.get(name)
        if now is None:
            faults.append(f"{name}: recorded, but not measured any more; {RAISE} forgets it")
            continue
        if before is None:
            lines.append(f"{name:<{width}} {now:>12}")
            faults.append(f"{name}: not recorded yet; {RAISE} does it")
            continue
        growth = now / before - 1
        lines.append(f"{name:<{width}} {now:>12} {growth:>+8.2%}")
        told = f"{name}: {now} instructions, {growth:+.2%} of the {before} recorded"
        if 100 * now > (100 + GROWTH_MAX) * before:
            faults.append(f"{told}; at most +{GROWTH_MAX} %")
        elif 100 * now < (100 - SHRINKAGE_TOLD) * before:
            hints.append(told)
    return lines, faults, hints


def differences(recorded, present):
    """The tools that are others than when the counts were recorded."""
    return [
        f"{tool}: {present.get(tool)} here, {recorded.get(tool)} when recorded"
        for tool in sorted(recorded | present)
        if recorded.get(tool) != present.get(tool)
    ]


def report(recorded, counted, present):
    """Prints the comparison; whether the counts may stand."""
    lines, faults, hints = compare(recorded["instructions"], counted)
    print(*lines, sep="\n")
    if hints:
        print(f"\nfewer than recorded; please keep it so with {RAISE}:", *hints, sep="\n  ")
    if not faults:
        return True
    print("\nwrong:", *faults, sep="\n  ")
    others = differences(recorded["tools"], present)
    if others:
        print("\nthe cause may be other tools:", *others, sep="\n  ")
    print(f"\nif this is worth what it costs, record it with {RAISE} and say why in the commit")
    return False


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help=f"record the counts in {RECORDED.name}")
    parser.add_argument("directory", type=Path, help="where the run left its summaries")
    asked = parser.parse_args()
    counted = read_counts(asked.directory)
    if not counted:
        sys.exit(f"no counts below {asked.directory}: nothing was measured")
    if asked.accept:
        text = json.dumps({"tools": tools(), "instructions": counted}, indent=2, sort_keys=True)
        RECORDED.write_text(text + "\n")
        print(f"recorded {len(counted)} counts in {RECORDED}")
    elif not report(json.loads(RECORDED.read_text()), counted, tools()):
        sys.exit(1)


if __name__ == "__main__":
    main()
