//! The second witness: is the canary worse than stable over the same stretch?
//!
//! The generalised likelihood ratio of two binomial samples (Wilks 1938; the "G-test" of Woolf 1957):
//! how many nats more likely the counts are if both sides have rates of their own than if they share
//! one. Zero unless the canary's observed rate is the higher one.

/// The log-likelihood ratio in nats, 0 or above.
///
/// `xc` of `nc` canary requests and `xs` of `ns` stable requests failed; failures never exceed
/// requests. Equal rates give exactly 0: they are compared as whole numbers.
#[must_use]
pub fn ratio(nc: u64, xc: u64, ns: u64, xs: u64) -> f64 {
    let canary_is_not_worse = u128::from(xc) * u128::from(ns) <= u128::from(xs) * u128::from(nc);
    if nc == 0 || ns == 0 || canary_is_not_worse {
        return 0.0;
    }
    let (nc, xc, ns, xs) = (float(nc), float(xc), float(ns), float(xs));
    let shared = (xc + xs) / (nc + ns);
    if shared >= 1.0 {
        return 0.0;
    }
    gain(xc, nc, shared) + gain(xs, ns, shared)
}

/// `x ln(x / np) + (n-x) ln((n-x) / n(1-p))`, with `0 ln 0 = 0`.
fn gain(x: f64, n: f64, p: f64) -> f64 {
    let part = |count: f64, expected: f64| {
        if count > 0.0 {
            count * (count / expected).ln()
        } else {
            0.0
        }
    };
    part(x, n * p) + part(n - x, n * (1.0 - p))
}

/// A count as a float: exact below 2^53, and no judge lives long enough for more.
#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rates_give_exactly_zero() {
        assert_eq!(ratio(100, 10, 1900, 190).to_bits(), 0);
        assert_eq!(ratio(u64::MAX, 7, u64::MAX, 7).to_bits(), 0);
    }

    #[test]
    fn better_canary_or_empty_side_gives_zero() {
        for (nc, xc, ns, xs) in [(0, 0, 5, 5), (5, 5, 0, 0), (10, 0, 10, 1), (37, 37, 63, 63)] {
            assert_eq!(ratio(nc, xc, ns, xs).to_bits(), 0);
        }
    }

    #[test]
    fn five_failures_of_five_against_none_of_five_are_ten_halvings() {
        assert!((ratio(5, 5, 5, 0) - 10.0 * std::f64::consts::LN_2).abs() < 1e-12);
    }
}
