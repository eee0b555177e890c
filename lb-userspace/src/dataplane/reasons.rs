//! The program's log with the names of drop reasons: the program tells a reason by its number, for it has no text that it could
//! choose at run time.

use lb_common::verdict::DropReason;
use log::{Log, Metadata, Record};

/// What stands in front of the number, at the end of a line.
const BEFORE: &str = ": reason ";

/// Hands the program's lines on to the logger of the process.
pub(super) struct NamedReasons;

impl Log for NamedReasons {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let line = named(&record.args().to_string());
        log::logger().log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .module_path(record.module_path())
                .file(record.file())
                .line(record.line())
                .args(format_args!("{line}"))
                .build(),
        );
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

/// The line with the reason's name.
fn named(line: &str) -> String {
    let reason = line.rsplit_once(BEFORE).and_then(|(start, number)| {
        let number: u8 = number.parse().ok()?;
        let reason = DropReason::ALL
            .iter()
            .find(|reason| **reason as u8 == number)?;
        Some(format!("{start}: {}", reason.name()))
    });
    reason.unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_by_its_name() {
        let dropped =
            |number| format!("dropped 198.51.100.7:1 -> 192.0.2.10:80 protocol 6{BEFORE}{number}");
        for reason in DropReason::ALL {
            let line = named(&dropped(*reason as u8));
            assert_eq!(
                line,
                format!(
                    "dropped 198.51.100.7:1 -> 192.0.2.10:80 protocol 6: {}",
                    reason.name()
                )
            );
        }
        for other in [
            dropped(250),
            "flow a -> b: reason x".to_owned(),
            String::new(),
        ] {
            assert_eq!(named(&other), other);
        }
    }
}
