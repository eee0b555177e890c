//! One key of a section whose string means something: read, understood, or reported.

use std::ops::Range;

use super::{
    diagnostic::Report,
    section::{Located, Section, list, nearest},
    value::Fault,
};

/// A string that `parse` understands; what it does not is reported.
pub(super) fn parsed<T>(
    section: &Section<'_>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, Fault>,
    report: &mut Report<'_>,
) -> Option<Located<T>> {
    let text = section.string(key, report)?;
    accepted(parse(text.value), &text.span, report).map(|value| text.with(value))
}

/// The value, or its fault reported.
pub(super) fn accepted<T>(
    value: Result<T, Fault>,
    span: &Range<usize>,
    report: &mut Report<'_>,
) -> Option<T> {
    match value {
        Ok(value) => Some(value),
        Err(Fault { message, help }) => {
            report.error(span, message, help);
            None
        }
    }
}

/// Like [`parsed`], and reports a key that is missing.
pub(super) fn needed<T>(
    section: &Section<'_>,
    key: &str,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, Fault>,
    report: &mut Report<'_>,
) -> Option<Located<T>> {
    section.require(key, example, report);
    parsed(section, key, parse, report)
}

/// Like [`parsed`], and `otherwise` where the key is missing; `None` only where it is wrong.
pub(super) fn or<T>(
    section: &Section<'_>,
    key: &str,
    otherwise: T,
    parse: impl FnOnce(&str) -> Result<T, Fault>,
    report: &mut Report<'_>,
) -> Option<T> {
    if section.has(key) {
        parsed(section, key, parse, report).map(|located| located.value)
    } else {
        Some(otherwise)
    }
}

/// One of a few words. `later` are words that a version to come will know.
pub(super) fn one_of<T: Copy>(
    what: &str,
    words: &[(&str, T)],
    later: &[&str],
) -> impl FnOnce(&str) -> Result<T, Fault> {
    move |text| {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let is_later = later.contains(&text);
        let message = if is_later {
            format!("{what} {text:?} is not supported yet")
        } else {
            format!("unknown {what} {text:?}")
        };
        // A word that is known was not meant to be another.
        let help = match nearest(text, &known).filter(|_| !is_later) {
            Some(meant) if known.len() > 1 => {
                format!("did you mean \"{meant}\"? valid are {}", list(&known))
            }
            _ => format!("use {}", list(&known).replace(" and ", " or ")),
        };
        Err(Fault {
            message,
            help: help.replace('`', "\""),
        })
    }
}
