//! What the programs of this package print: plain lines, with colour where a person looks at a terminal.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;

use anyhow::Result;

/// Standard output of a program for people.
#[derive(Clone, Copy)]
pub struct Screen {
    colour: bool,
}

/// A colour of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Headings.
    Bold,
    /// What went well.
    Green,
    /// What went wrong.
    Red,
    /// A server.
    Blue,
    /// Another server.
    Yellow,
    /// By the way.
    Grey,
}

impl Screen {
    /// In colour on a terminal where `NO_COLOR` is not set, otherwise plain.
    #[must_use]
    pub fn new() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: stdout().is_terminal() && !unwanted,
        }
    }

    /// Prints a line.
    #[expect(clippy::print_stdout, reason = "the one place that prints")]
    pub fn line(self, text: impl Display) {
        println!("{text}");
    }

    /// Prints a heading after an empty line.
    pub fn heading(self, text: impl Display) {
        self.line(format_args!("\n{}", self.paint(Colour::Bold, text)));
    }

    /// The exit status of a program, its error printed in words.
    #[must_use]
    pub fn finish(self, outcome: Result<()>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    /// Text in a colour.
    #[must_use]
    pub fn paint(self, colour: Colour, text: impl Display) -> String {
        if !self.colour {
            return text.to_string();
        }
        let code = match colour {
            Colour::Bold => "1",
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Blue => "34",
            Colour::Grey => "90",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_plain_and_colour_ends_where_the_text_does() {
        assert_eq!(Screen { colour: false }.paint(Colour::Red, "no"), "no");
        assert_eq!(
            Screen { colour: true }.paint(Colour::Red, "no"),
            "\x1b[31mno\x1b[0m"
        );
    }
}
