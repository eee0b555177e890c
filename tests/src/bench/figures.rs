//! What a handful of runs says: the least, the middle, and how far the middle is to be believed.

/// Least of the values; infinite where there are none.
#[must_use]
pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Middle of the values; zero where there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => 0.0,
        all if all.len() % 2 == 1 => all[middle],
        all => f64::midpoint(all[middle - 1], all[middle]),
    }
}

/// Standard error of the median, from the median distance to it, so that a few disturbed runs don't count for much.
///
/// The two factors hold for a normal distribution: 1.4826 from that distance to the standard deviation, and
/// sqrt(pi / 2) from the standard error of a mean to that of a median.
#[must_use]
pub fn error_of_median(values: &[f64]) -> f64 {
    let middle = median(values);
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    let deviation = 1.4826 * median(&distances);
    let runs = u32::try_from(values.len().max(1)).unwrap_or(u32::MAX);
    std::f64::consts::FRAC_PI_2.sqrt() * deviation / f64::from(runs).sqrt()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_run_changes_little() {
        let runs = [10.0, 11.0, 12.0, 11.0, 90.0];
        assert_eq!((least(&runs), median(&runs)), (10.0, 11.0));
        assert!(error_of_median(&runs) < 1.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(median(&[]), 0.0);
    }
}
