//! Deadlines: one coarse wheel for each worker instead of a runtime timer for each wait.
//!
//! A proxied request passes through half a dozen waits, and nearly all end long before their
//! deadline. Arming a runtime timer for each would cost more than parsing the request. Here a
//! connection owns one entry; arming it stores a number. The entry moves in the wheel only when its
//! new deadline is earlier than the slot it already sits in, which in a busy connection happens
//! once in seconds. When a slot comes due, entries whose deadline has moved on are put further
//! back, and the others wake their task.
//!
//! Deadlines are rounded up to [`TICK`], so nothing expires early and nothing later than two ticks.
//! The scheme is the "hashed wheel with lazy re-insertion" of Varghese and Lauck, "Hashed and
//! Hierarchical Timing Wheels" (1987), scheme 6.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Resolution of every deadline on the data plane.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MS);

const TICK_MS: u64 = 10;

const TICKS_PER_SECOND: u64 = 1_000 / TICK_MS;

/// Slots of the wheel: 10 s at a time; later deadlines go round more than once.
const SLOTS: u64 = 1024;

/// "Nothing": no deadline, not in a slot, no neighbour.
const NEVER: u64 = u64::MAX;
const NONE: u32 = u32::MAX;

/// The deadlines of one worker.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// The clock as last read; a worker reads it once for each request and tick.
    now: Cell<Instant>,
    entries: RefCell<Entries>,
}

#[derive(Debug)]
struct Entries {
    /// The first tick that has not been swept.
    next: u64,
    /// First entry of each slot's list.
    slots: Box<[u32]>,
    entries: Vec<Entry>,
    /// First of the unused entries, linked by `next`.
    unused: u32,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    /// The tick of the slot it is listed in, or `NEVER`.
    listed: u64,
    previous: u32,
    next: u32,
    waker: Option<Waker>,
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        let slots = usize::try_from(SLOTS)
            .map_or_else(|_| Vec::new(), |n| vec![NONE; n])
            .into_boxed_slice();
        Rc::new(Self {
            start: now,
            now: Cell::new(now),
            entries: RefCell::new(Entries {
                next: 0,
                slots,
                entries: Vec::new(),
                unused: NONE,
            }),
        })
    }

    /// The time as of the last [`Wheel::read_clock`]: at most one tick old while the worker runs.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// A new entry without a deadline.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let key = self.entries.borrow_mut().insert();
        Timer {
            wheel: self.clone(),
            key,
        }
    }

    /// Wakes every task whose deadline has passed. Called once a tick.
    pub(crate) fn sweep(&self) {
        let until = self.ticks(self.read_clock(), false);
        let mut due = Vec::new();
        self.entries.borrow_mut().sweep(until, &mut due);
        due.into_iter().for_each(Waker::wake);
    }

    fn ticks(&self, at: Instant, round_up: bool) -> u64 {
        let since = at.saturating_duration_since(self.start);
        let tick_nanos = TICK.subsec_nanos();
        let within = if round_up {
            since.subsec_nanos().div_ceil(tick_nanos)
        } else {
            since.subsec_nanos() / tick_nanos
        };
        since.as_secs() * TICKS_PER_SECOND + u64::from(within)
    }
}

impl Entries {
    fn insert(&mut self) -> u32 {
        let entry = Entry {
            deadline: NEVER,
            listed: NEVER,
            previous: NONE,
            next: NONE,
            waker: None,
        };
        if self.unused == NONE {
            self.entries.push(entry);
            return u32::try_from(self.entries.len() - 1).expect("fewer connections than u32::MAX");
        }
        let key = self.unused;
        self.unused = self.entries[key as usize].next;
        self.entries[key as usize] = entry;
        key
    }

    fn remove(&mut self, key: u32) {
        self.unlist(key);
        let entry = &mut self.entries[key as usize];
        entry.waker = None;
        entry.next = self.unused;
        self.unused = key;
    }

    fn arm(&mut self, key: u32, deadline: u64) {
        let entry = &mut self.entries[key as usize];
        entry.deadline = deadline;
        if deadline < entry.listed {
            self.unlist(key);
            self.list(key, deadline);
        }
    }

    /// Lists an entry in the slot of its deadline, or in the last slot before the wheel is round.
    fn list(&mut self, key: u32, deadline: u64) {
        let tick = deadline.clamp(self.next, self.next + SLOTS - 1);
        let slot = slot_of(tick);
        let first = std::mem::replace(&mut self.slots[slot], key);
        if first != NONE {
            self.entries[first as usize].previous = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.listed = tick;
        entry.previous = NONE;
        entry.next = first;
    }

    fn unlist(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        if entry.listed == NEVER {
            return;
        }
        let (previous, next, slot) = (entry.previous, entry.next, slot_of(entry.listed));
        entry.listed = NEVER;
        match previous {
            NONE => self.slots[slot] = next,
            _ => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
    }

    fn sweep(&mut self, until: u64, due: &mut Vec<Waker>) {
        while self.next <= until {
            let tick = self.next;
            self.next += 1;
            let mut key = std::mem::replace(&mut self.slots[slot_of(tick)], NONE);
            while key != NONE {
                let entry = &mut self.entries[key as usize];
                let next = entry.next;
                entry.listed = NEVER;
                if entry.deadline <= tick {
                    due.extend(entry.waker.take());
                } else if entry.deadline != NEVER {
                    let deadline = entry.deadline;
                    self.list(key, deadline);
                }
                key = next;
            }
        }
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).unwrap_or(0)
}

/// The deadline of one task. Dropping it disarms it.
#[derive(Debug)]
pub(crate) struct Timer {
    wheel: Rc<Wheel>,
    key: u32,
}

impl Timer {
    /// The wheel's time.
    pub(crate) fn now(&self) -> Instant {
        self.wheel.now()
    }

    /// Sets the deadline to `delay` from now; `None` disarms. Costs one store in the usual case.
    pub(crate) fn set(&self, delay: Option<Duration>) {
        match delay {
            Some(delay) => self.set_at(self.wheel.now() + delay),
            None => self.clear(),
        }
    }

    /// Sets the deadline.
    pub(crate) fn set_at(&self, at: Instant) {
        let deadline = self.wheel.ticks(at, true);
        self.wheel.entries.borrow_mut().arm(self.key, deadline);
    }

    /// No deadline.
    pub(crate) fn clear(&self) {
        self.wheel.entries.borrow_mut().arm(self.key, NEVER);
    }

    /// Ready once the deadline has passed; the task is woken then.
    pub(crate) fn poll_expired(&self, cx: &Context<'_>) -> Poll<()> {
        let mut entries = self.wheel.entries.borrow_mut();
        let swept = entries.next;
        let entry = &mut entries.entries[self.key as usize];
        if entry.deadline < swept {
            return Poll::Ready(());
        }
        match &entry.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => entry.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.wheel.entries.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timer: &Timer) -> bool {
        timer
            .poll_expired(&Context::from_waker(Waker::noop()))
            .is_ready()
    }

    /// A wheel swept tick by tick, without a clock.
    struct Bench(Rc<Wheel>, u64);

    impl Bench {
        fn new() -> Self {
            Self(Wheel::new(Instant::now()), 0)
        }

        fn advance(&mut self, ticks: u64) {
            self.1 += ticks;
            self.0.entries.borrow_mut().sweep(self.1, &mut Vec::new());
        }

        fn arm(&self, timer: &Timer, ticks: u64) {
            timer.set_at(self.0.start + TICK * u32::try_from(self.1 + ticks).expect("small"));
        }
    }

    #[test]
    fn timer_expires_at_its_tick_and_not_before() {
        let mut bench = Bench::new();
        let timer = bench.0.timer();
        assert!(!expired(&timer));
        for ticks in [1, 2, SLOTS - 1, SLOTS, SLOTS + 1, 5 * SLOTS + 3] {
            bench.arm(&timer, ticks);
            bench.advance(ticks - 1);
            assert!(!expired(&timer), "{ticks}");
            bench.advance(1);
            assert!(expired(&timer), "{ticks}");
        }
    }

    #[test]
    fn timer_moves_both_ways_and_is_disarmed() {
        let mut bench = Bench::new();
        let timer = bench.0.timer();
        bench.arm(&timer, 10);
        bench.arm(&timer, 3000);
        bench.advance(50);
        assert!(!expired(&timer));
        bench.arm(&timer, 5);
        bench.advance(5);
        assert!(expired(&timer));
        bench.arm(&timer, 5);
        timer.clear();
        bench.advance(5000);
        assert!(!expired(&timer));
    }

    #[test]
    fn dropped_timers_leave_no_trace_in_their_slot() {
        let mut bench = Bench::new();
        let timers: Vec<Timer> = (0..5).map(|_| bench.0.timer()).collect();
        timers.iter().for_each(|timer| bench.arm(timer, 7));
        let mut timers: Vec<Option<Timer>> = timers.into_iter().map(Some).collect();
        for gone in [2, 0, 4] {
            timers[gone] = None;
        }
        let fresh = bench.0.timer();
        bench.arm(&fresh, 8);
        bench.advance(7);
        assert!(timers.iter().flatten().all(expired));
        assert!(!expired(&fresh));
        assert_eq!(
            bench.0.entries.borrow().entries.len(),
            5,
            "entries are used again"
        );
    }

    #[test]
    fn expiry_wakes_the_task_that_polled() {
        let mut bench = Bench::new();
        let timer = bench.0.timer();
        bench.arm(&timer, 2);
        assert!(!expired(&timer));
        let mut due = Vec::new();
        bench.1 = 2;
        bench.0.entries.borrow_mut().sweep(2, &mut due);
        assert_eq!(due.len(), 1);
    }
}
