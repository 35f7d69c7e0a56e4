//! Puts what happened into the order in which it happened.
//!
//! A log is almost in order: workers write their lines when requests end, each into a buffer of its own
//! that is handed over within a tenth of a second. So what was read waits for [`HORIZON_MS`] in a ring of
//! milliseconds (a calendar queue), which costs the same however much waits.

/// How much earlier than the latest line a line may be without being taken for later than it was.
pub(super) const HORIZON_MS: i64 = 2_000;

/// Slots of the ring, more than the horizon has milliseconds.
const SLOTS: usize = 2_048;

/// Things that wait for their time.
///
/// Invariant: whatever waits is due in one of the [`SLOTS`] milliseconds from `next_ms` on.
#[derive(Debug)]
pub(super) struct Order<T> {
    slots: Vec<Vec<T>>,
    next_ms: Option<i64>,
    waiting: usize,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            next_ms: None,
            waiting: 0,
        }
    }
}

fn slot(at_ms: i64) -> usize {
    let slots = i64::try_from(SLOTS).unwrap_or(i64::MAX);
    usize::try_from(at_ms.rem_euclid(slots)).unwrap_or(0)
}

impl<T> Order<T> {
    /// Adds something that happened at `at_ms`, and hands out what is due by then: everything older than
    /// the horizon, millisecond by millisecond.
    pub(super) fn add(&mut self, at_ms: i64, what: T, each: impl FnMut(i64, &mut Vec<T>)) {
        let next_ms = *self.next_ms.get_or_insert(at_ms - HORIZON_MS);
        if at_ms - HORIZON_MS > next_ms {
            self.take_until(at_ms - HORIZON_MS, each);
        }
        let next_ms = self.next_ms.unwrap_or(at_ms);
        self.slots[slot(at_ms.max(next_ms))].push(what);
        self.waiting += 1;
    }

    /// Hands out the rest.
    pub(super) fn finish(&mut self, each: impl FnMut(i64, &mut Vec<T>)) {
        if let Some(next_ms) = self.next_ms {
            let slots = i64::try_from(SLOTS).unwrap_or(i64::MAX);
            self.take_until(next_ms + slots, each);
        }
    }

    fn take_until(&mut self, until_ms: i64, mut each: impl FnMut(i64, &mut Vec<T>)) {
        let Some(mut next_ms) = self.next_ms else {
            return;
        };
        while self.waiting > 0 && next_ms < until_ms {
            let due = &mut self.slots[slot(next_ms)];
            if !due.is_empty() {
                self.waiting -= due.len();
                each(next_ms, due);
                due.clear();
            }
            next_ms += 1;
        }
        // Where nothing waits, there is nothing to look for.
        self.next_ms = Some(next_ms.max(until_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(times: &[i64]) -> Vec<(i64, Vec<i64>)> {
        let (mut order, mut seen) = (Order::default(), Vec::new());
        for at_ms in times {
            order.add(*at_ms, *at_ms, |at_ms, due| seen.push((at_ms, due.clone())));
        }
        order.finish(|at_ms, due| seen.push((at_ms, due.clone())));
        seen
    }

    #[test]
    fn what_is_a_little_out_of_order_is_put_right() {
        let seen = ordered(&[10, 5, 12, 5, 1_900, 11, 90_000, 88_001, 90_000]);
        let expected = [
            (5, vec![5, 5]),
            (10, vec![10]),
            (11, vec![11]),
            (12, vec![12]),
            (1_900, vec![1_900]),
            (88_001, vec![88_001]),
            (90_000, vec![90_000, 90_000]),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_comes_too_late_is_taken_as_early_as_possible() {
        assert_eq!(
            ordered(&[-5, 10_000, 7]),
            [(-5, vec![-5]), (8_000, vec![7]), (10_000, vec![10_000])]
        );
    }
}
