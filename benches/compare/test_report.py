"""Tests of what the report makes of samples: ratios, medians, goals, tables. Pure, so fast.

python3 -m unittest discover -s benches/compare
"""

import unittest

import machine
import report
from rows import GOALS, ROWS, VALUE, Goal

META = {
    "machine": {"cpu": "a CPU", "cpus": 2, "kernel": "6.1", "load_before": 0.1},
    "versions": {"nginx": "1.22"},
    "started": "2026-01-01",
    "command": "benches/compare/run",
}
KINDS = {"switchback": "candidate", "floor": "limit", "direct": "direct"}


def sample(peer, number, row="W1", **figures):
    return {"row": row, "peer": peer, "kind": KINDS.get(peer, "anchor"), "round": number, **figures}


def goal_of(row, figure=None):
    return next(g for g in GOALS if g.row == row and figure in (None, g.figure))


class Ratios(unittest.TestCase):
    def test_a_ratio_is_taken_within_each_round_against_its_best_anchor(self):
        samples = [
            sample("nginx", 0, cpu_us=10),
            sample("haproxy", 0, cpu_us=20),
            sample("switchback", 0, cpu_us=8),
            sample("nginx", 1, cpu_us=40),
            sample("haproxy", 1, cpu_us=20),
            sample("switchback", 1, cpu_us=18),
            sample("nginx", 2, cpu_us=10),
            sample("haproxy", 2, cpu_us=12),
            sample("switchback", 2, cpu_us=30),
        ]
        found = report.ratios(samples, "cpu_us")
        # 0.8, 0.9 and 3.0: the median does not follow the round that was disturbed.
        self.assertAlmostEqual(found["switchback"], 0.9)
        self.assertAlmostEqual(found["nginx"], 1.0)

    def test_the_largest_anchor_is_best_where_more_is_better(self):
        samples = [
            sample("nginx", 0, "W3", gb_per_cpu_s=4),
            sample("haproxy", 0, "W3", gb_per_cpu_s=2),
            sample("switchback", 0, "W3", gb_per_cpu_s=5),
        ]
        found = report.ratios(samples, "gb_per_cpu_s", higher_is_better=True)
        self.assertEqual(found, {"nginx": 1.0, "haproxy": 0.5, "switchback": 1.25})

    def test_a_named_anchor_is_the_only_one(self):
        samples = [sample("nginx", 0, x=4), sample("haproxy", 0, x=2), sample("switchback", 0, x=4)]
        self.assertEqual(report.ratios(samples, "x", against="nginx")["switchback"], 1.0)

    def test_neither_candidate_nor_limit_is_an_anchor(self):
        samples = [sample("floor", 0, cpu_us=1), sample("switchback", 0, cpu_us=2)]
        self.assertEqual(report.ratios(samples, "cpu_us"), {})

    def test_rounds_that_lack_an_anchor_or_have_none_above_zero_give_no_ratio(self):
        samples = [
            sample("switchback", 0, x=5),
            sample("nginx", 1, x=0),
            sample("switchback", 1, x=5),
            sample("nginx", 2, x=10),
            sample("switchback", 2, x=5),
        ]
        self.assertEqual(report.ratios(samples, "x")["switchback"], 0.5)

    def test_medians_leave_out_samples_without_the_figure(self):
        samples = [sample("nginx", 0, x=1), sample("nginx", 1), sample("nginx", 2, x=3), sample("nginx", 3, x=None)]
        self.assertEqual(report.median(samples, "x"), 2)
        self.assertIsNone(report.median(samples, "y"))


class AddedLatency(unittest.TestCase):
    def test_what_going_direct_takes_in_the_same_round_is_taken_off(self):
        samples = [
            sample("direct", 0, "W10", p50=100, p99=200, p999=300),
            sample("nginx", 0, "W10", p50=150, p99=260, p999=400),
            sample("direct", 1, "W10", p50=110, p99=210, p999=310),
            sample("nginx", 1, "W10", p50=150, p99=260, p999=400),
        ]
        added = [s for s in report.with_added_latency(samples) if s["peer"] == "nginx"]
        self.assertEqual([s["added_p50"] for s in added], [50, 40])
        self.assertEqual([s["added_p999"] for s in added], [100, 90])
        self.assertNotIn("added_p50", samples[1], "the samples given are left as they are")


class Verdicts(unittest.TestCase):
    def verdict(self, goal, value, limit=None):
        return report.Judged(goal, value, value, None, limit).verdict

    def test_boundaries_count_as_reached_and_what_is_above_does_not(self):
        goal = goal_of("W2")
        self.assertEqual((goal.must, goal.goal), (1.05, 0.95))
        self.assertEqual(self.verdict(goal, 0.95), "goal")
        self.assertEqual(self.verdict(goal, 0.96), "must")
        self.assertEqual(self.verdict(goal, 1.05), "must")
        self.assertEqual(self.verdict(goal, 1.06), "missed")
        self.assertEqual(self.verdict(goal, None), "-")

    def test_higher_is_better_turns_the_comparison(self):
        goal = goal_of("W3")
        self.assertEqual([self.verdict(goal, value) for value in (0.99, 1.0, 1.1)], ["missed", "must", "goal"])

    def test_the_limit_is_the_goal_where_none_is_given(self):
        goal = goal_of("W10", "added_p99")
        self.assertEqual(self.verdict(goal, 0.8, limit=0.7), "must")
        self.assertEqual(self.verdict(goal, 0.7, limit=0.7), "goal")
        self.assertEqual(self.verdict(goal, 0.1), "must")

    def test_none_may_fail_in_a_switch(self):
        goal = goal_of("W11", "failed")
        self.assertEqual([self.verdict(goal, value) for value in (0, 1)], ["goal", "missed"])

    def test_values_are_judged_themselves_and_ratios_against_the_anchor(self):
        samples = [
            sample("nginx", 0, "W9", kb_per_connection=0.5),
            sample("switchback", 0, "W9", kb_per_connection=3),
            sample("nginx", 0, cpu_us=10),
            sample("switchback", 0, cpu_us=9),
            sample("floor", 0, cpu_us=7),
        ]
        idle = report.judge(goal_of("W9"), samples, "switchback")
        self.assertEqual((idle.value, idle.best), (3, ("nginx", 0.5)))
        plain = report.judge(goal_of("W1"), samples, "switchback")
        self.assertEqual((plain.value, plain.candidate, plain.limit), (0.9, 9, 0.7))

    def test_every_goal_belongs_to_a_row_and_its_must_is_no_stricter_than_its_goal(self):
        for goal in GOALS:
            self.assertIn(goal.row, ROWS)
            if goal.goal is not None:
                self.assertTrue(report.reaches(goal.goal, goal.must, goal.higher_is_better), goal)


class Tables(unittest.TestCase):
    def run_of(self, *samples):
        return {"meta": META, "samples": list(samples)}

    def test_saved_runs_are_merged_without_mixing_their_rounds(self):
        slow = self.run_of(sample("nginx", 0, cpu_us=100), sample("switchback", 0, cpu_us=50))
        quick = self.run_of(sample("nginx", 0, cpu_us=10), sample("switchback", 0, cpu_us=5))
        merged = report.merge([slow, quick])
        self.assertEqual(report.ratios(merged["samples"], "cpu_us")["switchback"], 0.5)
        self.assertEqual(len(merged["samples"]), 4)

    def test_the_report_says_figures_ratios_goals_and_conditions(self):
        run = self.run_of(
            sample("nginx", 0, cpu_us=10.0, foreign=0.01),
            sample("switchback", 0, cpu_us=8.5),
            sample("floor", 0, cpu_us=7.4),
        )
        text = report.report(run)
        self.assertIn("| 10 (1.00) | 8.50 (0.85) | 7.40 (0.74) |", text)
        self.assertIn("| 8.50 | nginx 10 | 0.85 | 0.74 | <= 1.00 | <= 0.85 | goal |", text)
        self.assertIn("Linux 6.1", text)
        self.assertIn("nginx 1.22", text)
        self.assertLess(text.index("| floor | 0.74"), text.index("| nginx | 1.00"), "the best comes first")

    def test_a_row_without_the_candidate_has_no_goal(self):
        run = self.run_of(sample("nginx", 0, cpu_us=10), sample("switchback", 0, "W9", kb_per_connection=2))
        text = report.report(run, details=False)
        goals = text[text.index("## Goals") :]
        self.assertIn("| W9 |", goals)
        self.assertNotIn("| W1 |", goals)

    def test_without_a_row_that_has_goals_there_are_none(self):
        self.assertNotIn(
            "Goals", report.report(self.run_of(sample("switchback", 0, "syscalls", total=4.1, calls={})))
        )

    def test_every_line_of_a_table_has_as_many_cells_as_its_header(self):
        run = self.run_of(*(sample("nginx", 0, name, **{row.figure: 1.0}) for name, row in ROWS.items()))
        widths = None
        for line in report.report(run).splitlines():
            widths = (widths or line.count("|")) if line.startswith("|") else None
            self.assertEqual(line.count("|") if widths else None, widths, line)

    def test_calls_are_shown_most_frequent_first(self):
        self.assertEqual(report.show({"read": 1.0, "writev": 2.0}), "writev 2.00, read 1.00")

    def test_numbers_are_shown_with_three_digits(self):
        shown = [report.show(value) for value in (0, 0.123, 1.5, 12.34, 123.4, 61278.4, None)]
        self.assertEqual(shown, ["0", "0.12", "1.50", "12.3", "123.4", "61278", "-"])

    def test_a_goal_of_one_figure_is_not_read_from_another(self):
        goal = Goal("W9", "kb_per_connection", VALUE, 4, 1)
        judged = report.judge(goal, [sample("switchback", 0, "W9", opened=1)], "switchback")
        self.assertEqual(judged.verdict, "-")


class Layouts(unittest.TestCase):
    def test_the_load_has_other_cpus_than_the_proxy_where_there_are_enough(self):
        layout = machine.Layout.of_cpus([0, 1], workers=1)
        self.assertEqual((layout.proxy, layout.load, layout.separate), ({0}, {1}, True))
        layout = machine.Layout.of_cpus([0, 1, 2, 3], workers=2)
        self.assertEqual((layout.proxy, layout.load), ({0, 1}, {2, 3}))

    def test_the_load_shares_a_cpu_where_there_are_too_few(self):
        layout = machine.Layout.of_cpus([0, 1], workers=2)
        self.assertEqual((layout.proxy, layout.load, layout.separate), ({0, 1}, {1}, False))
        self.assertFalse(machine.Layout.of_cpus([0], workers=1).separate)

    def test_free_ports_differ(self):
        self.assertEqual(len(set(machine.free_ports(20))), 20)


if __name__ == "__main__":
    unittest.main()
