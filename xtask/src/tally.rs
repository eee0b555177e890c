//! Counts tests in what `cargo test` prints.

use std::fmt;

/// How many tests ran, over any number of test programs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    /// Test programs, as cargo names them, in which no test ran.
    idle: Vec<String>,
    /// The test program whose output comes now.
    current: String,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Tally {
    /// Takes the next piece of the output, with or without colours.
    pub(crate) fn take(&mut self, output: &[u8]) {
        self.partial.extend_from_slice(output);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.line(&String::from_utf8_lossy(&line));
        }
    }

    fn line(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix("Running ")
            .and_then(|running| running.split_once(" ("))
        {
            name.0.clone_into(&mut self.current);
        } else if let Some((passed, failed)) = line.strip_prefix("test result: ").and_then(counts) {
            self.passed += passed;
            self.failed += failed;
            if passed + failed == 0 {
                self.idle.push(self.current.clone());
            }
        }
    }

    /// Adds what another run counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.idle.extend(other.idle);
    }

    /// How many tests ran.
    pub(crate) fn ran(&self) -> usize {
        self.passed + self.failed
    }

    /// Test programs in which no test ran.
    pub(crate) fn idle(&self) -> &[String] {
        &self.idle
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Reads `ok. 5 passed; 0 failed; 1 ignored; ..`.
fn counts(result: &str) -> Option<(usize, usize)> {
    let count = |what: &str| {
        result
            .split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    Some((count("passed")?, count("failed")?))
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, sequence)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = sequence.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        tally.take(format!("{}\n", lines.join("\n")).as_bytes());
        tally
    }

    #[test]
    fn totals_go_over_all_test_programs() {
        let seen = tally(&[
            "     Running suites/packets.rs (target/debug/deps/packets-0123)",
            "running 5 tests",
            "test a ... ok",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "     Running suites/failover.rs (target/debug/deps/failover-0123)",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.30s",
        ]);
        assert_eq!(seen.to_string(), "6 passed, 2 failed");
        assert!(seen.idle().is_empty());
    }

    #[test]
    fn colours_do_not_hide_a_result() {
        let seen = tally(&[
            "\x1b[1m\x1b[92m     Running\x1b[0m suites/a.rs (deps/a-1)",
            "test result: \x1b[32mok\x1b[m. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!((seen.ran(), seen.current.as_str()), (3, "suites/a.rs"));
    }

    #[test]
    fn a_suite_in_which_nothing_ran_is_named() {
        let nothing = "test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured; 9 filtered out; finished in 0.00s";
        let seen = tally(&[
            "Running suites/empty.rs (deps/empty-1)",
            nothing,
            "Running suites/full.rs (deps/full-1)",
            "test result: ok. 1 passed; 0 failed; 0 ignored",
        ]);
        assert_eq!(seen.idle(), ["suites/empty.rs"]);
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let mut seen = Tally::default();
        for byte in "test ü ... ok\ntest result: ok. 7 passed; 0 failed; 0 ignored\n".bytes() {
            seen.take(&[byte]);
        }
        assert_eq!(seen.to_string(), "7 passed, 0 failed");
    }

    #[test]
    fn runs_add_up() {
        let mut sum = tally(&["test result: ok. 2 passed; 0 failed; 0 ignored"]);
        sum.add(tally(&[
            "test result: FAILED. 1 passed; 1 failed; 0 ignored",
        ]));
        assert_eq!(sum.to_string(), "3 passed, 1 failed");
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            tally(&[
                "",
                "test result: interesting",
                "12 passed; 0 failed",
                "\x1b["
            ])
            .ran(),
            0
        );
    }
}
