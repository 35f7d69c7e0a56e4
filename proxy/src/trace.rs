//! W3C trace context, and spans for those who collect traces.
//!
//! The context always travels on, whether anybody collects spans or not; one that nobody can understand is
//! begun anew (<https://www.w3.org/TR/trace-context/>, 3.2 and 4.3). If spans are collected, a request that is
//! sampled gets one of its own, and the backend sees this span as its parent. A worker gathers spans and hands
//! them over a bounded queue in lots; when whoever takes them falls behind, they are dropped and counted.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use switchback_config::defaults::{SPAN_LOT as LOT, SPAN_LOTS as LOTS};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::access_log::Record;

/// Which requests get a span, as the samplers of OpenTelemetry say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether the decision of the caller counts, if there is one.
    pub follows_parent: bool,
    /// The share of other traces, 0 to 1.
    pub ratio: f64,
}

impl Sampler {
    fn samples(self, trace: [u8; 16], parent: Option<bool>) -> bool {
        if let Some(sampled) = parent.filter(|_| self.follows_parent) {
            return sampled;
        }
        let [_, _, _, _, _, _, _, _, low @ ..] = trace;
        // The same traces are chosen by everybody who goes by the trace's id: 63 bits of it against the ratio.
        let place = u64::from_be_bytes(low) >> 1;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share need not be exact to one in 2^53"
        )]
        let below = (place as f64) < self.ratio * (1_u64 << 63) as f64;
        below
    }
}

/// Where a span stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// The caller's span, if the caller named one.
    pub parent: Option<[u8; 8]>,
}

/// A request that is over.
#[derive(Debug)]
pub struct Span {
    /// Where it stands in its trace.
    pub context: SpanContext,
    /// When it began, since the Unix epoch.
    pub begun: Duration,
    /// How long it took.
    pub took: Duration,
    /// What is known of it.
    pub record: Box<Record>,
}

/// What workers need to tell of requests.
#[derive(Clone, Debug)]
pub struct Traces {
    sampler: Sampler,
    queue: mpsc::Sender<Vec<Span>>,
    lost: Lost,
}

/// How many spans reached nobody.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// Counts more of them.
    pub fn add(&self, spans: usize) {
        self.0.fetch_add(spans as u64, Relaxed);
    }

    /// All until now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Traces {
    /// Spans of the requests that `sampler` chooses come out of the receiver, in lots.
    #[must_use]
    pub fn new(sampler: Sampler) -> (Self, mpsc::Receiver<Vec<Span>>) {
        let (queue, spans) = mpsc::channel(LOTS);
        let lost = Lost::default();
        let traces = Self {
            sampler,
            queue,
            lost,
        };
        (traces, spans)
    }

    /// The count of spans that reached nobody, also for those that are lost further on.
    #[must_use]
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    pub(crate) fn buffer(&self) -> SpanBuffer {
        SpanBuffer {
            sampler: self.sampler,
            lot: RefCell::default(),
            queue: self.queue.clone(),
            lost: self.lost.clone(),
        }
    }
}

/// One worker's end of the queue.
#[derive(Debug)]
pub(crate) struct SpanBuffer {
    pub(crate) sampler: Sampler,
    lot: RefCell<Vec<Span>>,
    queue: mpsc::Sender<Vec<Span>>,
    lost: Lost,
}

impl SpanBuffer {
    /// Adds a span.
    pub(crate) fn push(&self, span: Span) {
        let mut lot = self.lot.borrow_mut();
        lot.push(span);
        let full = lot.len() >= LOT;
        drop(lot);
        if full {
            self.flush();
        }
    }

    /// Hands over what has gathered, or drops it if nobody takes it.
    pub(crate) fn flush(&self) {
        let lot = std::mem::take(&mut *self.lot.borrow_mut());
        if lot.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(lot) | TrySendError::Closed(lot)) = self.queue.try_send(lot) {
            self.lost.add(lot.len());
        }
    }
}

/// A `traceparent`: version, trace, parent and flags.
pub(crate) type Traceparent = [u8; 55];

/// What becomes of a request's trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// What the backend sees instead of the client's `traceparent`; none: that one.
    pub(crate) traceparent: Option<Traceparent>,
    /// Whether a new trace begins here, to which the client's `tracestate` does not belong.
    pub(crate) begins: bool,
    /// The span of the request, if it gets one.
    pub(crate) span: Option<SpanContext>,
}

impl Trace {
    /// Continues the trace that a client named, or begins one. `given` is the one valid `traceparent`;
    /// `sampler` is none where nobody collects spans; `random` are 16 fresh random bytes each time.
    pub(crate) fn new(
        given: Option<&[u8]>,
        sampler: Option<Sampler>,
        mut random: impl FnMut() -> [u8; 16],
    ) -> Self {
        let begins = given.is_none();
        let Some(sampler) = sampler else {
            let traceparent = begins.then(|| write(random(), first_half(random()), false));
            return Self {
                traceparent,
                begins,
                span: None,
            };
        };
        let trace = given.map_or_else(&mut random, |given| bytes(&given[3..35]));
        let parent_samples = given.map(|given| hex_digit(given[54]) & 1 == 1);
        let samples = sampler.samples(trace, parent_samples);
        let span = first_half(random());
        Self {
            traceparent: (begins || samples).then(|| write(trace, span, samples)),
            begins,
            span: samples.then(|| SpanContext {
                trace,
                span,
                parent: given.map(|given| bytes(&given[36..52])),
            }),
        }
    }
}

fn first_half(random: [u8; 16]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = random;
    [a, b, c, d, e, f, g, h]
}

/// Reads lower-case hexadecimal digits, of which there are twice as many.
fn bytes<const N: usize>(digits: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0]) << 4 | hex_digit(pair[1]);
    }
    out
}

const fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0,
    }
}

/// Whether this is a valid W3C `traceparent`: version, trace id, parent id and flags in lower-case
/// hexadecimal, ids not zero; later versions may append fields.
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    if value.len() < 55 || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
        return false;
    }
    let hex = |range: std::ops::Range<usize>| {
        value[range]
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| value[range].iter().all(|b| *b == b'0');
    let version_ok = hex(0..2)
        && &value[..2] != b"ff"
        && (value.len() == 55 || (&value[..2] != b"00" && value[55] == b'-'));
    version_ok && hex(3..35) && hex(36..52) && hex(53..55) && !zero(3..35) && !zero(36..52)
}

/// Writes a `traceparent` of version 00. Ids that are zero, which none may be, become one.
fn write(trace: [u8; 16], parent: [u8; 8], sampled: bool) -> Traceparent {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000001-0000000000000001-00";
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in bytes.iter().enumerate() {
            text[at + 2 * place] = DIGITS[usize::from(byte >> 4)];
            text[at + 2 * place + 1] = DIGITS[usize::from(byte & 15)];
        }
    };
    if trace != [0; 16] && parent != [0; 8] {
        put(3, &trace);
        put(36, &parent);
    }
    if sampled {
        text[54] = b'1';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    const ALL: Sampler = Sampler {
        follows_parent: true,
        ratio: 1.0,
    };
    const NONE: Sampler = Sampler {
        follows_parent: true,
        ratio: 0.0,
    };

    fn text(trace: &Trace) -> Option<&str> {
        let traceparent = trace.traceparent.as_ref()?;
        Some(std::str::from_utf8(traceparent).expect("text"))
    }

    #[test]
    fn valid_is_what_the_specification_says() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
        assert!(is_traceparent(GIVEN));
        assert!(is_traceparent(
            b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
        ));
        assert!(is_traceparent(&write([0; 16], [0; 8], false)));
    }

    #[test]
    fn context_travels_on_untouched_where_nobody_collects() {
        let trace = Trace::new(Some(GIVEN), None, || [7; 16]);
        assert_eq!(
            (trace.traceparent, trace.begins, trace.span),
            (None, false, None)
        );
        let new = Trace::new(None, None, || [0xab; 16]);
        let expected = "00-abababababababababababababababab-abababababababab-00";
        assert_eq!(
            (text(&new), new.begins, new.span),
            (Some(expected), true, None)
        );
    }

    #[test]
    fn sampled_request_is_the_parent_of_what_the_backend_does() {
        let trace = Trace::new(Some(GIVEN), Some(NONE), || [7; 16]);
        let expected = "00-0af7651916cd43dd8448eb211c80319c-0707070707070707-01";
        assert_eq!((text(&trace), trace.begins), (Some(expected), false));
        let span = trace.span.expect("a span");
        assert_eq!(span.span, [7; 8]);
        assert_eq!(span.parent, Some(bytes(b"b7ad6b7169203331")));
        let new = Trace::new(None, Some(ALL), || [9; 16]);
        let expected = "00-09090909090909090909090909090909-0909090909090909-01";
        assert_eq!((text(&new), new.begins), (Some(expected), true));
        assert_eq!(new.span.expect("a span").parent, None);
    }

    #[test]
    fn whoever_is_not_sampled_gets_no_span() {
        let trace = Trace::new(Some(UNSAMPLED), Some(ALL), || [7; 16]);
        assert_eq!((trace.traceparent, trace.span), (None, None));
        let new = Trace::new(None, Some(NONE), || [9; 16]);
        let expected = "00-09090909090909090909090909090909-0909090909090909-00";
        assert_eq!((text(&new), new.span), (Some(expected), None));
    }

    #[test]
    fn ratio_goes_by_the_trace_and_by_the_parent_only_where_it_shall() {
        let half = Sampler {
            follows_parent: false,
            ratio: 0.5,
        };
        assert!(half.samples([0x7f; 16], Some(false)));
        assert!(!half.samples([0x80; 16], Some(true)));
        assert!(
            Sampler {
                follows_parent: true,
                ..half
            }
            .samples([0x80; 16], Some(true))
        );
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (traces, mut spans) = Traces::new(ALL);
        let buffer = traces.buffer();
        let span = || Span {
            context: SpanContext {
                trace: [1; 16],
                span: [1; 8],
                parent: None,
            },
            begun: Duration::ZERO,
            took: Duration::ZERO,
            record: Record::sample(),
        };
        (0..LOT * (LOTS + 1)).for_each(|_| buffer.push(span()));
        assert_eq!(traces.lost().get(), LOT as u64);
        assert_eq!(spans.try_recv().expect("a lot").len(), LOT);
    }
}
