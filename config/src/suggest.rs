//! The word that was probably meant.

/// How to repair an unknown word: the nearest known one, or all of them.
pub(crate) fn repair(written: &str, known: &[&str], noun: &str) -> String {
    if let Some(near) = nearest(written, known) {
        return format!("did you mean {near}?");
    }
    match known {
        [] => format!("there is no {noun} to choose"),
        known => format!("use one of: {}", known.join(", ")),
    }
}

/// The known word that differs in the fewest letters, if they are few.
fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    if !written.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let written = written.to_lowercase().replace('-', "_");
    let near = known
        .iter()
        .map(|word| (distance(&written, word), *word))
        .min()?;
    (near.0 <= written.chars().count().max(3) / 3).then_some(near.1)
}

/// Letters to insert, delete, replace or swap (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(64).collect(), other.chars().collect());
    let mut rows = vec![vec![0_usize; other.len() + 1]; one.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=one.len() {
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_listed() {
        let known = ["weights", "backends", "stable"];
        assert_eq!(repair("wieghts", &known, "key"), "did you mean weights?");
        assert_eq!(repair("Stable", &known, "key"), "did you mean stable?");
        assert_eq!(
            repair("color", &known, "key"),
            "use one of: weights, backends, stable"
        );
        assert_eq!(repair("x", &[], "backend"), "there is no backend to choose");
    }
}
