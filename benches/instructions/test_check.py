"""Tests of how counts are compared. Pure, so fast.

python3 -m unittest discover -s benches/instructions
"""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import check

TOOLS = {"rustc": "rustc 1.95.0", "valgrind": "valgrind-3.19.0"}


def summary(count, function="whole_requests", **case):
    total = {"metrics": {"Ir": {"values": {"new": count, "old": 1}}}, "regressions": []}
    return {
        "group": "requests",
        "function_name": function,
        **case,
        "profiles": [{"tool": "Callgrind", "data": {"parts": [], "total": total}}],
    }


def judge(recorded, counted, present=TOOLS):
    """Whether counts may stand, and what is said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        fine = check.report({"instructions": recorded, "tools": TOOLS}, counted, present)
    return fine, said.getvalue()


class Counts(unittest.TestCase):
    def test_counts_are_read_by_group_function_and_case(self):
        with tempfile.TemporaryDirectory() as directory:
            for name, text in (("a", summary(100, id="browser")), ("b", summary(7, "client_and_origin"))):
                place = Path(directory, "instructions", name)
                place.mkdir(parents=True)
                Path(place, "summary.json").write_text(json.dumps(text))
            counts = check.read_counts(Path(directory))
        self.assertEqual(counts, {"requests::whole_requests::browser": 100, "requests::client_and_origin::only": 7})


class Comparison(unittest.TestCase):
    def test_two_per_cent_more_may_stand_and_more_than_that_fails(self):
        self.assertTrue(judge({"a": 10_000}, {"a": 10_200})[0])
        fine, said = judge({"a": 10_000}, {"a": 10_201})
        self.assertFalse(fine)
        self.assertIn("a: 10201 instructions, +2.01% of the 10000 recorded; at most +2 %", said)
        self.assertIn(check.RAISE, said)
        self.assertNotIn("other tools", said)

    def test_five_per_cent_less_asks_to_be_recorded_and_stands(self):
        fine, said = judge({"a": 10_000}, {"a": 9_499})
        self.assertTrue(fine)
        self.assertIn("fewer than recorded", said)
        self.assertNotIn("fewer than recorded", judge({"a": 10_000}, {"a": 9_500})[1])

    def test_counts_that_are_new_or_gone_fail(self):
        fine, said = judge({"gone": 1}, {"new": 2})
        self.assertFalse(fine)
        self.assertIn("gone: recorded, but not measured any more", said)
        self.assertIn("new: not recorded yet", said)

    def test_other_tools_are_named_where_a_count_has_grown(self):
        others = TOOLS | {"rustc": "rustc 1.96.0"}
        self.assertIn("rustc: rustc 1.96.0 here, rustc 1.95.0 when recorded", judge({"a": 1}, {"a": 2}, others)[1])
        self.assertNotIn("1.96.0", judge({"a": 1}, {"a": 1}, others)[1])

    def test_what_is_recorded_has_a_count_for_every_step(self):
        recorded = json.loads(check.RECORDED.read_text())
        steps = {name.split("::")[1] for name in recorded["instructions"]}
        wanted = {"parse_request", "parse_response", "route", "split", "choose", "judges_tick", "whole_requests"}
        self.assertLessEqual(wanted | {"request_headers", "response_headers"}, steps)


if __name__ == "__main__":
    unittest.main()
