//! One table of the file, read key by key: wrong types, missing and unknown keys become findings.

use std::ops::{Range, RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{SECTIONS, diagnostic::Report};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<T> Located<T> {
    pub(super) fn new(value: T, span: Range<usize>) -> Self {
        Self { value, span }
    }

    /// The same place with another value.
    pub(super) fn with<U>(&self, value: U) -> Located<U> {
        Located {
            value,
            span: self.span.clone(),
        }
    }
}

/// A table of the file.
#[derive(Clone, Debug)]
pub(super) struct Section<'t> {
    /// As it is written in the file: `[[service]]`.
    title: &'static str,
    /// Where its header stands.
    pub(super) span: Range<usize>,
    table: &'t DeTable<'t>,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl<'t> Section<'t> {
    /// Reports the keys that are not in `known`.
    pub(super) fn new(
        title: &'static str,
        span: Range<usize>,
        table: &'t DeTable<'t>,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let help = match (nearest(name, known), home(name)) {
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, Some("the file")) => {
                    "it stands at the top of the file, above the first section".to_owned()
                }
                (None, Some(home)) => format!("it belongs in {home}"),
                (None, None) => format!("remove it; keys here are {}", list(known)),
            };
            report.error(
                &key.span(),
                format!("unknown key `{}` in {title}", name.escape_debug()),
                help,
            );
        }
        Self { title, span, table }
    }

    fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table.get(key)
    }

    /// Where `key` stands, or else the section's header.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        let key = self
            .table
            .keys()
            .find(|candidate| candidate.get_ref() == key);
        key.map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// Where the value of `key` stands, or else the section's header.
    pub(super) fn place_of_value(&self, key: &str) -> Range<usize> {
        self.value(key)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// The whole number under `key`, where it is one.
    pub(super) fn integer(&self, key: &str) -> Option<Located<String>> {
        let value = self.value(key)?;
        Some(Located::new(integer(value.get_ref())?, value.span()))
    }

    /// No tables `[[key]]` were written, not even wrongly.
    pub(super) fn lacks(&self, key: &str) -> bool {
        self.value(key).is_none_or(|value| {
            value
                .get_ref()
                .as_array()
                .is_some_and(|array| array.is_empty())
        })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Reports that a key must be there; `example` is a whole line.
    pub(super) fn require(&self, key: &str, example: &str, report: &mut Report<'_>) {
        if !self.has(key) {
            report.error(
                &self.span,
                format!("{} has no `{key}`", self.title),
                format!("add {example}"),
            );
        }
    }

    pub(super) fn string(&self, key: &str, report: &mut Report<'_>) -> Option<Located<&'t str>> {
        let value = self.value(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some(Located::new(text.as_ref(), value.span()));
        }
        wrong_type(key, value, "a string", report);
        None
    }

    pub(super) fn boolean(&self, key: &str, report: &mut Report<'_>) -> Option<bool> {
        let value = self.value(key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        wrong_type(key, value, "true or false", report);
        None
    }

    /// A number within `range`.
    pub(super) fn number(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        report: &mut Report<'_>,
    ) -> Option<Located<u32>> {
        let value = self.value(key)?;
        let Some(number) = integer(value.get_ref()) else {
            wrong_type(key, value, "a whole number", report);
            return None;
        };
        let within = number.parse().ok().filter(|number| range.contains(number));
        if within.is_none() {
            let (least, most) = (range.start(), range.end());
            report.error(
                &value.span(),
                format!("`{key}` = {number} is out of range"),
                format!("use a number from {least} to {most}"),
            );
        }
        Some(Located::new(within?, value.span()))
    }

    /// The elements of an array.
    pub(super) fn array(
        &self,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<Located<Vec<&'t Value<'t>>>> {
        let value = self.value(key)?;
        if let DeValue::Array(elements) = value.get_ref() {
            return Some(Located::new(elements.iter().collect(), value.span()));
        }
        wrong_type(key, value, "an array", report);
        None
    }

    /// The one table `key`.
    pub(super) fn table(
        &self,
        key: &str,
        title: &'static str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Section<'t>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::new(title, value.span(), table, known, report)),
            DeValue::Array(_) => {
                let message = format!("`{key}` is an array of tables, and there may be only one");
                report.error(&value.span(), message, format!("write {title}"));
                None
            }
            other => {
                let message = format!("`{key}` is {}, not a table", kind(other));
                report.error(
                    &value.span(),
                    message,
                    format!("write {title} and its keys under it"),
                );
                None
            }
        }
    }

    /// The tables `[[key]]`, in the order of the file.
    pub(super) fn tables(
        &self,
        key: &str,
        title: &'static str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Vec<Section<'t>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(elements) = value.get_ref() else {
            let message = format!(
                "`{key}` is {}, not an array of tables",
                kind(value.get_ref())
            );
            report.error(
                &value.span(),
                message,
                format!("write {title} for each one"),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in elements {
            if let DeValue::Table(table) = element.get_ref() {
                sections.push(Section::new(title, element.span(), table, known, report));
            } else {
                wrong_type(key, element, "a table", report);
            }
        }
        sections
    }
}

/// The one section that knows this key.
fn home(key: &str) -> Option<&'static str> {
    let mut homes = SECTIONS.iter().filter(|(_, keys)| keys.contains(&key));
    let (title, _) = homes.next()?;
    homes.next().is_none().then_some(*title)
}

/// The value of an integer as text, as large as it may be.
pub(super) fn integer(value: &DeValue<'_>) -> Option<String> {
    let integer = value.as_integer()?;
    let number = i128::from_str_radix(integer.as_str(), integer.radix());
    Some(number.map_or_else(|_| integer.to_string(), |number| number.to_string()))
}

fn wrong_type(key: &str, value: &Value<'_>, wanted: &str, report: &mut Report<'_>) {
    let message = format!("`{key}` is {}, not {wanted}", kind(value.get_ref()));
    let help = match (value.get_ref(), wanted) {
        (DeValue::Integer(port), "a string") if ["listen", "address"].contains(&key) => {
            format!("write an address and a port: \"127.0.0.1:{port}\"")
        }
        (DeValue::Integer(number), "a string") => format!("write \"{number}\""),
        (DeValue::String(text), "a whole number") if text.parse::<u32>().is_ok() => {
            format!("write {text} without quotes")
        }
        (DeValue::String(text), "true or false") if text.parse::<bool>().is_ok() => {
            format!("write {text} without quotes")
        }
        _ => format!("write {wanted}"),
    };
    report.error(&value.span(), message, help);
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The candidate that was probably meant: at most one slip in three letters away.
pub(super) fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` ``.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
